//! A client that speaks RESP2 over a blocking socket: as plain as a client can be.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// A status.
    Simple(String),
    /// An error.
    Error(String),
    /// An integer.
    Int(i64),
    /// A string, or none.
    Bulk(Option<Vec<u8>>),
    /// An array, or none.
    Array(Option<Vec<Self>>),
}

impl Reply {
    /// Whether it is an error.
    pub(crate) const fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }

    /// The string, if it is one.
    pub(crate) fn text(&self) -> Option<String> {
        match self {
            Self::Bulk(Some(bytes)) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Self::Simple(text) | Self::Error(text) => Some(text.clone()),
            _ => None,
        }
    }

    /// The integer, if it is one.
    pub(crate) const fn int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            _ => None,
        }
    }
}

/// `+OK`.
pub(crate) fn ok() -> Reply {
    Reply::Simple("OK".to_owned())
}

/// A string reply.
pub(crate) fn bulk(text: &str) -> Reply {
    Reply::Bulk(Some(text.as_bytes().to_vec()))
}

/// The null reply.
pub(crate) const NIL: Reply = Reply::Bulk(None);

/// A connection.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects; a reply may take ten seconds.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).expect("the node accepts clients")
    }

    /// Connects, if the node accepts.
    pub(crate) fn try_connect(address: SocketAddr) -> std::io::Result<Self> {
        Self::try_connect_within(address, Duration::from_secs(5), Duration::from_secs(10))
    }

    /// Connects, if the node accepts within `patience`; a reply may take as long as `reply`.
    pub(crate) fn try_connect_within(
        address: SocketAddr,
        patience: Duration,
        reply: Duration,
    ) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        if stream.local_addr()? == stream.peer_addr()? {
            // The system drew, as the port to connect from, the very one that nobody listens on.
            return Err(std::io::ErrorKind::ConnectionRefused.into());
        }
        stream.set_read_timeout(Some(reply))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Whether the node has closed the connection, as far as is known without waiting.
    pub(crate) fn is_closed(&self) -> std::io::Result<bool> {
        let stream = self.stream.get_ref();
        stream.set_nonblocking(true)?;
        let seen = stream.peek(&mut [0]);
        stream.set_nonblocking(false)?;
        Ok(!matches!(seen, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock))
    }

    /// Runs one command.
    pub(crate) fn run<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Reply {
        self.try_run(args).expect("the node answers")
    }

    /// Runs one command, or says what became of the connection.
    pub(crate) fn try_run<A: AsRef<[u8]>>(&mut self, args: &[A]) -> std::io::Result<Reply> {
        self.send(args)?;
        self.receive()
    }

    /// Sends one command without waiting for the reply.
    pub(crate) fn send<A: AsRef<[u8]>>(&mut self, args: &[A]) -> std::io::Result<()> {
        let mut request = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            let arg = arg.as_ref();
            request.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
            request.extend_from_slice(arg);
            request.extend_from_slice(b"\r\n");
        }
        self.send_raw(&request)
    }

    /// Sends bytes as they are.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Receives one reply.
    pub(crate) fn receive(&mut self) -> std::io::Result<Reply> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        let (kind, rest) = line.split_at_checked(1).ok_or(std::io::ErrorKind::InvalidData)?;
        let number = || rest.parse::<i64>().map_err(|_| std::io::ErrorKind::InvalidData);
        Ok(match kind {
            "+" => Reply::Simple(rest.to_owned()),
            "-" => Reply::Error(rest.to_owned()),
            ":" => Reply::Int(number()?),
            "$" => match usize::try_from(number()?) {
                Ok(length) => {
                    let mut value = vec![0; length + 2];
                    self.stream.read_exact(&mut value)?;
                    value.truncate(length);
                    Reply::Bulk(Some(value))
                }
                Err(_) => Reply::Bulk(None),
            },
            "*" => match usize::try_from(number()?) {
                Ok(length) => Reply::Array(Some(
                    (0..length).map(|_| self.receive()).collect::<Result<_, _>>()?,
                )),
                Err(_) => Reply::Array(None),
            },
            _ => return Err(std::io::ErrorKind::InvalidData.into()),
        })
    }

    /// Everything the node still says until it closes the connection.
    pub(crate) fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        // A reset is an end like any other here.
        let _however_it_ended = self.stream.read_to_end(&mut rest);
        String::from_utf8_lossy(&rest).into_owned()
    }
}
