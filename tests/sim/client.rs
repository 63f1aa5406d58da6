//! A Redis client on the simulated network.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use chickadee::net::{Net, TcpStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// The longest that the client waits for one reply.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection that is made anew after an error.
pub(crate) struct Client {
    address: SocketAddr,
    stream: Option<TcpStream>,
}

impl Client {
    /// A client of the node at `address`; it connects with its first command.
    pub(crate) const fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    /// Runs a command; the first line of the reply and, for a string, its bytes.
    pub(crate) async fn run(&mut self, args: &[&str]) -> io::Result<String> {
        let done = timeout(PATIENCE, self.exchange(args)).await;
        let reply = done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        if reply.is_err() {
            self.stream = None;
        }
        reply
    }

    async fn exchange(&mut self, args: &[&str]) -> io::Result<String> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => none.insert(Net::Simulated.connect_tcp(self.address).await?),
        };
        let mut request = format!("*{}\r\n", args.len());
        for arg in args {
            request += &format!("${}\r\n{arg}\r\n", arg.len());
        }
        stream.write_all(request.as_bytes()).await?;
        let line = read_line(stream).await?;
        match line.strip_prefix('$') {
            None => Ok(line),
            Some("-1") => Ok("nil".to_owned()),
            Some(length) => {
                let length: usize =
                    length.parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
                let mut value = vec![0; length + 2];
                stream.read_exact(&mut value).await?;
                value.truncate(length);
                Ok(String::from_utf8_lossy(&value).into_owned())
            }
        }
    }
}

async fn read_line(stream: &mut TcpStream) -> io::Result<String> {
    let mut line = Vec::new();
    loop {
        let byte = stream.read_u8().await?;
        if byte == b'\n' {
            break;
        }
        line.push(byte);
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}
