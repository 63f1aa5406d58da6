//! Accepting peers: connections are handed to threads before their handshake, in turn.
//!
//! ```text
//!  server endpoint ─► accept loop ─┬─► acceptor of thread 0 ─► handshake, hello ─► lane, bulk, …
//!                                  └─► acceptor of thread 1 ─► …
//! ```

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::{Connection, Incoming, RecvStream, SendStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::connections::{Direction, Registered};
use super::endpoint::{close, refusal};
use super::freshness::Freshness;
use super::stream::{self, ReadError};
use super::{Context, answer, bulk};
use crate::audit::{self, Seldom};
use crate::limits::{
    ACCEPT_QUEUE_MAX, HANDSHAKES_BEFORE_RETRY, HANDSHAKES_MAX, PEER_CONNECTIONS_MAX, REQUEST_STALE,
};
use crate::peers::{Caller, Serve};
use crate::wire::hello::{self, Hello, HelloAck, Purpose, Refusal};

/// How long a dialler may take from its first packet to the end of its hello.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the side that answered last waits for the other one to close.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// How long the one call of an address connection may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Where incoming connections go.
#[derive(Default)]
pub(super) struct Intake {
    threads: Mutex<Threads>,
    handshakes: AtomicUsize,
    refusals: Mutex<Seldom>,
}

#[derive(Default)]
struct Threads {
    queues: Vec<mpsc::Sender<Incoming>>,
    next: usize,
}

impl Intake {
    /// Adds a thread.
    pub(super) fn acceptor(self: &Arc<Self>, context: Arc<Context>) -> Acceptor {
        let (sender, queue) = mpsc::channel(ACCEPT_QUEUE_MAX);
        self.lock().queues.push(sender);
        Acceptor { queue, intake: Arc::clone(self), context }
    }

    /// Forgets every thread; their acceptors end.
    pub(super) fn close(&self) {
        self.lock().queues.clear();
    }

    /// Gives a connection to the next thread.
    ///
    /// A dialler that is ignored tries again by itself, soon; that is what happens before there is
    /// a thread, and when all are busy with handshakes.
    pub(super) fn hand_over(&self, incoming: Incoming, open: usize) {
        let handshakes = self.handshakes.load(Ordering::Relaxed);
        if open >= PEER_CONNECTIONS_MAX {
            incoming.refuse();
        } else if handshakes >= HANDSHAKES_MAX {
            incoming.ignore();
        } else if handshakes >= HANDSHAKES_BEFORE_RETRY && incoming.may_retry() {
            let _sent_or_dropped = incoming.retry();
        } else if let Some(thread) = self.next_thread()
            && let Err(error) = thread.try_send(incoming)
        {
            error.into_inner().ignore();
        }
    }

    /// Logs a refused peer, with those since the last one that were not logged.
    fn warn(&self, context: &Context, address: SocketAddr, reason: &str) {
        let now = context.clock.now();
        let may = self.refusals.lock().unwrap_or_else(PoisonError::into_inner).may(now);
        if let Some(others) = may {
            tracing::warn!(target: audit::TARGET, %address, reason, others, "peer was not accepted");
        }
    }

    fn next_thread(&self) -> Option<mpsc::Sender<Incoming>> {
        let mut threads = self.lock();
        threads.queues.retain(|queue| !queue.is_closed());
        let index = threads.next.checked_rem(threads.queues.len())?;
        threads.next = index + 1;
        threads.queues.get(index).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Threads> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes its share of the incoming connections on one thread.
pub struct Acceptor {
    queue: mpsc::Receiver<Incoming>,
    intake: Arc<Intake>,
    context: Arc<Context>,
}

impl Acceptor {
    /// Serves connections on the current runtime until the transport closes; what arrives on them
    /// is answered by `serve`, on this thread.
    pub async fn run(mut self, serve: Arc<dyn Serve>) {
        while let Some(incoming) = self.queue.recv().await {
            let handshake = Counted::new(&self.intake);
            let (context, serve) = (Arc::clone(&self.context), Arc::clone(&serve));
            let intake = Arc::clone(&self.intake);
            self.context.tasks.spawn("peer connection", async move {
                let address = incoming.remote_address();
                let arrived = timeout(HANDSHAKE_TIMEOUT, arrive(&context, incoming)).await;
                drop(handshake);
                match arrived {
                    Ok(Ok(arrived)) => {
                        context.metrics.handshakes_ok.increment(1);
                        serve_arrived(context, arrived, serve).await;
                    }
                    Ok(Err(reason)) => {
                        context.metrics.handshakes_refused.increment(1);
                        intake.warn(&context, address, &reason);
                    }
                    Err(_) => {
                        context.metrics.handshakes_timeout.increment(1);
                        tracing::debug!(%address, "peer did not finish its hello in time");
                    }
                }
            });
        }
    }
}

/// One handshake under way.
struct Counted(Arc<Intake>);

impl Counted {
    fn new(intake: &Arc<Intake>) -> Self {
        intake.handshakes.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(intake))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.handshakes.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A peer whose hello was accepted.
struct Arrived {
    registered: Registered,
    send: SendStream,
    recv: RecvStream,
    from: Caller,
    purpose: Purpose,
}

/// Shakes hands; the error says why not.
async fn arrive(context: &Arc<Context>, incoming: Incoming) -> Result<Arrived, String> {
    let connecting = incoming.accept().map_err(|error| error.to_string())?;
    let reason =
        |error: quinn::ConnectionError| refusal(&error).unwrap_or_else(|| error.to_string());
    let connection = connecting.await.map_err(reason)?;
    let (mut send, mut recv) = connection.accept_bi().await.map_err(reason)?;
    let judged = match stream::read_hello(&mut recv).await {
        Ok(bytes) => judge(context, &connection, &bytes),
        Err(ReadError::Connection(error)) => return Err(reason(error)),
        Err(_) => Err(Refusal::Malformed),
    };
    let (hello, protocol) = match judged {
        Ok(agreed) => agreed,
        Err(refusal) => {
            let text = refusal.to_string();
            connection.close(close::REFUSED, text.as_bytes());
            return Err(text);
        }
    };
    let from = Caller { node: hello.node, generation: hello.generation };
    let registered = context.connections.register(from.node, Direction::In, connection);
    let ack = HelloAck { protocol, node: context.own.node, generation: context.own.generation };
    stream::write(&mut send, hello::encode(&ack).into())
        .await
        .map_err(|error| error.to_string())?;
    Ok(Arrived { registered, send, recv, from, purpose: hello.purpose })
}

fn judge(
    context: &Context,
    connection: &Connection,
    bytes: &[u8],
) -> Result<(Hello, u16), Refusal> {
    let hello: Hello = hello::decode(bytes)?;
    let proved = context.proved_node(connection, hello.node).ok_or(Refusal::Malformed)?;
    let protocol = hello.judge(context.protocols, &context.cluster, proved)?;
    Ok((hello, protocol))
}

async fn serve_arrived(context: Arc<Context>, arrived: Arrived, serve: Arc<dyn Serve>) {
    let Arrived { registered, send, recv, from, purpose } = arrived;
    match purpose {
        Purpose::Lane => {
            let connection = registered.connection();
            answer::serve_lane(&context, connection, (send, recv), from, serve).await;
        }
        Purpose::Address => {
            let connection = registered.connection();
            // One request has nothing to be measured by.
            let judged_by = (&*context.clock, &Freshness::new(REQUEST_STALE));
            let answered = answer::serve_stream(send, recv, from, &*serve, judged_by);
            if timeout(CALL_TIMEOUT, answered).await.is_ok() {
                let _closed_or_late = timeout(LINGER, connection.closed()).await;
            }
        }
        Purpose::Bulk => {
            let (stream, pump) = bulk::pump(&context, registered, (send, recv), Direction::In);
            serve.serve_bulk(from, stream);
            pump.await;
        }
    }
}
