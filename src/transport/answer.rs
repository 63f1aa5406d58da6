//! The answering side of lanes.
//!
//! Requests are decoded in the read buffer and executed inline; the answers of one read gather in
//! one buffer and are written at once. What is answered later goes into the same buffer, by id,
//! when it is there. While answers cannot be written the lane is not read, and QUIC's windows hold
//! the caller back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use quinn::{Connection, RecvStream, SendStream};
use tokio::io::AsyncReadExt;
use tokio::sync::Notify;

use super::Context;
use super::endpoint::close;
use super::freshness::Freshness;
use super::stream::{self, ReadError};
use crate::clock::Clock;
use crate::limits::{
    LANE_PAYLOAD_MAX, LANE_QUEUED_MAX, LANE_READ_BUFFER, REQUEST_STALE, SERVED_LATER_MAX,
};
use crate::peers::{Caller, Serve, Served};
use crate::tasks;
use crate::wire::frame::{FrameHeader, FrameKind, HEADER_LEN, encode_frame};

/// Room that must be left in the read buffer, so that few reads split a frame.
const READ_ROOM: usize = 16 * 1024;

/// Requests between two looks at the clock within one read.
const CLOCK_EVERY: usize = 16;

/// Serves a lane until its connection ends.
pub(super) async fn serve_lane(
    context: &Arc<Context>,
    connection: &Connection,
    (send, recv): (SendStream, RecvStream),
    from: Caller,
    serve: Arc<dyn Serve>,
) {
    let lane = Answering::new(context, connection, from, serve);
    let error = tokio::select! {
        biased;
        error = lane.read_requests(recv) => error,
        error = lane.write_answers(send) => error,
        error = lane.take_large_requests() => error,
    };
    if let ReadError::Frame(broken) = &error {
        let reason = broken.to_string();
        tracing::warn!(node = %from.node, reason, "peer broke the protocol");
        connection.close(close::PROTOCOL, reason.as_bytes());
    } else if matches!(error, ReadError::Stale) {
        // What follows on it cannot be measured either; the next connection begins anew.
        tracing::info!(node = %from.node, "peer's lane is closed: its requests came ten seconds late");
        connection.close(close::DONE, b"stale");
    } else {
        tracing::debug!(node = %from.node, %error, "peer's lane ended");
    }
}

/// Answers the one request of a stream of its own, on that stream.
pub(super) async fn serve_stream(
    mut send: SendStream,
    mut recv: RecvStream,
    from: Caller,
    serve: &dyn Serve,
    (clock, freshness): (&dyn Clock, &Freshness),
) -> Result<(), ReadError> {
    let header = stream::read_header(&mut recv).await?;
    let is_fresh = freshness.is_fresh(clock.now(), header.sent);
    let request = stream::read_payload(&mut recv, header.payload_len).await?;
    serve.wake(clock.now());
    if !is_fresh {
        return Err(ReadError::Stale);
    }
    let answer = match serve.serve(from, &request, header.budget) {
        Served::Now(answer) => answer,
        Served::Later(answer) => answer.await,
    };
    drop(request);
    let header = FrameHeader::answer(header.id, answer.len());
    stream::write_frame(&mut send, header, answer).await
}

/// A lane as its answering side sees it.
struct Answering {
    context: Arc<Context>,
    connection: Connection,
    from: Caller,
    serve: Arc<dyn Serve>,
    outbox: Arc<Outbox>,
    freshness: Arc<Freshness>,
}

/// Answers on their way out; outlives the lane while later ones are under way.
#[derive(Default)]
struct Outbox {
    answers: Mutex<BytesMut>,
    /// There are answers to be written.
    filled: Notify,
    /// Answers were written, or a later one is there.
    eased: Notify,
    /// Requests that are answered later, and large answers under way.
    later: AtomicUsize,
}

impl Answering {
    fn new(
        context: &Arc<Context>,
        connection: &Connection,
        from: Caller,
        serve: Arc<dyn Serve>,
    ) -> Self {
        Self {
            context: Arc::clone(context),
            connection: connection.clone(),
            from,
            serve,
            outbox: Arc::default(),
            freshness: Freshness::new(REQUEST_STALE).into(),
        }
    }

    async fn read_requests(&self, mut recv: RecvStream) -> ReadError {
        let mut buffer = BytesMut::with_capacity(LANE_READ_BUFFER);
        let mut answers = BytesMut::new();
        loop {
            if buffer.capacity() - buffer.len() < READ_ROOM {
                buffer.reserve(LANE_READ_BUFFER);
            }
            match recv.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return ReadError::CutOff,
                Ok(_) => {}
            }
            if let Err(error) = self.serve_all(&mut buffer, &mut answers) {
                return error;
            }
            self.outbox.put(&mut answers);
            self.outbox.wait_for_room().await;
        }
    }

    /// Serves every whole request in `buffer`.
    fn serve_all(&self, buffer: &mut BytesMut, answers: &mut BytesMut) -> Result<(), ReadError> {
        let received = self.context.clock.now();
        let mut now = received;
        self.serve.wake(received);
        for count in 1usize.. {
            let Some(header) = FrameHeader::decode(buffer, LANE_PAYLOAD_MAX)? else { break };
            if buffer.len() < header.frame_len() {
                break;
            }
            if count % CLOCK_EVERY == 0 {
                now = self.context.clock.now();
            }
            let budget = header.budget.saturating_sub(now.saturating_since(received));
            let payload = buffer.get(HEADER_LEN..header.frame_len());
            if let (Some(payload), FrameKind::Request) = (payload, header.kind)
                && !budget.is_zero()
            {
                let Some(age) = self.freshness.age(now, header.sent) else {
                    self.context.metrics.stale.increment(1);
                    return Err(ReadError::Stale);
                };
                // Who sent it has given it up, and may have been answered elsewhere since.
                if age < header.budget {
                    self.serve_one(header.id, payload, budget, answers);
                } else {
                    self.context.metrics.stale.increment(1);
                }
            }
            buffer.advance(header.frame_len());
        }
        Ok(())
    }

    fn serve_one(&self, id: u64, payload: &[u8], budget: Duration, answers: &mut BytesMut) {
        match self.serve.serve(self.from, payload, budget) {
            Served::Now(answer) if answer.len() <= LANE_PAYLOAD_MAX => {
                encode_frame(FrameHeader::answer(id, answer.len()), &answer, answers);
            }
            Served::Now(answer) => {
                let under_way = UnderWay::new(&self.outbox);
                let connection = self.connection.clone();
                tasks::spawn("large answer", async move {
                    send_large(&connection, id, answer).await;
                    drop(under_way);
                });
            }
            Served::Later(answer) => {
                let under_way = UnderWay::new(&self.outbox);
                let connection = self.connection.clone();
                tasks::spawn("later answer", async move {
                    let answer = answer.await;
                    if answer.len() <= LANE_PAYLOAD_MAX {
                        let header = FrameHeader::answer(id, answer.len());
                        under_way.0.put_one(header, &answer);
                    } else {
                        send_large(&connection, id, answer).await;
                    }
                    drop(under_way);
                });
            }
        }
    }

    async fn write_answers(&self, mut send: SendStream) -> ReadError {
        let mut out = BytesMut::new();
        loop {
            self.outbox.take(&mut out);
            if out.is_empty() {
                self.outbox.filled.notified().await;
                // Lets later answers that are ready now join the batch.
                tokio::task::yield_now().await;
                continue;
            }
            if let Err(error) = send.write_all(&out).await {
                return error.into();
            }
            out.clear();
            self.outbox.eased.notify_one();
        }
    }

    /// Serves requests that come on streams of their own; QUIC bounds how many at a time.
    async fn take_large_requests(&self) -> ReadError {
        loop {
            let (send, recv) = match self.connection.accept_bi().await {
                Ok(streams) => streams,
                Err(error) => return error.into(),
            };
            let (from, serve) = (self.from, Arc::clone(&self.serve));
            let (clock, freshness) = (Arc::clone(&self.context.clock), Arc::clone(&self.freshness));
            tasks::spawn("large request", async move {
                let judged_by = (&*clock, &*freshness);
                if let Err(error) = serve_stream(send, recv, from, &*serve, judged_by).await {
                    tracing::debug!(node = %from.node, %error, "large request was not answered");
                }
            });
        }
    }
}

/// Sends an answer on a stream of its own. If that fails the connection is gone, or its caller
/// gives up in time.
async fn send_large(connection: &Connection, id: u64, answer: Bytes) {
    if let Ok(mut send) = connection.open_uni().await {
        let header = FrameHeader::answer(id, answer.len());
        if let Err(error) = stream::write_frame(&mut send, header, answer).await {
            tracing::debug!(%error, "large answer was not sent");
        }
    }
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, BytesMut> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds answers, which are empty after.
    fn put(&self, answers: &mut BytesMut) {
        if answers.is_empty() {
            return;
        }
        {
            let mut waiting = self.lock();
            if waiting.is_empty() {
                std::mem::swap(&mut *waiting, answers);
            } else {
                waiting.extend_from_slice(answers);
            }
        }
        answers.clear();
        self.filled.notify_one();
    }

    fn put_one(&self, header: FrameHeader, answer: &[u8]) {
        encode_frame(header, answer, &mut self.lock());
        self.filled.notify_one();
    }

    /// Moves what waits to `out`, which is empty.
    fn take(&self, out: &mut BytesMut) {
        std::mem::swap(&mut *self.lock(), out);
    }

    /// Waits until there is room for more answers, now and later.
    async fn wait_for_room(&self) {
        while self.lock().len() > LANE_QUEUED_MAX
            || self.later.load(Ordering::Relaxed) >= SERVED_LATER_MAX
        {
            self.eased.notified().await;
        }
    }
}

/// A request that is answered later, or an answer that is sent beside the lane.
struct UnderWay(Arc<Outbox>);

impl UnderWay {
    fn new(outbox: &Arc<Outbox>) -> Self {
        outbox.later.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(outbox))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let before = self.0.later.fetch_sub(1, Ordering::Relaxed);
        if before >= SERVED_LATER_MAX {
            self.0.eased.notify_one();
        }
    }
}
