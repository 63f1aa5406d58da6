//! The calling side of a lane: one connection to one peer, made on first use, with one stream of
//! framed requests and answers.
//!
//! ```text
//!  call() ─► waiting ─┬─► write ─► stream ─► peer
//!  (any task)         └─► large call: a stream of its own
//!  callers ◄─ in flight ◄─ read ◄─ stream ◄─ peer      (or ◄─ a stream of its own, if large)
//!                 ▲
//!               sweep: one timer for all deadlines
//! ```
//!
//! All of it runs in one task per lane, which lives while the lane is dialled, up, or resting
//! after a failure. A call waits as bytes until it is written, so that what is left of its budget
//! is written with it, and a call whose budget ends before is *certainly* not executed.

mod large;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::{Connection, RecvStream, SendStream};
use tokio::io::AsyncReadExt;
use tokio::sync::{Notify, oneshot};

use super::Context;
use super::endpoint::{DIAL_TIMEOUT, Dialer, Target, close};
use super::freshness::stamp;
use super::in_flight::{InFlight, Waiter};
use super::stream::ReadError;
use crate::clock::sleep_until;
use crate::limits::{
    CALL_PAYLOAD_MAX, LANE_FLUSH_MAX, LANE_IN_FLIGHT_MAX, LANE_PAYLOAD_MAX, LANE_QUEUED_MAX,
    LANE_READ_BUFFER, LARGE_CALLS_MAX,
};
use crate::peers::{Call, CallError};
use crate::types::{Instant, NodeId};
use crate::wire::frame::{FrameHeader, FrameKind, HEADER_LEN, encode_frame};
use crate::wire::hello::Purpose;

/// A lane without a call for this long is closed.
const IDLE: Duration = Duration::from_mins(1);

/// The first rest after a failed dial; doubled with each failure in a row.
const REST_MIN: Duration = Duration::from_millis(50);

/// The longest rest after a failed dial.
const REST_MAX: Duration = Duration::from_secs(2);

/// The shortest span between two sweeps for calls whose budget has ended.
const SWEEP_MIN: Duration = Duration::from_millis(1);

/// How long the sweep sleeps when no call waits; a call wakes it.
const SWEEP_NEVER: Duration = Duration::from_hours(1);

/// Room that must be left in the read buffer, so that few reads split a frame.
const READ_ROOM: usize = 16 * 1024;

/// A lane to one peer. Shared by its callers and its task.
pub(super) struct Lane {
    node: NodeId,
    context: Arc<Context>,
    dialer: Arc<Dialer>,
    state: Mutex<State>,
    /// A call waits to be written.
    work: Notify,
    /// A call ends before the sweep would look.
    sooner: Notify,
}

struct State {
    phase: Phase,
    waiting: VecDeque<Waiting>,
    /// Payload bytes that wait, but for those of large calls.
    waiting_bytes: usize,
    in_flight: InFlight,
    /// Large calls that wait or are under way.
    large: usize,
    /// Large answers that are coming.
    arriving: usize,
    /// When the sweep looks next.
    armed: Option<Instant>,
    last_call: Instant,
    /// Dials that failed in a row.
    failures: u32,
}

enum Phase {
    /// No task.
    Idle,
    Dialling,
    Up,
    /// No dial before `until`; calls that cannot wait so long end with `error` at once.
    Resting {
        until: Instant,
        error: CallError,
    },
}

struct Waiting {
    payload: Bytes,
    deadline: Instant,
    waiter: Waiter,
}

/// What a lane holds, for figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) in_flight: usize,
    pub(super) queued_bytes: usize,
}

impl Lane {
    pub(super) fn new(node: NodeId, context: Arc<Context>, dialer: Arc<Dialer>) -> Self {
        let state = State {
            phase: Phase::Idle,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            in_flight: InFlight::default(),
            large: 0,
            arriving: 0,
            armed: None,
            last_call: context.clock.now(),
            failures: 0,
        };
        let state = Mutex::new(state);
        Self { node, context, dialer, state, work: Notify::new(), sooner: Notify::new() }
    }

    /// Starts a call: it is queued when this returns, or ready with why it is not.
    pub(super) fn call(self: &Arc<Self>, payload: Bytes, budget: Duration) -> Call {
        if payload.len() > CALL_PAYLOAD_MAX {
            return Call::ready(Err(CallError::TooLarge));
        }
        let (waiter, receiver) = oneshot::channel();
        let now = self.context.clock.now();
        let waiting = Waiting { payload, deadline: now + budget, waiter };
        match self.enqueue(waiting, now) {
            Ok(()) => Call::new(receiver),
            Err(error) => Call::ready(Err(error)),
        }
    }

    fn enqueue(self: &Arc<Self>, call: Waiting, now: Instant) -> Result<(), CallError> {
        let mut state = self.lock();
        if let Err(busy) = state.admit(&call) {
            self.context.metrics.busy.increment(1);
            return Err(busy);
        }
        let start = match &state.phase {
            Phase::Resting { until, error } if *until >= call.deadline => {
                return Err(error.clone());
            }
            Phase::Up | Phase::Dialling | Phase::Resting { .. } => false,
            Phase::Idle => {
                if self.context.closed.is_open() {
                    return Err(stopping());
                }
                if self.context.directory.locate(self.node).is_none() {
                    return Err(unknown());
                }
                state.phase = Phase::Dialling;
                true
            }
        };
        let sooner = state.armed.is_none_or(|armed| call.deadline < armed);
        if sooner {
            state.armed = Some(call.deadline);
        }
        state.last_call = now;
        let first = state.waiting.is_empty();
        state.push(call);
        drop(state);
        if start {
            self.context.tasks.spawn("peer lane", Arc::clone(self).run());
        } else {
            if first {
                self.work.notify_one();
            }
            if sooner {
                self.sooner.notify_one();
            }
        }
        Ok(())
    }

    /// Ends every call at once: the peer is dead. The connection is closed by its list.
    pub(super) fn abandon(&self) {
        let (waiting, in_flight) = self.lock().take_all();
        end_all(waiting, in_flight, &CallError::Unreachable("peer is dead".to_owned()));
    }

    pub(super) fn load(&self) -> Load {
        let state = self.lock();
        Load { in_flight: state.pending(), queued_bytes: state.waiting_bytes }
    }

    /// Whether nothing is lost when this lane is forgotten.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.lock().phase, Phase::Idle)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lane's task.
    async fn run(self: Arc<Self>) {
        let mut ended = Aborted { lane: &self, armed: true };
        tokio::select! {
            biased;
            () = self.context.closed.opened() => {}
            () = self.sweep() => {}
            () = self.connect() => ended.armed = false,
        }
    }

    /// Dials and works until there is nothing more to do; the phase is idle then.
    async fn connect(self: &Arc<Self>) {
        loop {
            let first = self.context.connections.next();
            let dialled = match self.context.directory.locate(self.node) {
                Some(address) => {
                    let target = Target::Node(self.node);
                    self.dialer.dial(address, target, Purpose::Lane, DIAL_TIMEOUT).await
                }
                None => Err(unknown()),
            };
            match dialled {
                Ok(dialled) => {
                    self.came_up();
                    let connection = dialled.connection().clone();
                    self.work(&connection, dialled.send, dialled.recv).await;
                    connection.close(close::DONE, b"");
                    drop(dialled.registered);
                }
                Err(error) => self.rest(error, first).await,
            }
            if self.goes_idle() {
                return;
            }
        }
    }

    fn came_up(&self) {
        let mut state = self.lock();
        state.phase = Phase::Up;
        state.failures = 0;
        tracing::debug!(node = %self.node, "lane came up");
    }

    /// Fails what waits, and waits before the next dial, or until the peer has dialled this node by
    /// a connection of number `first` or later.
    async fn rest(&self, error: CallError, first: u64) {
        let now = self.context.clock.now();
        let (waiting, until) = {
            let mut state = self.lock();
            let doubled = REST_MIN.saturating_mul(1 << state.failures.min(6)).min(REST_MAX);
            state.failures = state.failures.saturating_add(1);
            let half = doubled / 2;
            let jitter = self.context.rng.below(u64::try_from(half.as_micros()).unwrap_or(0));
            let until = now + half + Duration::from_micros(jitter);
            state.phase = Phase::Resting { until, error: error.clone() };
            (state.take_waiting(), until)
        };
        tracing::debug!(node = %self.node, %error, "lane could not be dialled");
        for call in waiting {
            end(call.waiter, error.clone());
        }
        tokio::select! {
            biased;
            // The way to it may be open again, and who is asked whether it is there must try.
            () = self.context.connections.arrival(self.node, first) => self.lock().failures = 0,
            () = sleep_until(&*self.context.clock, until) => {}
        }
    }

    /// Whether nothing waits, so that the task ends; else the lane is dialled again. What was
    /// written before is lost.
    fn goes_idle(&self) -> bool {
        let (lost, idle) = {
            let mut state = self.lock();
            let idle = state.waiting.is_empty();
            state.phase = if idle { Phase::Idle } else { Phase::Dialling };
            (state.in_flight.drain(), idle)
        };
        for waiter in lost {
            end(waiter, CallError::Lost);
        }
        idle
    }

    /// Carries calls and answers until the connection is lost or idle for too long.
    async fn work(self: &Arc<Self>, connection: &Connection, send: SendStream, recv: RecvStream) {
        let error = tokio::select! {
            biased;
            error = self.read_answers(recv) => error,
            error = self.write_calls(connection, send) => error,
            error = self.take_large_answers(connection) => error,
            () = self.quiet() => return,
        };
        tracing::debug!(node = %self.node, %error, "lane was lost");
    }

    async fn read_answers(&self, mut recv: RecvStream) -> ReadError {
        let mut buffer = BytesMut::with_capacity(LANE_READ_BUFFER);
        let mut answers: Vec<(u64, Bytes)> = Vec::new();
        loop {
            if buffer.capacity() - buffer.len() < READ_ROOM {
                buffer.reserve(LANE_READ_BUFFER);
            }
            match recv.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return ReadError::CutOff,
                Ok(_) => {}
            }
            loop {
                match FrameHeader::decode(&buffer, LANE_PAYLOAD_MAX) {
                    Err(error) => return error.into(),
                    Ok(Some(header)) if header.frame_len() <= buffer.len() => {
                        let mut frame = buffer.split_to(header.frame_len());
                        if header.kind == FrameKind::Answer {
                            answers.push((header.id, frame.split_off(HEADER_LEN).freeze()));
                        }
                    }
                    Ok(_) => break,
                }
            }
            self.complete(&mut answers);
        }
    }

    fn complete(&self, answers: &mut Vec<(u64, Bytes)>) {
        let mut found: Vec<(Waiter, Bytes)> = Vec::with_capacity(answers.len());
        {
            let mut state = self.lock();
            for (id, answer) in answers.drain(..) {
                found.extend(state.in_flight.remove(id).map(|waiter| (waiter, answer)));
            }
        }
        for (waiter, answer) in found {
            let _caller_may_have_gone = waiter.send(Ok(answer));
        }
    }

    async fn write_calls(
        self: &Arc<Self>,
        connection: &Connection,
        mut send: SendStream,
    ) -> ReadError {
        let mut out = BytesMut::new();
        loop {
            if !self.encode_waiting(connection, &mut out) {
                self.work.notified().await;
                // Lets the tasks that were woken with this one add their calls to the batch.
                tokio::task::yield_now().await;
            }
            if !out.is_empty() {
                if let Err(error) = send.write_all(&out).await {
                    return error.into();
                }
                out.clear();
            }
        }
    }

    /// Moves waiting calls to `out`, up to what is written at a time; whether there were any.
    fn encode_waiting(self: &Arc<Self>, connection: &Connection, out: &mut BytesMut) -> bool {
        let now = self.context.clock.now();
        let mut large = Vec::new();
        let mut late = Vec::new();
        {
            let mut state = self.lock();
            while out.len() < LANE_FLUSH_MAX
                && let Some(call) = state.pop()
            {
                let budget = call.deadline.saturating_since(now);
                if budget.is_zero() {
                    late.push(call);
                } else if call.is_large() {
                    large.push(call);
                } else {
                    let id = state.in_flight.insert(call.deadline, call.waiter);
                    let header = FrameHeader::request(id, budget, stamp(now), call.payload.len());
                    encode_frame(header, &call.payload, out);
                }
            }
            state.large -= late.iter().filter(|call| call.is_large()).count();
        }
        let any = !(out.is_empty() && large.is_empty() && late.is_empty());
        for call in large {
            let (lane, connection) = (Arc::clone(self), connection.clone());
            self.context.tasks.spawn("large call", lane.large_call(connection, call));
        }
        self.expired(late.into_iter().map(|call| call.waiter), &unsent());
        any
    }

    /// Ends calls at their deadline, for ever.
    async fn sweep(&self) {
        loop {
            let now = self.context.clock.now();
            let mut late = Vec::new();
            let (unsent_calls, next) = {
                let mut state = self.lock();
                let unsent_calls = state.take_expired(now);
                let next = state.in_flight.expire(now, &mut late);
                let next = state.waiting.iter().map(|call| call.deadline).chain(next).min();
                state.armed = next;
                (unsent_calls, next)
            };
            self.expired(unsent_calls.into_iter().map(|call| call.waiter), &unsent());
            self.expired(late, &CallError::TimedOut);
            let wake = next.map_or(now + SWEEP_NEVER, |next| next.max(now + SWEEP_MIN));
            tokio::select! {
                biased;
                () = self.sooner.notified() => {}
                () = sleep_until(&*self.context.clock, wake) => {}
            }
        }
    }

    fn expired(&self, waiters: impl IntoIterator<Item = Waiter>, error: &CallError) {
        for waiter in waiters {
            self.context.metrics.timeouts.increment(1);
            end(waiter, error.clone());
        }
    }

    /// Returns once there was no call for a while.
    async fn quiet(&self) {
        loop {
            let until = {
                let state = self.lock();
                if state.pending() > 0 {
                    self.context.clock.now() + IDLE
                } else {
                    state.last_call + IDLE
                }
            };
            if until <= self.context.clock.now() {
                return;
            }
            sleep_until(&*self.context.clock, until).await;
        }
    }
}

impl State {
    /// Whether the lane has room for a call.
    fn admit(&self, call: &Waiting) -> Result<(), CallError> {
        let room = if call.is_large() {
            self.large < LARGE_CALLS_MAX
        } else {
            self.waiting_bytes + call.payload.len() <= LANE_QUEUED_MAX
        };
        if room && self.pending() < LANE_IN_FLIGHT_MAX { Ok(()) } else { Err(CallError::Busy) }
    }

    /// Calls that wait for anything. A large one that waits to be sent counts twice: it is rare.
    fn pending(&self) -> usize {
        self.waiting.len() + self.in_flight.len() + self.large + self.arriving
    }

    fn push(&mut self, call: Waiting) {
        if call.is_large() {
            self.large += 1;
        } else {
            self.waiting_bytes += call.payload.len();
        }
        self.waiting.push_back(call);
    }

    /// The next call to be written. A large one still counts as such.
    fn pop(&mut self) -> Option<Waiting> {
        let call = self.waiting.pop_front()?;
        if !call.is_large() {
            self.waiting_bytes -= call.payload.len();
        }
        Some(call)
    }

    /// Takes every call that was not written.
    fn take_waiting(&mut self) -> VecDeque<Waiting> {
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        self.large -= waiting.iter().filter(|call| call.is_large()).count();
        waiting
    }

    fn take_all(&mut self) -> (VecDeque<Waiting>, Vec<Waiter>) {
        (self.take_waiting(), self.in_flight.drain())
    }

    /// Takes the calls that were not written by their deadline.
    fn take_expired(&mut self, now: Instant) -> Vec<Waiting> {
        if self.waiting.iter().all(|call| call.deadline > now) {
            return Vec::new();
        }
        let (late, rest): (Vec<_>, Vec<_>) =
            self.take_waiting().into_iter().partition(|call| call.deadline <= now);
        for call in rest {
            self.push(call);
        }
        late
    }
}

impl Waiting {
    const fn is_large(&self) -> bool {
        self.payload.len() > LANE_PAYLOAD_MAX
    }
}

/// Ends what a lane's task leaves behind when it is aborted or the node stops.
struct Aborted<'a> {
    lane: &'a Lane,
    armed: bool,
}

impl Drop for Aborted<'_> {
    fn drop(&mut self) {
        if self.armed {
            let (waiting, in_flight) = {
                let mut state = self.lane.lock();
                state.phase = Phase::Idle;
                state.take_all()
            };
            end_all(waiting, in_flight, &stopping());
        }
    }
}

fn end(waiter: Waiter, error: CallError) {
    let _caller_may_have_gone = waiter.send(Err(error));
}

fn end_all(waiting: VecDeque<Waiting>, in_flight: Vec<Waiter>, unsent: &CallError) {
    for call in waiting {
        end(call.waiter, unsent.clone());
    }
    for waiter in in_flight {
        end(waiter, CallError::Lost);
    }
}

fn unknown() -> CallError {
    CallError::Unreachable("address is not known".to_owned())
}

fn stopping() -> CallError {
    CallError::Unreachable("node stops".to_owned())
}

fn unsent() -> CallError {
    CallError::Unreachable("not sent within the budget".to_owned())
}
