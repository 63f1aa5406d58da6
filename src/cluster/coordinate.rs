//! Sees a client's command through: finds who acts, follows `NotOwner`, goes to the next complete
//! member where the acting one does not answer, and tells the truth about the outcome.
//!
//! A command ends in one of three ways: executed; certainly not executed (`TRYAGAIN`, which client
//! libraries repeat by themselves); or not known (`outcome unknown`), for a write that was sent,
//! not answered, and is not safe to repeat.

use std::time::Duration;

use bytes::Bytes;

use crate::clock::within;
use crate::command::parse::{is_repeatable, keys};
use crate::command::{Row, Runs};
use crate::config::AcksShortfall;
use crate::limits::DEPUTY_PATIENCE;
use crate::peers::{Call, CallError};
use crate::resp::{Encoder, Proto, errors};
use crate::ring::slot_of;
use crate::tasks::BoxFuture;
use crate::types::{Db, Instant, NodeId, Slot, WallMillis};
use crate::wire::message::{ActingHint, Request, Response, Run};
use crate::wire::raw::{Args, Raw};

use super::Cache;
use super::breakage::Rule;
use super::execute::{Awaited, Executed, stored_key, transfer_time};
use super::quorum::Verdict;
use super::replicate::{ToDrive, drive_all};
use super::view::Standing;

/// The first pause before a command is tried again, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// Which of a node's ports a command came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Commands are about the whole cluster.
    Client,
    /// Commands about the keyspace are about this node: cluster clients ask every node.
    Cluster,
}

/// A command of a client.
#[derive(Clone, Copy, Debug)]
pub struct CommandCall<'a> {
    /// Its row of the command table.
    pub row: &'static Row,
    /// Its name and arguments.
    pub args: &'a [&'a [u8]],
    /// The database of the connection.
    pub db: Db,
    /// The protocol of the connection.
    pub proto: Proto,
    /// The port of the connection.
    pub port: Port,
    /// The time at which it runs, if it runs at once. One reading does for many commands.
    pub now: WallMillis,
}

/// A command on its way.
pub enum Started {
    /// Done: the reply was appended.
    Done,
    /// Under way: the future gives the encoded reply.
    Waiting(BoxFuture<'static, Bytes>),
}

/// A command on its way to another node, or waiting for one that acts.
struct Pursuit {
    cache: Cache,
    row: &'static Row,
    /// Whether a write that was sent and not answered may be sent again.
    repeatable: bool,
    /// Whether a write was sent and not answered: then it may have been executed, whatever the
    /// tries after it come to.
    perhaps_executed: bool,
    slot: Slot,
    proto: Proto,
    request: Bytes,
    /// How long what is sent for it takes to arrive.
    transfer: Duration,
    deadline: Instant,
    pause: Duration,
}

/// What one try came to.
enum Tried {
    Reply(Bytes),
    /// Not executed there; perhaps the node that acts instead.
    Elsewhere(Option<NodeId>),
    Failed(CallError),
}

impl Cache {
    /// Starts a command on keys. Its reply is appended to `out`, or given by the future.
    pub fn start(&self, call: &CommandCall<'_>, out: &mut Vec<u8>) -> Started {
        match call.row.runs {
            Runs::Slot => self.start_on_slot(call, out),
            Runs::FanOut(merge) => self.start_fan_out(call, merge, out),
            Runs::Keyspace => self.start_wide(call, out),
            Runs::Connection | Runs::Node => {
                Encoder::new(out, call.proto).error("ERR BUG: command does not run on keys");
                Started::Done
            }
        }
    }

    /// Prepares for commands on these keys, which are about to start; see [`Store::warm`].
    ///
    /// [`Store::warm`]: crate::store::Store::warm
    pub fn warm<'k>(&self, db: Db, names: impl Iterator<Item = &'k [u8]>) {
        self.shared.store.warm(names.map(|name| (slot_of(name), stored_key(db, name))));
    }

    /// Starts a command whose keys must share a slot.
    pub(super) fn start_on_slot(&self, call: &CommandCall<'_>, out: &mut Vec<u8>) -> Started {
        let mut slots = keys(call.row, call.args).map(slot_of);
        let Some(slot) = slots.next() else {
            Encoder::new(out, call.proto).error(errors::SYNTAX);
            return Started::Done;
        };
        if slots.any(|other| other != slot) {
            Encoder::new(out, call.proto).error(errors::CROSSSLOT);
            return Started::Done;
        }
        let run = Run {
            command: call.row.id.wire(),
            db: call.db,
            resp3: call.proto == Proto::Resp3,
            stand_in: false,
            slot,
            args: Args(call.args.iter().copied().collect()),
        };
        self.start_run(call.row, run, call.now, out)
    }

    fn start_run(
        &self,
        row: &'static Row,
        mut run: Run<'_>,
        now: WallMillis,
        out: &mut Vec<u8>,
    ) -> Started {
        let (target, stand_in) = self.route(run.slot);
        run.stand_in = stand_in;
        let mut first = None;
        if target == Some(self.shared.options.me) {
            let start = out.len();
            match self.run_here(row, &run, now, out) {
                Executed::Done => return Started::Done,
                Executed::Waiting(awaited) => {
                    let (cache, reply) = (self.clone(), Bytes::from(out.split_off(start)));
                    let proto = proto_of(&run);
                    return Started::Waiting(Box::pin(async move {
                        cache.acknowledged(awaited, reply, proto).await
                    }));
                }
                Executed::NotActing(_) => {}
            }
        }
        let (slot, proto) = (run.slot, proto_of(&run));
        let repeatable = is_repeatable(row, &run.args.0) || Rule::RepeatOnlyHarmless.is_broken();
        let stored = self.shared.stored_len(row, &run);
        let request = Request::Run(run).encode();
        let bytes = request.len() + stored;
        let (transfer, patience) = (transfer_time(bytes), self.shared.patience(bytes));
        let deadline = self.shared.clock.now() + patience;
        if let Some(node) = target.filter(|node| *node != self.shared.options.me) {
            first = Some((node, self.call(node, &request, stand_in && row.is_write(), transfer)));
        }
        let pursuit = Pursuit {
            cache: self.clone(),
            row,
            repeatable,
            perhaps_executed: false,
            slot,
            proto,
            request,
            transfer,
            deadline,
            pause: PAUSES.0,
        };
        Started::Waiting(Box::pin(pursuit.run(first)))
    }

    /// Executes an operation here and starts sending what it queued.
    pub(super) fn run_here(
        &self,
        row: &Row,
        run: &Run<'_>,
        now: WallMillis,
        out: &mut Vec<u8>,
    ) -> Executed {
        let mut to_drive = ToDrive::new();
        let executed = self.shared.execute(row, run, now, out, &mut to_drive);
        drive_all(&self.shared, &self.peers, to_drive);
        executed
    }

    fn call(&self, node: NodeId, request: &Bytes, stand_in: bool, transfer: Duration) -> Call {
        let patience = if stand_in { DEPUTY_PATIENCE } else { self.shared.options.call_timeout };
        self.peers.call(node, request.clone(), patience + transfer)
    }

    /// Where to try, and whether that node is to stand in for the acting one: the node last heard to
    /// act, or, while that does not answer, the next member of the set that does.
    fn route(&self, slot: Slot) -> (Option<NodeId>, bool) {
        let me = self.shared.options.me;
        let hint = self.shared.hints.get(slot);
        if hint == Some(me) {
            return (hint, false);
        }
        let view = self.shared.view.load();
        let acting = hint.or_else(|| self.shared.believed_acting(&view, slot));
        let answers = |node: NodeId| node == me || self.shared.is_answering(&view, node);
        if acting.is_none_or(answers) {
            return (acting, false);
        }
        let next = view.replica_set(slot).map(|placed| placed.node).find(|node| answers(*node));
        next.map_or((acting, false), |node| (Some(node), true))
    }

    /// Waits for a write's acknowledgements; gives its reply, or what is known instead.
    pub(super) async fn acknowledged(&self, awaited: Awaited, reply: Bytes, proto: Proto) -> Bytes {
        match self.verdict(awaited).await {
            Ok(()) => reply,
            Err(why) => {
                self.shared.metrics.cluster.outcome_unknown.increment(1);
                error_reply(proto, &errors::outcome_unknown(why))
            }
        }
    }

    /// Waits for a write's acknowledgements; or says why its outcome is not known.
    pub(super) async fn verdict(&self, awaited: Awaited) -> Result<(), &'static str> {
        match within(awaited.patience, awaited.decision).await {
            Some(Ok(Verdict::Enough)) => Ok(()),
            Some(Ok(Verdict::Short) | Err(_)) => {
                self.shared.metrics.cluster.shortfalls.increment(1);
                match self.shared.options.acks_shortfall {
                    AcksShortfall::Accept => Ok(()),
                    AcksShortfall::Error => Err("too few copies acknowledged the write"),
                }
            }
            Some(Ok(Verdict::Deposed)) => {
                Err("another node took over while the write was under way")
            }
            None => Err("the copies did not acknowledge the write in time"),
        }
    }
}

pub(super) const fn proto_of(run: &Run<'_>) -> Proto {
    if run.resp3 { Proto::Resp3 } else { Proto::Resp2 }
}

pub(super) fn error_reply(proto: Proto, text: &str) -> Bytes {
    let mut out = Vec::new();
    Encoder::new(&mut out, proto).error(text);
    out.into()
}

impl Pursuit {
    async fn run(mut self, first: Option<(NodeId, Call)>) -> Bytes {
        let mut asked = first.as_ref().map(|(node, _)| *node);
        let mut tried = match first {
            Some((node, call)) => self.read_answer(node, call.await),
            None => Tried::Elsewhere(None),
        };
        loop {
            let next = match tried {
                Tried::Reply(reply) => {
                    if self.perhaps_executed && reply.starts_with(b"-") {
                        return self.outcome_unknown("it was repeated, and then refused");
                    }
                    self.cache.shared.metrics.cluster.proxied_ok.increment(1);
                    return reply;
                }
                Tried::Elsewhere(Some(node)) if asked != Some(node) => {
                    self.cache.shared.hints.set(self.slot, node);
                    Some(node)
                }
                Tried::Elsewhere(_) => {
                    if let Some(node) = asked {
                        self.cache.shared.hints.clear_if(self.slot, node);
                    }
                    None
                }
                Tried::Failed(error) => {
                    if let Some(end) = self.judge(&error) {
                        return end;
                    }
                    if !self.row.is_write()
                        && let Some(reply) = self.try_replicas(asked).await
                    {
                        return reply;
                    }
                    None
                }
            };
            self.cache.shared.metrics.cluster.proxied_retried.increment(1);
            if next.is_none() {
                self.wait().await;
            }
            if self.is_over() {
                return self.give_up();
            }
            let (target, stand_in) =
                if next.is_some() { (next, false) } else { self.cache.route(self.slot) };
            asked = target;
            tried = match target {
                Some(node) => self.try_at(node, stand_in).await,
                None => Tried::Elsewhere(None),
            };
        }
    }

    /// Whether a failed try ends the command.
    fn judge(&mut self, error: &CallError) -> Option<Bytes> {
        if !self.row.is_write() {
            return None;
        }
        self.perhaps_executed |= !error.is_certain();
        let is_shed = *error == CallError::Busy || *error == CallError::TooLarge;
        if is_shed && !self.perhaps_executed {
            self.cache.shared.metrics.cluster.proxied_failed.increment(1);
            return Some(error_reply(self.proto, &errors::try_again(&error.to_string())));
        }
        if !is_shed && (error.is_certain() || self.repeatable) {
            return None;
        }
        Some(self.outcome_unknown(&error.to_string()))
    }

    fn outcome_unknown(&self, why: &str) -> Bytes {
        if Rule::UnknownIsTold.is_broken() {
            return error_reply(self.proto, &errors::try_again(why));
        }
        let metrics = &self.cache.shared.metrics.cluster;
        metrics.proxied_failed.increment(1);
        metrics.outcome_unknown.increment(1);
        error_reply(self.proto, &errors::outcome_unknown(why))
    }

    /// Asks the other members of the set, as replicas, for a read.
    async fn try_replicas(&self, asked: Option<NodeId>) -> Option<Bytes> {
        let view = self.cache.view();
        for placed in view.replica_set(self.slot) {
            if Some(placed.node) == asked || placed.standing == Standing::Gone {
                continue;
            }
            if let Tried::Reply(reply) = self.try_at(placed.node, true).await {
                return Some(reply);
            }
        }
        None
    }

    async fn try_at(&self, node: NodeId, stand_in: bool) -> Tried {
        let is_deputy = stand_in && self.row.is_write();
        if node == self.cache.shared.options.me {
            if is_deputy {
                self.cache.stand_in(self.slot, DEPUTY_PATIENCE).await;
                if self.is_over() {
                    return Tried::Elsewhere(None);
                }
            }
            let mut out = Vec::new();
            let executed = self.run_here(stand_in, &mut out);
            return self.finish_here(executed, out).await;
        }
        let mut request = self.request.clone();
        if let Some(Request::Run(mut run)) = Request::decode(&self.request)
            && run.stand_in != stand_in
        {
            run.stand_in = stand_in;
            request = Request::Run(run).encode();
        }
        let answer = self.cache.call(node, &request, is_deputy, self.transfer).await;
        self.read_answer(node, answer)
    }

    fn run_here(&self, stand_in: bool, out: &mut Vec<u8>) -> Executed {
        let Some(Request::Run(mut run)) = Request::decode(&self.request) else {
            return Executed::NotActing(None);
        };
        run.stand_in = stand_in;
        let now = self.cache.shared.clock.wall();
        self.cache.run_here(self.row, &run, now, out)
    }

    fn read_answer(&self, node: NodeId, answer: Result<Bytes, CallError>) -> Tried {
        if let Some(link) = self.cache.shared.link(node) {
            self.cache.shared.note_answer(&link, &answer);
        }
        let bytes = match answer {
            Ok(bytes) => bytes,
            Err(error) => return Tried::Failed(error),
        };
        match Response::decode(&bytes) {
            Some(Response::Reply(Raw(reply))) => Tried::Reply(bytes.slice_ref(reply)),
            Some(Response::NotOwner(hint)) => Tried::Elsewhere(hint.map(|hint| hint.node)),
            _ => Tried::Failed(CallError::Refused("the answer was not understood".to_owned())),
        }
    }

    async fn finish_here(&self, executed: Executed, out: Vec<u8>) -> Tried {
        match executed {
            Executed::Done => Tried::Reply(out.into()),
            Executed::Waiting(awaited) => {
                Tried::Reply(self.cache.acknowledged(awaited, out.into(), self.proto).await)
            }
            Executed::NotActing(hint) => Tried::Elsewhere(other_than(hint, &self.cache)),
        }
    }

    /// Pauses before the next try, if there may be one.
    async fn wait(&mut self) {
        if !self.is_over() {
            tokio::time::sleep(self.pause).await;
            self.pause = (self.pause * 2).min(PAUSES.1);
        }
    }

    /// Whether the budget is spent. Looked at right before each try: the node may have stood still.
    fn is_over(&self) -> bool {
        self.cache.shared.clock.now() >= self.deadline
    }

    fn give_up(&self) -> Bytes {
        let text = format!("no node acts for slot {} at the moment", self.slot);
        if self.perhaps_executed {
            return self.outcome_unknown(&text);
        }
        self.cache.shared.metrics.cluster.proxied_failed.increment(1);
        error_reply(self.proto, &errors::try_again(&text))
    }
}

fn other_than(hint: Option<ActingHint>, cache: &Cache) -> Option<NodeId> {
    hint.map(|hint| hint.node).filter(|node| *node != cache.shared.options.me)
}
