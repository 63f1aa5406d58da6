//! Accepts connections, up to the limit, and hands them out.

use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;

use crate::clock::{sleep_until, within};
use crate::limits;
use crate::net::{DetachedTcp, TcpListener, TcpStream};
use crate::resp::errors;
use crate::server::clients::Registered;
use crate::server::connection::{Connection, Origin};
use crate::server::{Backend, Port, Server};
use crate::tasks::Stop;
use crate::types::Instant;

/// How long to wait when accepting fails: mostly for want of file descriptors.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// Within this time a runtime has asked the system what waits.
const ASKED: std::time::Duration = std::time::Duration::from_millis(2);

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entrance {
    /// Which clients come there.
    pub port: Port,
    /// Whether they speak TLS.
    pub tls: bool,
}

impl Entrance {
    /// Without TLS.
    pub const fn plain(port: Port) -> Self {
        Self { port, tls: false }
    }

    /// With TLS.
    pub const fn tls(port: Port) -> Self {
        Self { port, tls: true }
    }
}

/// A connection that was accepted and counted; to be served on any thread.
#[derive(Debug)]
pub struct Accepted {
    stream: DetachedTcp,
    registered: Registered,
    entrance: Entrance,
    /// How often this node had stood still when the connection had not yet been made.
    stops: u64,
}

impl Server {
    /// Refuses connections until `served` is done, and says why: a client that nobody serves must
    /// go to another node, not wait for this one.
    pub async fn turn_away(
        &self,
        (listener, entrance): (&TcpListener, Entrance),
        served: impl Future<Output = ()>,
    ) {
        tokio::pin!(served);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut served => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    self.metrics.rejected_early.increment(1);
                    refuse(stream, entrance, errors::LOADING).await;
                }
                Err(error) => self.rest_from(&error).await,
            }
        }
    }

    /// Accepts connections until it is told to stop and gives each to `give`; `wake` is
    /// [`Backend::wake`].
    pub async fn listen(
        self: Arc<Self>,
        listener: TcpListener,
        entrance: Entrance,
        mut stop: Stop,
        (wake, mut give): (impl Fn(Instant) -> u64, impl FnMut(Accepted)),
    ) {
        // Those that wait while the node stands still are older than its last stop.
        let mut stops = wake(self.clock.now());
        loop {
            let before = wake(self.clock.now());
            let accepted = tokio::select! {
                biased;
                () = stop.stopped() => return,
                accepted = listener.accept() => Some(accepted),
                () = ready(()) => None,
            };
            let accepted = if let Some(accepted) = accepted {
                accepted
            } else {
                stops = before;
                tokio::select! {
                    biased;
                    () = stop.stopped() => return,
                    accepted = listener.accept() => accepted,
                    () = self.stood_still.notified() => {
                        // What waits shows only after the runtime has asked the system.
                        sleep_until(&*self.clock, self.clock.now() + ASKED).await;
                        continue;
                    }
                }
            };
            match accepted {
                Ok((stream, from)) => {
                    if let Some(accepted) = self.take_in(stream, from, (entrance, stops)).await {
                        give(accepted);
                    }
                }
                Err(error) => self.rest_from(&error).await,
            }
        }
    }

    /// The node stood still: closes every connection of before. What is under way on them is answered
    /// first.
    pub fn close_old(&self) {
        tracing::warn!(clients = self.clients.count(), "clients of before a stop are closed");
        self.clients.close_all();
        self.stood_still.notify_waiters();
    }

    async fn rest_from(&self, error: &std::io::Error) {
        tracing::warn!(%error, "accepting a client failed");
        sleep_until(&*self.clock, self.clock.now() + PAUSE).await;
    }

    async fn take_in(
        &self,
        stream: TcpStream,
        from: SocketAddr,
        (entrance, stops): (Entrance, u64),
    ) -> Option<Accepted> {
        self.metrics.connections.increment(1);
        let to = stream.local_addr().ok()?;
        let now = self.clock.now();
        let Some(registered) =
            self.clients.register((from, to), entrance, now, self.live().config.max_clients)
        else {
            self.metrics.rejected_limit.increment(1);
            refuse(stream, entrance, errors::MAX_CLIENTS).await;
            return None;
        };
        let _without_it_only_slower = stream.set_nodelay(true);
        match stream.detach() {
            Ok(stream) => Some(Accepted { stream, registered, entrance, stops }),
            Err(error) => {
                tracing::debug!(%error, "a client was gone before it was served");
                None
            }
        }
    }

    /// Serves a connection on this thread until it ends, for whatever reason.
    pub async fn serve<B: Backend>(self: Arc<Self>, backend: Arc<B>, accepted: Accepted) {
        let Accepted { stream, registered, entrance, stops } = accepted;
        let stream = match stream.attach() {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "a client was gone before it was served");
                return;
            }
        };
        let gauge = match entrance {
            Entrance { tls: true, .. } => &self.metrics.clients_tls,
            Entrance { port: Port::Client, .. } => &self.metrics.clients_plain,
            Entrance { port: Port::Cluster, .. } => &self.metrics.clients_cluster,
        };
        gauge.increment(1.0);
        let client = Arc::clone(&registered.client);
        let origin = Origin { client, port: entrance.port, stops };
        let ended = if entrance.tls {
            // On the heap: a plain connection must not pay for what TLS keeps.
            Box::pin(self.serve_tls(&*backend, origin, stream)).await
        } else {
            Some(Connection::new(&self, &*backend, origin, stream).run().await)
        };
        gauge.decrement(1.0);
        tracing::trace!(client = registered.client.id(), ?ended, "client connection ended");
    }
}

/// Tells a client why it is not served and closes its connection; over TLS it could not read it.
async fn refuse(mut stream: TcpStream, entrance: Entrance, why: &str) {
    if entrance.tls {
        return;
    }
    let text = format!("-{why}\r\n");
    // A new connection's buffer takes the line at once; whoever resets it is not told.
    let _told = within(limits::REFUSAL_TIMEOUT, stream.write_all(text.as_bytes())).await;
}
