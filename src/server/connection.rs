//! One connection: read, run every whole request, write, and again.
//!
//! A batch is what one read brought (within bounds). Its requests are read ahead in groups, so that
//! the memory which a group will need is fetched together, and are started in their order; a
//! reply that is under way holds up none behind it, but for two cases in which order could be seen:
//! a large write that travels beside the lane is waited for before the next command on its slot,
//! and commands over the whole keyspace wait for all before them and are waited for. Then all
//! replies leave in one write.

use std::mem;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::clock::{sleep_until, within};
use crate::command::{Row, Runs, parse};
use crate::limits;
use crate::resp::{
    Args, Encoder, Parsed, ProtocolError, Request, RequestLimits, RequestParser, errors,
};
use crate::server::clients::Client;
use crate::server::local::{self, After};
use crate::server::permission::{admit, renew};
use crate::server::replies::Replies;
use crate::server::session::{Answers, Session};
use crate::server::stats::{BatchCounts, Route};
use crate::server::{Backend, CommandCall, Port, Server, Started, about};
use crate::types::{Slot, WallMillis};

/// Why a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The client closed it, or it broke.
    ByClient,
    /// `QUIT`, or what Redis takes for an attack.
    Quit,
    /// `CLIENT KILL`, or the node is stopping.
    Told,
    /// Nothing came for `client.idle_timeout`.
    Idle,
    /// The bytes were no requests.
    Protocol,
    /// Replies beyond `client.output_buffer_limit`.
    Output,
    /// The node stood still since the connection was made.
    StoodStill,
}

/// What follows a batch.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// All requests that were there have run.
    Read,
    /// There are more.
    Run,
    /// The connection ends once the replies are written.
    End(Ended),
}

/// A request that was read ahead.
#[derive(Debug)]
struct Ahead {
    request: Request,
    /// Where it lies in the input.
    range: Range<usize>,
    /// What it asks for, if that is a command.
    row: Option<&'static Row>,
}

/// Why a group of requests ends.
#[derive(Clone, Copy, Debug)]
enum Stop {
    /// It has as many as a group may have.
    Full,
    /// The next one is not whole before the input has this many bytes.
    Incomplete(usize),
    /// What follows is no request.
    Broken(ProtocolError),
}

/// How far a group of requests has run.
#[derive(Debug, PartialEq, Eq)]
enum Ran {
    /// To its end.
    All,
    /// To this place in the input, for now.
    UpTo(usize),
    /// To the connection's end.
    End(Ended),
}

/// What must have been answered before commands that could see the order.
#[derive(Debug, Default)]
struct Barrier {
    /// Slots with a large write under way.
    slots: Vec<Slot>,
    /// Whether a command over the keyspace is under way.
    keyspace: bool,
}

impl Ahead {
    fn args<'a>(&'a self, input: &'a [u8]) -> Args<'a> {
        self.request.args(input.get(self.range.clone()).unwrap_or_default())
    }

    /// The first key, if it is a command on keys.
    fn first_key<'a>(&'a self, input: &'a [u8]) -> Option<&'a [u8]> {
        let row = self.row.filter(|row| matches!(row.runs, Runs::Slot | Runs::FanOut(_)))?;
        self.request.arg(input.get(self.range.clone())?, usize::from(row.keys.first))
    }
}

/// Whose connection it is, and where it came from.
pub(super) struct Origin {
    pub(super) client: Arc<Client>,
    pub(super) port: Port,
    /// How often this node had stood still when the connection had not yet been made.
    pub(super) stops: u64,
}

/// A connection with everything it needs.
pub(super) struct Connection<'a, B, S> {
    server: &'a Server,
    backend: &'a B,
    client: Arc<Client>,
    port: Port,
    stream: S,
    session: Session,
    parser: RequestParser,
    input: Vec<u8>,
    /// Requests that were read and have not run.
    ahead: Vec<Ahead>,
    /// Bytes the input must hold before parsing makes sense.
    needed: usize,
    room: usize,
    replies: Replies,
    barrier: Barrier,
    /// How often the node had stood still when the connection had not yet been made.
    stops: u64,
    /// When the group began that runs now.
    now: WallMillis,
    counts: BatchCounts,
}

impl<'a, B: Backend, S: AsyncRead + AsyncWrite + Unpin> Connection<'a, B, S> {
    pub(super) fn new(
        server: &'a Server,
        backend: &'a B,
        Origin { client, port, stops }: Origin,
        stream: S,
    ) -> Self {
        let session = Session::new(&server.live());
        if session.authenticated {
            client.show(|shown| shown.user = Some(session.user.name().to_owned()));
        }
        Self {
            server,
            backend,
            client,
            port,
            stream,
            parser: RequestParser::new(request_limits(server, &session)),
            session,
            input: Vec::new(),
            ahead: Vec::new(),
            needed: 1,
            room: limits::READ_ROOM.0,
            replies: Replies::default(),
            barrier: Barrier::default(),
            stops,
            now: WallMillis::default(),
            counts: BatchCounts::default(),
        }
    }

    pub(super) async fn run(mut self) -> Ended {
        let client = Arc::clone(&self.client);
        let told = client.closed();
        tokio::pin!(told);
        loop {
            let read = tokio::select! {
                biased;
                () = &mut told => return Ended::Told,
                read = self.read() => read,
            };
            if let Err(ended) = read {
                return ended;
            }
            if self.input.len() < self.needed {
                continue;
            }
            loop {
                let next = self.batch().await;
                let written = tokio::select! {
                    biased;
                    written = self.write() => written,
                    () = &mut told => return Ended::Told,
                };
                match (written, next) {
                    (Err(ended), _) | (Ok(()), Next::End(ended)) => return ended,
                    (Ok(()), Next::Run) => {}
                    (Ok(()), Next::Read) => break,
                }
            }
            if client.is_closing() {
                return Ended::Told;
            }
        }
    }

    async fn read(&mut self) -> Result<(), Ended> {
        let missing = self.needed.saturating_sub(self.input.len());
        let room = self.room.max(missing.min(limits::READ_ROOM.1));
        self.input.reserve(room);
        let room = self.input.capacity() - self.input.len();
        let read = self.stream.read_buf(&mut self.input);
        let timeout = self.server.live().config.idle_timeout;
        let read = if timeout == Duration::ZERO {
            read.await
        } else {
            let idle = sleep_until(&*self.server.clock, self.server.clock.now() + timeout);
            tokio::select! {
                biased;
                read = read => read,
                () = idle => {
                    self.server.metrics.rejected_idle.increment(1);
                    return Err(Ended::Idle);
                }
            }
        };
        match read {
            Ok(0) | Err(_) => Err(Ended::ByClient),
            Ok(length) => {
                self.server.metrics.bytes_received.increment(length as u64);
                if length == room {
                    self.room = (self.room * 2).min(limits::READ_ROOM.1);
                }
                Ok(())
            }
        }
    }

    /// Runs the requests that are there, up to the bounds of a batch, and waits for their replies.
    async fn batch(&mut self) -> Next {
        let began = self.server.clock.now();
        let mut consumed = 0;
        let mut last = None;
        let mut next = Next::Run;
        for _group in 0..limits::BATCH_REQUESTS_MAX / limits::READ_AHEAD_MAX {
            let (end, stop) = self.read_ahead(consumed);
            match self.run_ahead(&mut last).await {
                Ran::All => {
                    consumed = end;
                    next = self.follow(stop);
                }
                Ran::UpTo(reached) => {
                    consumed = reached;
                    self.parser.start_over();
                }
                Ran::End(Ended::Output) => return Next::End(Ended::Output),
                Ran::End(ended) => next = Next::End(ended),
            }
            if next != Next::Run || self.replies.ready.len() >= limits::BATCH_REPLY_BYTES {
                break;
            }
        }
        self.forget_input(consumed);
        if !self.settle().await {
            return Next::End(Ended::Output);
        }
        for failure in self.replies.late().filter(|reply| reply.first() == Some(&b'-')) {
            self.server.stats.failed(failure);
        }
        if let Some(row) = last {
            let span = self.server.clock.now().saturating_since(began);
            self.server.stats.add(&mut self.counts, span);
            self.client.note(began, row.id.wire());
        }
        next
    }

    /// Reads the requests at `at`, one group at most, and prepares for them. Returns the place
    /// behind them, and why there are no more in the group.
    fn read_ahead(&mut self, mut at: usize) -> (usize, Stop) {
        self.ahead.clear();
        let stop = loop {
            if self.ahead.len() >= limits::READ_AHEAD_MAX {
                break Stop::Full;
            }
            let input = self.input.get(at..).unwrap_or_default();
            match self.parser.next(input) {
                Ok(Parsed::Request(request)) => {
                    let range = at..at + request.consumed();
                    let row = parse::resolve(&request.args(input)).ok();
                    at = range.end;
                    self.ahead.push(Ahead { request, range, row });
                }
                Ok(Parsed::Skip(length)) => at += length,
                Ok(Parsed::Incomplete(needed)) => break Stop::Incomplete(needed),
                Err(error) => break Stop::Broken(error),
            }
        };
        if self.ahead.len() > 1 {
            let mut keys = self.ahead.iter().filter_map(|one| one.first_key(&self.input));
            self.backend.warm(self.session.db, &mut keys);
        }
        (at, stop)
    }

    /// Runs what was read ahead.
    async fn run_ahead(&mut self, last: &mut Option<&'static Row>) -> Ran {
        self.now = self.server.clock.wall();
        renew(&mut self.session, self.server, &self.client);
        let mut stood_still = self.has_stood_still();
        let mut ahead = mem::take(&mut self.ahead);
        let authenticated = self.session.authenticated;
        let mut ran = Ran::All;
        for one in ahead.drain(..) {
            if ran != Ran::All {
                break;
            }
            if self.must_wait(&one) {
                if !self.settle().await {
                    return Ran::End(Ended::Output);
                }
                self.now = self.server.clock.wall();
                stood_still = self.has_stood_still();
            }
            if stood_still {
                Encoder::new(&mut self.replies.ready, self.session.proto)
                    .error(errors::STOOD_STILL);
                return Ran::End(Ended::StoodStill);
            }
            let (row, after) = self.start(&one);
            *last = row.or(*last);
            // Those who have authenticated may send larger requests: the rest is read anew.
            let other_limits = self.session.authenticated != authenticated;
            if after == After::Close {
                ran = Ran::End(Ended::Quit);
            } else if other_limits || self.replies.ready.len() >= limits::BATCH_REPLY_BYTES {
                ran = Ran::UpTo(one.range.end);
            }
        }
        self.ahead = ahead;
        ran
    }

    /// Whether the node has stood still since the connection was made: what comes over it may be from
    /// before, in the socket or on its way, and given up by its client.
    fn has_stood_still(&self) -> bool {
        self.backend.wake(self.server.clock.now()) != self.stops
    }

    /// What comes after a group, all of which has run.
    fn follow(&mut self, stop: Stop) -> Next {
        match stop {
            Stop::Full => Next::Run,
            Stop::Incomplete(needed) => {
                self.needed = needed;
                Next::Read
            }
            Stop::Broken(error) => self.refuse(error),
        }
    }

    /// Waits for all replies; `false` if they are more than a client may let pile up, and then none
    /// is sent any more.
    async fn settle(&mut self) -> bool {
        self.barrier = Barrier::default();
        let limit = self.server.live().config.output_buffer_limit.0;
        let within = self.replies.settle(limit).await;
        if !within {
            self.server.metrics.rejected_output.increment(1);
            tracing::warn!(from = %self.client.from(), "replies exceed the output buffer's limit");
            self.replies.clear();
        }
        within
    }

    /// Takes away what was read. What remains is the start of a request.
    fn forget_input(&mut self, consumed: usize) {
        if consumed == self.input.len() {
            self.input.clear();
            self.needed = 1;
        } else {
            self.input.drain(..consumed);
        }
        if self.input.capacity() > limits::BUFFER_KEPT_MAX && self.input.len() < self.room {
            self.input.shrink_to(self.room);
        }
    }

    fn refuse(&mut self, error: ProtocolError) -> Next {
        self.server.metrics.rejected_protocol.increment(1);
        let from = self.replies.ready.len();
        Encoder::new(&mut self.replies.ready, self.session.proto).error(error.to_string());
        self.server.stats.failed(self.replies.ready.get(from..).unwrap_or_default());
        Next::End(Ended::Protocol)
    }

    /// Whether the request could see that one before it is still under way.
    fn must_wait(&self, one: &Ahead) -> bool {
        if self.replies.all_at_once() {
            return false;
        }
        let Some(row) = one.row else { return false };
        match row.runs {
            Runs::Connection | Runs::Node => false,
            Runs::Keyspace => true,
            Runs::Slot | Runs::FanOut(_) => {
                let blocked = |key: &[u8]| self.barrier.slots.contains(&self.backend.slot_of(key));
                self.barrier.keyspace
                    || (!self.barrier.slots.is_empty()
                        && parse::keys(row, &one.args(&self.input)).any(blocked))
            }
        }
    }

    /// Starts one request; its reply is in `replies`, or will be.
    fn start(&mut self, one: &Ahead) -> (Option<&'static Row>, After) {
        let was_off = self.session.answers == Answers::Off;
        let mut wanted = self.session.answers_next();
        let from = self.replies.ready.len();
        let args = one.args(&self.input);
        if is_attack(&args) {
            self.server.refuse_browser(&self.client);
            return (None, After::Close);
        }
        let mut after = After::Continue;
        let admitted = admit(one.row, &args, &self.session);
        match admitted {
            Ok(row) => {
                let mut parts = Parts {
                    server: self.server,
                    backend: self.backend,
                    client: &self.client,
                    port: self.port,
                    session: &mut self.session,
                    replies: &mut self.replies,
                    barrier: &mut self.barrier,
                    now: self.now,
                };
                let (route, followed) = parts.run(row, &args, wanted);
                after = followed;
                if row.runs == Runs::Node {
                    // It may have been ACL LOAD.
                    renew(&mut self.session, self.server, &self.client);
                }
                self.counts.count(row, route, &self.server.stats);
                self.parser.set_limits(request_limits(self.server, &self.session));
                wanted |= was_off && self.session.answers == Answers::On;
            }
            Err(ref refused) => {
                refused.encode(&mut Encoder::new(&mut self.replies.ready, self.session.proto));
            }
        }
        let reply = self.replies.ready.get(from..).unwrap_or_default();
        if reply.first() == Some(&b'-') {
            self.server.stats.failed(reply);
        }
        if !wanted || after == After::Silent {
            self.replies.ready.truncate(from);
        }
        (admitted.ok(), after)
    }

    async fn write(&mut self) -> Result<(), Ended> {
        if self.replies.is_empty() {
            return Ok(());
        }
        let length = self.replies.len() as u64;
        let timeout = self.server.live().config.idle_timeout;
        let written = if timeout == Duration::ZERO {
            self.replies.write(&mut self.stream).await
        } else {
            match within(timeout, self.replies.write(&mut self.stream)).await {
                Some(written) => written,
                None => return Err(Ended::Idle),
            }
        };
        self.server.metrics.bytes_sent.increment(length);
        written.map_err(|_| Ended::ByClient)
    }
}

/// What running one request needs of its connection, while its arguments lie in the input.
struct Parts<'p, B> {
    server: &'p Server,
    backend: &'p B,
    client: &'p Client,
    port: Port,
    session: &'p mut Session,
    replies: &'p mut Replies,
    barrier: &'p mut Barrier,
    now: WallMillis,
}

impl<B: Backend> Parts<'_, B> {
    fn run(&mut self, row: &'static Row, args: &[&[u8]], wanted: bool) -> (Route, After) {
        let out = &mut self.replies.ready;
        match row.runs {
            Runs::Connection | Runs::Node => {
                let mut context = local::Context {
                    server: self.server,
                    backend: self.backend,
                    client: self.client,
                    session: self.session,
                    port: self.port,
                };
                let after = if row.runs == Runs::Connection {
                    local::run(row, args, &mut context, out)
                } else {
                    about::run(row, args, &context, out)
                };
                (Route::Local, after)
            }
            Runs::Slot | Runs::FanOut(_) | Runs::Keyspace => {
                let (db, proto) = (self.session.db, self.session.proto);
                let call = CommandCall { row, args, db, proto, port: self.port, now: self.now };
                match self.backend.start(&call, out) {
                    Started::Done => (Route::Local, After::Continue),
                    Started::Waiting(reply) => {
                        self.barrier.note(&call, self.backend);
                        self.replies.wait_for(reply, wanted);
                        (Route::Proxied, After::Continue)
                    }
                }
            }
        }
    }
}

impl Barrier {
    /// Notes a command that is under way, if one behind it could overtake it.
    fn note(&mut self, call: &CommandCall<'_>, backend: &impl Backend) {
        if call.row.runs == Runs::Keyspace {
            self.keyspace = true;
            return;
        }
        let size: usize = call.args.iter().map(|arg| arg.len()).sum();
        // Some room for the frame around the arguments.
        if call.row.is_write() && size > limits::LANE_PAYLOAD_MAX / 2 {
            self.slots.extend(parse::keys(call.row, call.args).map(|key| backend.slot_of(key)));
        }
    }
}

fn request_limits(server: &Server, session: &Session) -> RequestLimits {
    if session.authenticated {
        let max = usize::try_from(server.live().config.max_value_size.0).unwrap_or(usize::MAX);
        RequestLimits::trusted(max)
    } else {
        RequestLimits::before_auth()
    }
}

/// A web page may make a browser send a POST to a port of this host; Redis closes at once too.
fn is_attack(args: &[&[u8]]) -> bool {
    args.first().is_some_and(|name| {
        name.eq_ignore_ascii_case(b"POST") || name.eq_ignore_ascii_case(b"Host:")
    })
}
