//! Asks a node over admin HTTP, by TCP or by its socket.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::admin::status::Refusal;
use crate::cli::args::Common;
use crate::cli::failure::Failure;
use crate::cli::output::printable;
use crate::cli::sources;
use crate::clock::within;
use crate::config::keys;
use crate::config::settings::find;
use crate::tasks;

/// How long an answer may take; actions have their own time.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The largest answer that is read.
const ANSWER_MAX: usize = 64 << 20;

/// Where the system's node has its socket.
const SYSTEM_SOCKET: &str = "/run/chickadee/admin.sock";

/// A node's admin interface.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    /// `host:port`.
    Tcp(String),
    /// The socket.
    Unix(PathBuf),
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Ask {
    /// The node to look at: as told, else the admin address that nodes have by default.
    pub(super) fn looking(common: &Common) -> Result<Self, Failure> {
        match (&common.socket, &common.addr) {
            (Some(socket), _) => Ok(Self::Unix(socket.clone())),
            (None, Some(address)) => Self::tcp(address),
            (None, None) => {
                let default = find(keys::ADMIN_LISTEN).map_or("", |row| row.default);
                Self::tcp(default)
            }
        }
    }

    /// The node to act on: as told, else the socket that nodes have by default.
    pub(super) fn acting(common: &Common) -> Result<Self, Failure> {
        match (&common.socket, &common.addr) {
            (Some(socket), _) => Ok(Self::Unix(socket.clone())),
            (None, Some(_)) => Err(Failure::Usage(
                "actions are taken on the node's admin socket: use --socket PATH".to_owned(),
            )),
            (None, None) if Path::new(SYSTEM_SOCKET).exists() => {
                Ok(Self::Unix(SYSTEM_SOCKET.into()))
            }
            (None, None) => Ok(Self::Unix(sources::machine().data_dir.join("admin.sock"))),
        }
    }

    /// A node by its admin address.
    pub(super) fn tcp(address: &str) -> Result<Self, Failure> {
        let has_port = address.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
        });
        if has_port {
            Ok(Self::Tcp(address.to_owned()))
        } else {
            Err(Failure::Usage(format!("not HOST:PORT: {address:?}")))
        }
    }

    /// The host that the node was asked at.
    pub(super) fn host(&self) -> &str {
        match self {
            Self::Tcp(address) => address.rsplit_once(':').map_or("", |(host, _)| host),
            Self::Unix(_) => "127.0.0.1",
        }
    }

    /// The answer of `GET path`.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.answer(Method::GET, path, Bytes::new(), PATIENCE).await
    }

    /// The answer of `POST path`.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        patience: Duration,
    ) -> Result<T, Failure> {
        self.answer(Method::POST, path, Bytes::new(), patience).await
    }

    /// The answer of `POST path` with a body.
    pub(super) async fn post_body<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<T, Failure> {
        self.answer(Method::POST, path, body, patience).await
    }

    /// The answer of `GET path` as it is.
    pub(super) async fn text(&self, path: &str) -> Result<String, Failure> {
        let (code, body) = self.send_within(Method::GET, path, Bytes::new(), PATIENCE).await?;
        if code != StatusCode::OK {
            return Err(Failure::Failed(format!("{self} answered {code} to {path}")));
        }
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// Why the node is not ready, in its own words; nothing if it is.
    pub(super) async fn reasons(&self) -> Result<Vec<String>, Failure> {
        let (code, body) = self.send_within(Method::GET, "/readyz", Bytes::new(), PATIENCE).await?;
        if code != StatusCode::SERVICE_UNAVAILABLE {
            return Ok(Vec::new());
        }
        Ok(body
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(printable)
            .collect())
    }

    async fn answer<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<T, Failure> {
        let (code, body) = self.send_within(method, path, body, patience).await?;
        if code != StatusCode::OK {
            let refused = serde_json::from_slice::<Refusal>(&body);
            let why = refused.map_or_else(|_| format!("answered {code}"), |refusal| refusal.error);
            return Err(Failure::Failed(why));
        }
        serde_json::from_slice(&body).map_err(|error| {
            Failure::Failed(format!("the node at {self} answered what is not understood: {error}"))
        })
    }

    async fn send_within(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let late =
            || Failure::TimedOut(format!("the node at {self} did not answer within {patience:?}"));
        within(patience, self.send(method, path, body)).await.ok_or_else(late)?
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let unreachable =
            |error: io::Error| Failure::Unreachable(format!("no node answers at {self}: {error}"));
        match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address.as_str()).await.map_err(unreachable)?;
                self.exchange(stream, (method, path, body)).await
            }
            Self::Unix(socket) => {
                let stream = UnixStream::connect(socket).await.map_err(unreachable)?;
                self.exchange(stream, (method, path, body)).await
            }
        }
    }

    async fn exchange(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        (method, path, body): (Method, &str, Bytes),
    ) -> Result<(StatusCode, Bytes), Failure> {
        let lost = |error: hyper::Error| {
            Failure::Unreachable(if error.is_parse() {
                format!("{self} does not speak HTTP: it is no node's admin address")
            } else {
                format!("the connection to {self} was lost: {error}")
            })
        };
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        let _ends_with_the_sender = tasks::spawn("admin client", async {
            let _its_fault_shows_at_the_sender = connection.await;
        });
        let host = match self {
            Self::Tcp(address) => address,
            Self::Unix(_) => "localhost",
        };
        let request = Request::builder().method(method).uri(path).header("host", host);
        let request = request
            .body(Full::new(body))
            .map_err(|error| Failure::Usage(format!("not a request that can be made: {error}")))?;
        let response = sender.send_request(request).await.map_err(lost)?;
        let code = response.status();
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        let body = body.map_err(|error| {
            Failure::Unreachable(format!("the answer of {self} was cut off: {error}"))
        })?;
        Ok((code, body.to_bytes()))
    }
}

/// Text as a parameter of a query.
pub(super) fn query_escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let escape =
        |byte: u8| if plain(byte) { char::from(byte).into() } else { format!("%{byte:02X}") };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_escaped_byte_by_byte() {
        assert_eq!(query_escaped("a b&ä"), "a%20b%26%C3%A4");
    }

    #[test]
    fn an_address_needs_its_port() {
        assert!(Ask::tcp("localhost:9400").is_ok());
        assert_eq!(Ask::tcp("[::1]:9400").unwrap().host(), "[::1]");
        for wrong in ["localhost", ":1", "a:0", "a:b", ""] {
            assert!(Ask::tcp(wrong).is_err(), "{wrong}");
        }
    }
}
