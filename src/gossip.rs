//! The gossip socket: UDP behind the membership service.
//!
//! It sends and receives datagrams and understands none of them.

use std::io;
use std::net::SocketAddr;

use crate::members::Datagrams;
use crate::net::UdpSocket;
use crate::tasks::BoxFuture;

/// A bound UDP socket as the membership service uses it.
#[derive(Debug)]
pub struct GossipSocket {
    socket: UdpSocket,
}

impl GossipSocket {
    /// The service's view of a bound socket.
    pub const fn new(socket: UdpSocket) -> Self {
        Self { socket }
    }

    /// The address it is bound to, with the real port.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

impl Datagrams for GossipSocket {
    fn send(&self, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
        self.socket.try_send_to(bytes, to)
    }

    fn receive<'a>(
        &'a self,
        buffer: &'a mut [u8],
    ) -> BoxFuture<'a, io::Result<(usize, SocketAddr)>> {
        Box::pin(self.socket.recv_from(buffer))
    }

    fn try_receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.socket.try_recv_from(buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::within;
    use crate::limits::GOSSIP_DATAGRAM_MAX;
    use crate::net::Net;

    #[tokio::test]
    async fn datagrams_pass_and_too_long_ones_are_seen_to_be() {
        let bind = || {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            GossipSocket::new(Net::Os.bind_udp(any, 1 << 16).unwrap())
        };
        let (a, b) = (bind(), bind());
        let to = b.local_addr().unwrap();
        let mut buffer = vec![0; GOSSIP_DATAGRAM_MAX + 1];
        assert_eq!(b.try_receive(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        for (sent, seen) in [(5, 5), (GOSSIP_DATAGRAM_MAX + 500, GOSSIP_DATAGRAM_MAX + 1)] {
            // A socket that was just bound is not writable before the runtime has looked at it.
            let bytes = vec![7; sent];
            let send = async {
                while a.send(to, &bytes).is_err() {
                    tokio::task::yield_now().await;
                }
            };
            within(Duration::from_secs(10), send).await.unwrap();
            let got = b.receive(&mut buffer).await.unwrap();
            assert_eq!(got, (seen, a.local_addr().unwrap()));
        }
    }
}
