//! The sockets: the operating system's, or the simulator's, chosen at run time.
//!
//! Each type is an enum of tokio's and, with the additive feature `simulation`, turmoil's, so that
//! one build serves both and the code above never knows which it has. Binding never waits; what
//! has to wait (connecting, resolving, accepting) is async.
//!
//! In the simulator every datagram, QUIC's included, passes one function, where a hook of the test
//! may lose, double or change it (`simulated::set_hook`). TCP has no such hook: the simulator
//! does not retransmit, so that a lost segment would end the stream.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::Runtime;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Which network a node lives in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Net {
    /// The operating system's.
    #[default]
    Os,
    /// The simulator's: only within a host of a running simulation.
    #[cfg(feature = "simulation")]
    Simulated,
}

/// A UDP socket for QUIC, and what the system granted it.
#[derive(Debug)]
pub struct QuicSocket {
    /// The socket as quinn takes it.
    pub socket: Arc<dyn quinn::AsyncUdpSocket>,
    /// Bytes of the receive buffer, read back: the system clamps silently what was asked for.
    pub receive_buffer: usize,
}

/// Pending connections that the system holds for a listener.
const BACKLOG: i32 = 1024;

impl Net {
    /// Whether this is the simulator, where everything lives on one runtime.
    pub const fn is_simulated(self) -> bool {
        match self {
            Self::Os => false,
            #[cfg(feature = "simulation")]
            Self::Simulated => true,
        }
    }

    /// Listens on `address`; port 0 takes any.
    pub fn bind_tcp(self, address: SocketAddr) -> io::Result<TcpListener> {
        match self {
            Self::Os => {
                let socket = match address {
                    SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
                    SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
                };
                socket.set_reuseaddr(true)?;
                socket.bind(address)?;
                Ok(TcpListener::Os(socket.listen(BACKLOG.unsigned_abs())?))
            }
            #[cfg(feature = "simulation")]
            Self::Simulated => simulated::at_once(turmoil::net::TcpListener::bind(address))?
                .map(TcpListener::Simulated),
        }
    }

    /// Connects to `address`.
    pub async fn connect_tcp(self, address: SocketAddr) -> io::Result<TcpStream> {
        match self {
            Self::Os => tokio::net::TcpStream::connect(address).await.map(TcpStream::Os),
            #[cfg(feature = "simulation")]
            Self::Simulated => {
                turmoil::net::TcpStream::connect(address).await.map(TcpStream::Simulated)
            }
        }
    }

    /// Binds a UDP socket; port 0 takes any. `buffer` bytes are asked for in each direction.
    pub fn bind_udp(self, address: SocketAddr, buffer: usize) -> io::Result<UdpSocket> {
        match self {
            Self::Os => {
                let socket = os_udp(address, buffer)?;
                tokio::net::UdpSocket::from_std(socket).map(UdpSocket::Os)
            }
            #[cfg(feature = "simulation")]
            Self::Simulated => simulated::bind_udp(address).map(UdpSocket::Simulated),
        }
    }

    /// Binds a UDP socket for a QUIC endpoint. `buffer` bytes are asked for in each direction.
    pub fn bind_quic(self, address: SocketAddr, buffer: usize) -> io::Result<QuicSocket> {
        match self {
            Self::Os => {
                let socket = os_udp(address, buffer)?;
                let reported = socket2::SockRef::from(&socket).recv_buffer_size()?;
                let receive_buffer = reported / REPORTED_PER_GRANTED;
                let socket = quinn::TokioRuntime.wrap_udp_socket(socket)?;
                Ok(QuicSocket { socket, receive_buffer })
            }
            #[cfg(feature = "simulation")]
            Self::Simulated => {
                let socket = Arc::new(simulated::QuicUdp::new(simulated::bind_udp(address)?));
                Ok(QuicSocket { socket, receive_buffer: buffer })
            }
        }
    }

    /// The addresses of `host:port`, sorted; a name that resolves to none is an error.
    pub async fn resolve(self, host_port: &str) -> io::Result<Vec<SocketAddr>> {
        let mut addresses: Vec<SocketAddr> = match self {
            Self::Os => tokio::net::lookup_host(host_port).await?.collect(),
            #[cfg(feature = "simulation")]
            Self::Simulated => simulated::resolve(host_port)?,
        };
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "name has no address"));
        }
        Ok(addresses)
    }
}

/// The address from which a node that listens on `listen` dials out: the same one, any port.
pub const fn outgoing_address(listen: SocketAddr) -> SocketAddr {
    SocketAddr::new(listen.ip(), 0)
}

/// Linux reports twice what it granted: it counts its own overhead.
const REPORTED_PER_GRANTED: usize = if cfg!(target_os = "linux") { 2 } else { 1 };

fn os_udp(address: SocketAddr, buffer: usize) -> io::Result<std::net::UdpSocket> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_recv_buffer_size(buffer)?;
    socket.set_send_buffer_size(buffer)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// A listening TCP socket.
pub enum TcpListener {
    /// The operating system's.
    Os(tokio::net::TcpListener),
    /// The simulator's.
    #[cfg(feature = "simulation")]
    Simulated(turmoil::net::TcpListener),
}

impl TcpListener {
    /// The next connection and where it comes from.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match self {
            Self::Os(listener) => {
                listener.accept().await.map(|(stream, from)| (TcpStream::Os(stream), from))
            }
            #[cfg(feature = "simulation")]
            Self::Simulated(listener) => {
                listener.accept().await.map(|(stream, from)| (TcpStream::Simulated(stream), from))
            }
        }
    }

    /// The address it is bound to, with the real port.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Os(listener) => listener.local_addr(),
            #[cfg(feature = "simulation")]
            Self::Simulated(listener) => listener.local_addr(),
        }
    }
}

impl std::fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("TcpListener").field(&self.local_addr()).finish()
    }
}

/// A TCP connection.
#[derive(Debug)]
pub enum TcpStream {
    /// The operating system's.
    Os(tokio::net::TcpStream),
    /// The simulator's.
    #[cfg(feature = "simulation")]
    Simulated(turmoil::net::TcpStream),
}

impl TcpStream {
    /// Whether small writes leave at once.
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        match self {
            Self::Os(stream) => stream.set_nodelay(on),
            #[cfg(feature = "simulation")]
            Self::Simulated(stream) => stream.set_nodelay(on),
        }
    }

    /// The other side's address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Os(stream) => stream.peer_addr(),
            #[cfg(feature = "simulation")]
            Self::Simulated(stream) => stream.peer_addr(),
        }
    }

    /// This side's address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Os(stream) => stream.local_addr(),
            #[cfg(feature = "simulation")]
            Self::Simulated(stream) => stream.local_addr(),
        }
    }

    /// Takes the connection off this thread's runtime, to hand it to another thread's.
    pub fn detach(self) -> io::Result<DetachedTcp> {
        match self {
            Self::Os(stream) => stream.into_std().map(DetachedTcp::Os),
            #[cfg(feature = "simulation")]
            Self::Simulated(stream) => Ok(DetachedTcp::Simulated(stream)),
        }
    }
}

/// A TCP connection between two runtimes.
#[derive(Debug)]
pub enum DetachedTcp {
    /// The operating system's.
    Os(std::net::TcpStream),
    /// The simulator's, which has one runtime a host.
    #[cfg(feature = "simulation")]
    Simulated(turmoil::net::TcpStream),
}

impl DetachedTcp {
    /// Gives the connection to the current runtime.
    pub fn attach(self) -> io::Result<TcpStream> {
        match self {
            Self::Os(stream) => tokio::net::TcpStream::from_std(stream).map(TcpStream::Os),
            #[cfg(feature = "simulation")]
            Self::Simulated(stream) => Ok(TcpStream::Simulated(stream)),
        }
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Os(stream) => Pin::new(stream).poll_read(context, buffer),
            #[cfg(feature = "simulation")]
            Self::Simulated(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Os(stream) => Pin::new(stream).poll_write(context, bytes),
            #[cfg(feature = "simulation")]
            Self::Simulated(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Os(stream) => Pin::new(stream).poll_flush(context),
            #[cfg(feature = "simulation")]
            Self::Simulated(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Os(stream) => Pin::new(stream).poll_shutdown(context),
            #[cfg(feature = "simulation")]
            Self::Simulated(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Os(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            #[cfg(feature = "simulation")]
            Self::Simulated(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Os(stream) => stream.is_write_vectored(),
            #[cfg(feature = "simulation")]
            Self::Simulated(stream) => stream.is_write_vectored(),
        }
    }
}

/// A UDP socket.
#[derive(Debug)]
pub enum UdpSocket {
    /// The operating system's.
    Os(tokio::net::UdpSocket),
    /// The simulator's.
    #[cfg(feature = "simulation")]
    Simulated(turmoil::net::UdpSocket),
}

impl UdpSocket {
    /// Sends one datagram, waiting for room.
    pub async fn send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        match self {
            Self::Os(socket) => socket.send_to(bytes, to).await.map(drop),
            #[cfg(feature = "simulation")]
            Self::Simulated(socket) => simulated::send(socket, bytes, to),
        }
    }

    /// Sends one datagram if there is room; `WouldBlock` otherwise.
    pub fn try_send_to(&self, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        match self {
            Self::Os(socket) => socket.try_send_to(bytes, to).map(drop),
            #[cfg(feature = "simulation")]
            Self::Simulated(socket) => simulated::send(socket, bytes, to),
        }
    }

    /// Waits for a datagram; what does not fit into `buffer` is cut off.
    pub async fn recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        match self {
            Self::Os(socket) => socket.recv_from(buffer).await,
            #[cfg(feature = "simulation")]
            Self::Simulated(socket) => socket.recv_from(buffer).await,
        }
    }

    /// Takes a datagram that is there; `WouldBlock` otherwise.
    pub fn try_recv_from(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        match self {
            Self::Os(socket) => socket.try_recv_from(buffer),
            #[cfg(feature = "simulation")]
            Self::Simulated(socket) => socket.try_recv_from(buffer),
        }
    }

    /// Waits until a datagram is there. May return without one.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Os(socket) => socket.readable().await,
            #[cfg(feature = "simulation")]
            Self::Simulated(socket) => socket.readable().await,
        }
    }

    /// The address it is bound to, with the real port.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Os(socket) => socket.local_addr(),
            #[cfg(feature = "simulation")]
            Self::Simulated(socket) => socket.local_addr(),
        }
    }
}

/// The simulator's side of the sockets: datagrams with their hook, and a UDP socket for quinn.
#[cfg(feature = "simulation")]
pub mod simulated {
    use std::cell::RefCell;
    use std::fmt;
    use std::future::Future;
    use std::io::{self, IoSliceMut};
    use std::net::{IpAddr, SocketAddr};
    use std::pin::{Pin, pin};
    use std::sync::{Arc, Mutex, PoisonError};
    use std::task::{Context, Poll, Waker, ready};

    use quinn::udp::{RecvMeta, Transmit};
    use quinn::{AsyncUdpSocket, UdpPoller};
    use turmoil::net::UdpSocket;

    /// What becomes of a datagram.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub enum Fate {
        /// It goes out as it is.
        Deliver,
        /// It is lost.
        Drop,
        /// It goes out twice.
        Duplicate,
        /// These bytes go out instead.
        Replace(Vec<u8>),
    }

    /// Decides about each datagram of the simulation: its destination and its bytes.
    pub type Hook = Box<dyn FnMut(SocketAddr, &[u8]) -> Fate>;

    thread_local! {
        /// A simulation lives on one thread, so that its hook does too.
        static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
    }

    /// Sets or removes the hook of the simulation that runs on this thread.
    pub fn set_hook(hook: Option<Hook>) {
        HOOK.with_borrow_mut(|slot| *slot = hook);
    }

    /// The one way out for datagrams.
    pub(super) fn send(socket: &UdpSocket, bytes: &[u8], to: SocketAddr) -> io::Result<()> {
        let fate = HOOK.with_borrow_mut(|slot| {
            slot.as_mut().map_or(Fate::Deliver, |decide| decide(to, bytes))
        });
        match fate {
            Fate::Deliver => {}
            Fate::Drop => return Ok(()),
            Fate::Duplicate => {
                socket.try_send_to(bytes, to)?;
            }
            Fate::Replace(other) => return socket.try_send_to(&other, to).map(drop),
        }
        socket.try_send_to(bytes, to).map(drop)
    }

    /// Runs what the simulator declares async and never waits for.
    pub(super) fn at_once<F: Future>(future: F) -> io::Result<F::Output> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Ok(output),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    pub(super) fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
        at_once(UdpSocket::bind(address))?
    }

    pub(super) fn resolve(host_port: &str) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host_port.parse() {
            return Ok(vec![address]);
        }
        let wrong = || io::Error::new(io::ErrorKind::InvalidInput, "not a host:port");
        let (host, port) = host_port.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let ip: IpAddr = turmoil::lookup(host);
        Ok(vec![SocketAddr::new(ip, port)])
    }

    type Readable = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

    /// A simulated UDP socket as quinn takes it: one datagram at a time, always writable.
    pub(super) struct QuicUdp {
        socket: Arc<UdpSocket>,
        /// The wait for the next datagram. It holds the socket's lock: dropped before receiving.
        readable: Mutex<Option<Readable>>,
    }

    impl QuicUdp {
        pub(super) fn new(socket: UdpSocket) -> Self {
            Self { socket: Arc::new(socket), readable: Mutex::new(None) }
        }
    }

    impl fmt::Debug for QuicUdp {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_tuple("QuicUdp").field(&self.socket).finish()
        }
    }

    impl AsyncUdpSocket for QuicUdp {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            Box::pin(AlwaysWritable)
        }

        fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
            send(&self.socket, transmit.contents, transmit.destination)
        }

        fn poll_recv(
            &self,
            context: &mut Context<'_>,
            buffers: &mut [IoSliceMut<'_>],
            meta: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            let (Some(buffer), Some(meta)) = (buffers.first_mut(), meta.first_mut()) else {
                return Poll::Ready(Ok(0));
            };
            let mut readable = self.readable.lock().unwrap_or_else(PoisonError::into_inner);
            loop {
                if let Some(wait) = readable.as_mut() {
                    ready!(wait.as_mut().poll(context))?;
                    *readable = None;
                }
                match self.socket.try_recv_from(buffer) {
                    Ok((len, addr)) => {
                        *meta = RecvMeta { addr, len, stride: len, ecn: None, dst_ip: None };
                        return Poll::Ready(Ok(1));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        let socket = Arc::clone(&self.socket);
                        *readable = Some(Box::pin(async move { socket.readable().await }));
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            self.socket.local_addr()
        }

        fn may_fragment(&self) -> bool {
            false
        }
    }

    #[derive(Debug)]
    struct AlwaysWritable;

    impl UdpPoller for AlwaysWritable {
        fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    async fn echo_once(net: Net, listen: SocketAddr, listener_ready: impl FnOnce(SocketAddr)) {
        let listener = net.bind_tcp(listen).unwrap();
        listener_ready(listener.local_addr().unwrap());
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = stream.detach().unwrap().attach().unwrap();
        let mut word = [0; 4];
        stream.read_exact(&mut word).await.unwrap();
        stream.write_all(&word).await.unwrap();
    }

    #[tokio::test]
    async fn a_handed_over_connection_still_carries_bytes() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let server = echo_once(Net::Os, LOOPBACK, |address| sender.send(address).unwrap());
        let client = async {
            let mut stream = Net::Os.connect_tcp(receiver.await.unwrap()).await.unwrap();
            stream.set_nodelay(true).unwrap();
            stream.write_all(b"chip").await.unwrap();
            let mut word = [0; 4];
            stream.read_exact(&mut word).await.unwrap();
            assert_eq!(&word, b"chip");
        };
        tokio::join!(server, client);
    }

    #[tokio::test]
    async fn datagrams_pass_and_names_resolve() {
        let a = Net::Os.bind_udp(LOOPBACK, 1 << 20).unwrap();
        let b = Net::Os.bind_udp(LOOPBACK, 1 << 20).unwrap();
        a.send_to(b"dee", b.local_addr().unwrap()).await.unwrap();
        b.readable().await.unwrap();
        let mut buffer = [0; 16];
        let (length, from) = b.recv_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..length], from), (&b"dee"[..], a.local_addr().unwrap()));
        assert_eq!(Net::Os.resolve("127.0.0.1:7").await.unwrap()[0].port(), 7);
        assert!(Net::Os.resolve("no port").await.is_err());
    }

    #[cfg(feature = "simulation")]
    #[test]
    fn the_simulator_loses_and_doubles_datagrams_as_its_hook_says() {
        use simulated::{Fate, set_hook};

        set_hook(Some(Box::new(|_, bytes| match bytes {
            b"one" => Fate::Drop,
            b"two" => Fate::Duplicate,
            b"three" => Fate::Replace(b"four".to_vec()),
            _ => Fate::Deliver,
        })));
        let latency = std::time::Duration::from_millis(1);
        let mut sim = turmoil::Builder::new()
            .min_message_latency(latency)
            .max_message_latency(latency)
            .build();
        sim.host("receiver", || async {
            let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 9);
            let socket = Net::Simulated.bind_udp(any, 0)?;
            for expected in [&b"two"[..], b"two", b"four", b"five"] {
                let mut buffer = [0; 16];
                let (length, from) = socket.recv_from(&mut buffer).await?;
                assert_eq!(&buffer[..length], expected);
                socket.send_to(b"seen", from).await?;
            }
            std::future::pending().await
        });
        sim.client("sender", async {
            let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
            let socket = Net::Simulated.bind_udp(any, 0)?;
            let to = Net::Simulated.resolve("receiver:9").await?[0];
            let mut buffer = [0; 16];
            socket.send_to(b"one", to).await?;
            socket.send_to(b"two", to).await?;
            for word in [&b"three"[..], b"five"] {
                socket.recv_from(&mut buffer).await?;
                socket.send_to(word, to).await?;
            }
            Ok(())
        });
        sim.run().unwrap();
        set_hook(None);
    }
}
