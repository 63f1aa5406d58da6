//! A Redis client on the simulated network.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use chickadee::net::{Net, TcpStream};
use chickadee::resp::Reply;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// The longest that the client waits for one reply: more than the budget of a command.
const PATIENCE: Duration = Duration::from_secs(4);

/// A connection to one of several nodes: after an error the next one is tried.
pub(crate) struct Client {
    addresses: Vec<SocketAddr>,
    stream: Option<TcpStream>,
}

impl Client {
    /// A client of the nodes at `addresses`; it connects with its first command.
    pub(crate) const fn new(addresses: Vec<SocketAddr>) -> Self {
        Self { addresses, stream: None }
    }

    /// Runs a command. After an error it is not known whether it was executed, unless the
    /// connection was refused.
    pub(crate) async fn run(&mut self, args: &[&str]) -> io::Result<Reply> {
        let done = timeout(PATIENCE, self.exchange(args)).await;
        let reply = done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        if reply.is_err() {
            self.stream = None;
            self.addresses.rotate_left(1);
        }
        reply
    }

    async fn exchange(&mut self, args: &[&str]) -> io::Result<Reply> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => none.insert(Net::Simulated.connect_tcp(self.addresses[0]).await?),
        };
        let bulks: Vec<String> =
            args.iter().map(|arg| format!("${}\r\n{arg}\r\n", arg.len())).collect();
        let request = format!("*{}\r\n{}", args.len(), bulks.concat());
        stream.write_all(request.as_bytes()).await?;
        let mut received = Vec::new();
        loop {
            match Reply::decode(&received) {
                Ok(Some((reply, _))) => return Ok(reply),
                Ok(None) => {}
                Err(_) => return Err(io::ErrorKind::InvalidData.into()),
            }
            if stream.read_buf(&mut received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
