//! Listeners of admin HTTP: over TCP to look, on a unix socket to act.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use crate::admin::{Source, routes};
use crate::config::AdminConfig;
use crate::limits;
use crate::tasks::{self, Stop, TaskGroup};

/// Why admin cannot be served. Nothing is left bound.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AdminError {
    /// The port is taken, or the address is not this machine's.
    #[error("cannot listen on {address} (admin HTTP): {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The socket's path has no room in the system's address.
    #[error("the path of the admin socket is longer than {max} bytes: {path}", max = limits::UNIX_PATH_MAX)]
    PathTooLong {
        /// The path.
        path: String,
    },
    /// The socket cannot be made, or something else stands in its place.
    #[error("cannot listen on {path} (admin socket): {source}")]
    Socket {
        /// The path.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Bound listeners that are not served yet.
#[derive(Debug)]
pub struct Bound {
    tcp: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    socket: UnixListener,
    path: PathBuf,
}

/// How long a connection may take to end once the node stops.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// How long accepting waits after the system refused, as when it has no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Bound {
    /// Binds every address and the socket.
    pub async fn bind(config: &AdminConfig) -> Result<Self, AdminError> {
        let (mut tcp, mut addresses) = (Vec::new(), Vec::new());
        for address in config.listen.iter().copied() {
            let fault = |source| AdminError::Listen { address, source };
            let listener = TcpListener::bind(address).await.map_err(fault)?;
            addresses.push(listener.local_addr().map_err(fault)?);
            tcp.push(listener);
        }
        let socket = bind_socket(&config.socket)?;
        Ok(Self { tcp, addresses, socket, path: config.socket.clone() })
    }

    /// Where TCP is served, with real ports.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves `source` until the group stops; then the socket's file is removed.
    pub fn serve(self, source: Arc<dyn Source>, group: &TaskGroup) {
        for listener in self.tcp {
            let router = routes::router(Arc::clone(&source), false);
            let stop = group.stop_signal();
            group.spawn("admin http", accept_loop(listener, router, stop));
        }
        let (listener, path) = (self.socket, self.path);
        let router = routes::router(source, true);
        let stop = group.stop_signal();
        group.spawn("admin socket", async move {
            accept_loop(listener, router, stop).await;
            if let Err(error) = fs::remove_file(&path) {
                debug!(%error, path = %path.display(), "admin socket was not removed");
            }
        });
    }
}

/// Binds beside the path and moves the socket there, so that what a dead process left is replaced
/// and the socket never stands at its place with other rights than its owner's.
fn bind_socket(path: &Path) -> Result<UnixListener, AdminError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let text = || path.display().to_string();
    if beside.as_os_str().as_bytes().len() > limits::UNIX_PATH_MAX {
        return Err(AdminError::PathTooLong { path: text() });
    }
    let bind = || {
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "not a socket"));
            }
            Ok(_) | Err(_) => {}
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"));
        }
        let _nothing_there_is_as_good = fs::remove_file(&beside);
        let listener = UnixListener::bind(&beside)?;
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o600))?;
        fs::rename(&beside, path)?;
        Ok(listener)
    };
    bind().map_err(|source| AdminError::Socket { path: text(), source })
}

/// What both kinds of listener have in common.
trait Listener: Send + Sync {
    type Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static;

    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

/// Accepts until stopped; at most [`limits::ADMIN_CONNECTIONS_MAX`] connections at once.
async fn accept_loop(listener: impl Listener, router: Router, mut stop: Stop) {
    let places = Arc::new(Semaphore::new(limits::ADMIN_CONNECTIONS_MAX));
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.next().await)
        };
        let (place, accepted) = tokio::select! {
            biased;
            () = stop.stopped() => return,
            next = next => next,
        };
        match accepted {
            Ok(stream) => {
                let connection = serve_connection(stream, router.clone(), stop.clone());
                let _it_ends_by_itself = tasks::spawn("admin connection", async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                warn!(%error, "admin connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection<S>(stream: S, router: Router, mut stop: Stop)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::ADMIN_HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        biased;
        () = stop.stopped() => None,
        ended = connection.as_mut() => Some(ended),
    };
    let ended = if let Some(ended) = ended {
        ended
    } else {
        connection.as_mut().graceful_shutdown();
        crate::clock::within(STOP_GRACE, connection).await.unwrap_or(Ok(()))
    };
    if let Err(error) = ended {
        debug!(%error, "admin connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::admin::routes::tests::FakeNode;

    fn config(socket: PathBuf) -> AdminConfig {
        AdminConfig { listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))], socket }
    }

    async fn first_line(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let reading = stream.read_to_end(&mut answer);
        crate::clock::within(Duration::from_secs(10), reading).await.unwrap().unwrap();
        String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
    }

    const LEAVE: &str = "POST /v1/leave HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

    #[tokio::test]
    async fn tcp_looks_and_the_socket_acts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let group = TaskGroup::new();
        let bound = Bound::bind(&config(path.clone())).await.unwrap();
        let address = bound.addresses()[0];
        bound.serve(Arc::new(FakeNode::default()), &group);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let tcp = TcpStream::connect(address).await.unwrap();
        assert_eq!(first_line(tcp, LEAVE).await, "HTTP/1.1 403 Forbidden");
        let unix = UnixStream::connect(&path).await.unwrap();
        assert_eq!(first_line(unix, LEAVE).await, "HTTP/1.1 200 OK");
        let garbage = TcpStream::connect(address).await.unwrap();
        assert_eq!(first_line(garbage, "*1\r\n\0\r\n\r\n").await, "HTTP/1.1 400 Bad Request");
        group.stop_and_join(Duration::from_secs(10)).await;
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = Bound::bind(&config(path.clone())).await.unwrap();
        let second = Bound::bind(&config(path.clone())).await.unwrap_err().to_string();
        assert!(second.contains("another process listens there"), "{second}");
        drop(first);
        let plain = folder.path().join("plain");
        fs::write(&plain, b"").unwrap();
        let error = Bound::bind(&config(plain)).await.unwrap_err().to_string();
        assert!(error.contains("not a socket"), "{error}");
    }

    #[tokio::test]
    async fn a_taken_port_and_a_long_path_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let path = folder.path().join("a.sock");
        let error = Bound::bind(&AdminConfig { listen: vec![address], socket: path }).await;
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on {address} (admin HTTP)")), "{error}");
        let long = config(folder.path().join("x".repeat(100)));
        let error = Bound::bind(&long).await.unwrap_err();
        assert!(matches!(error, AdminError::PathTooLong { .. }), "{error}");
    }
}
