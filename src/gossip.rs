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
