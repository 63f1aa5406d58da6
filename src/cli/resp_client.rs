//! A client of one connection for `get` and its kin: RESP2, one command at a time.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::cli::failure::Failure;
use crate::clock::within;

/// How long one command may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest line of a reply, and the largest bulk: what a node sends stays below both.
const LINE_MAX: u64 = 64 << 10;
const BULK_MAX: usize = 512 << 20;
/// The most elements of an array, and how deep arrays nest.
const ARRAY_MAX: usize = 1 << 20;
const DEPTH_MAX: u8 = 4;

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// `+`.
    Simple(String),
    /// `:`.
    Integer(i64),
    /// `$`; `None` is null.
    Bulk(Option<Vec<u8>>),
    /// `*`.
    Array(Vec<Self>),
}

/// A connection to a node.
#[derive(Debug)]
pub(super) struct RespClient {
    stream: BufReader<TcpStream>,
    address: String,
}

enum Fault {
    Io(std::io::Error),
    Protocol(&'static str),
    Refused(String),
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl RespClient {
    /// Connects to a node's client address.
    pub(super) async fn connect(address: &str) -> Result<Self, Failure> {
        let connected = within(PATIENCE, TcpStream::connect(address)).await;
        let unreachable = |why: String| {
            Failure::Unreachable(format!("no node serves clients at {address}: {why}"))
        };
        match connected {
            Some(Ok(stream)) => {
                Ok(Self { stream: BufReader::new(stream), address: address.to_owned() })
            }
            Some(Err(error)) => Err(unreachable(error.to_string())),
            None => Err(unreachable("no answer".to_owned())),
        }
    }

    /// Runs one command; an error reply is a failure.
    pub(super) async fn run(&mut self, parts: &[&[u8]]) -> Result<Reply, Failure> {
        let asked = within(PATIENCE, async {
            let mut request = format!("*{}\r\n", parts.len()).into_bytes();
            for part in parts {
                request.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
                request.extend_from_slice(part);
                request.extend_from_slice(b"\r\n");
            }
            self.stream.write_all(&request).await?;
            read_reply(&mut self.stream, DEPTH_MAX).await
        })
        .await;
        match asked {
            Some(Ok(reply)) => Ok(reply),
            Some(Err(Fault::Refused(why))) => Err(Failure::Failed(why)),
            Some(Err(Fault::Protocol(why))) => {
                Err(Failure::Failed(format!("{} does not speak RESP: {why}", self.address)))
            }
            Some(Err(Fault::Io(error))) => Err(Failure::Unreachable(format!(
                "the connection to {} was lost: {error}",
                self.address
            ))),
            None => Err(Failure::TimedOut(format!("{} did not answer in time", self.address))),
        }
    }
}

type Stream<'a> = &'a mut (dyn tokio::io::AsyncBufRead + Send + Unpin);

async fn read_reply(stream: Stream<'_>, depth: u8) -> Result<Reply, Fault> {
    let line = read_line(stream).await?;
    let mut letters = line.chars();
    let kind = letters.next().ok_or(Fault::Protocol("empty line"))?;
    let rest = letters.as_str();
    match kind {
        '+' => Ok(Reply::Simple(rest.to_owned())),
        '-' => Err(Fault::Refused(rest.to_owned())),
        ':' => rest.parse().map(Reply::Integer).map_err(|_| Fault::Protocol("not a number")),
        '$' => match length(rest, BULK_MAX)? {
            None => Ok(Reply::Bulk(None)),
            Some(length) => read_bulk(stream, length).await.map(Some).map(Reply::Bulk),
        },
        '*' => {
            let below = depth.checked_sub(1).ok_or(Fault::Protocol("nested too deep"))?;
            let mut items = Vec::new();
            for _ in 0..length(rest, ARRAY_MAX)?.unwrap_or(0) {
                items.push(Box::pin(read_reply(&mut *stream, below)).await?);
            }
            Ok(Reply::Array(items))
        }
        _ => Err(Fault::Protocol("unknown kind of reply")),
    }
}

/// A length; `None` for -1.
fn length(text: &str, max: usize) -> Result<Option<usize>, Fault> {
    if text == "-1" {
        return Ok(None);
    }
    match text.parse() {
        Ok(length) if length <= max => Ok(Some(length)),
        Ok(_) => Err(Fault::Protocol("too long")),
        Err(_) => Err(Fault::Protocol("not a length")),
    }
}

async fn read_line(stream: Stream<'_>) -> Result<String, Fault> {
    let mut line = Vec::new();
    stream.take(LINE_MAX).read_until(b'\n', &mut line).await?;
    let text = line.strip_suffix(b"\r\n").ok_or(Fault::Protocol("line without an end"))?;
    Ok(String::from_utf8_lossy(text).into_owned())
}

async fn read_bulk(stream: Stream<'_>, length: usize) -> Result<Vec<u8>, Fault> {
    let with_end = u64::try_from(length).unwrap_or(u64::MAX).saturating_add(2);
    let mut bytes = Vec::new();
    stream.take(with_end).read_to_end(&mut bytes).await?;
    if bytes.len() != length.saturating_add(2) || !bytes.ends_with(b"\r\n") {
        return Err(Fault::Protocol("bulk without an end"));
    }
    bytes.truncate(length);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Option<Reply> {
        let mut stream = bytes;
        read_reply(&mut stream, DEPTH_MAX).await.ok()
    }

    #[tokio::test]
    async fn replies_are_read() {
        assert_eq!(read(b"+OK\r\n").await, Some(Reply::Simple("OK".into())));
        assert_eq!(read(b":-2\r\n").await, Some(Reply::Integer(-2)));
        assert_eq!(read(b"$-1\r\n").await, Some(Reply::Bulk(None)));
        let array = Reply::Array(vec![Reply::Bulk(Some(b"0".to_vec())), Reply::Array(Vec::new())]);
        assert_eq!(read(b"*2\r\n$1\r\n0\r\n*0\r\n").await, Some(array));
    }

    #[tokio::test]
    async fn broken_replies_are_refused() {
        for bytes in [
            "",
            "OK\r\n",
            "+OK",
            "$5\r\nab\r\n",
            "$9999999999\r\n",
            "*1\r\n",
            ":x\r\n",
            "$2\r\nabc\r\n",
            "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
        ] {
            assert_eq!(read(bytes.as_bytes()).await, None, "{bytes:?}");
        }
    }
}
