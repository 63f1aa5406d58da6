//! What foca's codec and broadcast handler tell the engine.
//!
//! foca owns both and lends nothing back, so they share this record with the engine. The lock is
//! never contended: one owner drives foca and the engine by turns.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use foca::{Header, Message};

use crate::limits::REMOVED_NOTICES_MAX;
use crate::membership::codec::ShortName;
use crate::types::{Generation, Identity, NodeId};

/// How a probe was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// By the member, or through another member.
    Gossip,
    /// Over QUIC.
    Fallback,
    /// Not at all.
    Never,
}

/// The probe under way.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    /// Counts all probes: foca's own number has eight bits only.
    pub(super) serial: u64,
    pub(super) target: Identity,
    /// foca's number of the probe.
    pub(super) number: u8,
    pub(super) answered: Answered,
}

/// The shared record.
#[derive(Debug)]
pub(super) struct Backchannel {
    own: Identity,
    own_name: ShortName,
    /// The incarnation under which this node last sent; foca does not tell it otherwise.
    incarnation: u16,
    dirty: bool,
    probe: Option<Probe>,
    probes: u64,
    finished: Option<Answered>,
    /// The generation up to which a node's place was given up, as far as this node has heard.
    removed: BTreeMap<NodeId, Generation>,
    heard: Vec<(NodeId, Generation)>,
    /// Who sent the packet that foca read last.
    sender: Option<(NodeId, Generation)>,
}

impl Backchannel {
    /// This node's identity and the short name that packets call it by.
    pub(super) fn own(&self) -> (Identity, ShortName) {
        (self.own.clone(), self.own_name)
    }

    /// Called for every packet that foca writes.
    pub(super) fn sending(&mut self, header: &Header<Identity>) {
        self.incarnation = header.src_incarnation;
        if let Message::Ping(number) = header.message {
            self.probes = self.probes.saturating_add(1);
            let probe = Probe {
                serial: self.probes,
                target: header.dst.clone(),
                number,
                answered: Answered::Never,
            };
            if let Some(last) = self.probe.replace(probe) {
                self.finished = Some(last.answered);
            }
        }
    }

    /// Called for every packet that foca reads, before foca judges it.
    pub(super) fn received(&mut self, header: &Header<Identity>) {
        self.sender = Some((header.src.node, header.src.generation));
        let Some(probe) = &mut self.probe else { return };
        let answers = match header.message {
            Message::Ack(number) => number == probe.number && header.src == probe.target,
            Message::ForwardedAck { probe_number, .. } => probe_number == probe.number,
            Message::Ping(_)
            | Message::PingReq { .. }
            | Message::IndirectPing { .. }
            | Message::IndirectAck { .. }
            | Message::Announce
            | Message::Feed
            | Message::Gossip
            | Message::Broadcast
            | Message::TurnUndead => false,
        };
        if answers && probe.answered == Answered::Never {
            probe.answered = Answered::Gossip;
        }
    }

    /// Called whenever foca writes a member: it does so after every change it applied.
    pub(super) fn changed(&mut self) {
        self.dirty = true;
    }

    /// Whether a member may have changed since the last call.
    pub(super) fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }

    /// Who sent the packet that foca read since the last call.
    pub(super) fn take_sender(&mut self) -> Option<(NodeId, Generation)> {
        self.sender.take()
    }

    /// How the last finished probe was answered.
    pub(super) fn take_finished(&mut self) -> Option<Answered> {
        self.finished.take()
    }

    /// The probe under way.
    pub(super) const fn probe(&self) -> Option<&Probe> {
        self.probe.as_ref()
    }

    /// Notes that the probe under way was answered over QUIC.
    pub(super) fn answer_by_fallback(&mut self) {
        if let Some(probe) = &mut self.probe
            && probe.answered == Answered::Never
        {
            probe.answered = Answered::Fallback;
        }
    }

    /// The incarnation under which this node last sent.
    pub(super) const fn incarnation(&self) -> u16 {
        self.incarnation
    }

    /// The node has a new identity: its incarnations start anew, and no probe is under way.
    pub(super) fn set_own(&mut self, own: Identity) {
        self.own_name = ShortName::of(&own);
        self.own = own;
        self.incarnation = 0;
        self.probe = None;
    }

    /// Notes that the place of `node` was given up at `generation`; whether that is news.
    pub(super) fn note_removed(&mut self, node: NodeId, generation: Generation) -> bool {
        if self.removed.get(&node).is_some_and(|known| *known >= generation) {
            return false;
        }
        if self.removed.len() >= REMOVED_NOTICES_MAX && !self.removed.contains_key(&node) {
            self.removed.pop_first();
        }
        self.removed.insert(node, generation);
        true
    }

    /// Notes a removal that was heard by gossip; whether that is news, to be gossiped on.
    pub(super) fn hear_removed(&mut self, node: NodeId, generation: Generation) -> bool {
        let news = self.note_removed(node, generation);
        if news {
            self.heard.push((node, generation));
        }
        news
    }

    /// Whether the place of `node` at `generation` was given up.
    pub(super) fn is_removed(&self, node: NodeId, generation: Generation) -> bool {
        self.removed.get(&node).is_some_and(|removed| *removed >= generation)
    }

    /// The removals heard since the last call.
    pub(super) fn take_heard(&mut self) -> Vec<(NodeId, Generation)> {
        std::mem::take(&mut self.heard)
    }
}

/// A [`Backchannel`] in the hands of the engine, the codec and the broadcast handler.
#[derive(Clone, Debug)]
pub(super) struct SharedBackchannel(Arc<Mutex<Backchannel>>);

impl SharedBackchannel {
    pub(super) fn new(own: Identity) -> Self {
        let own_name = ShortName::of(&own);
        Self(Arc::new(Mutex::new(Backchannel {
            own,
            own_name,
            incarnation: 0,
            dirty: false,
            probe: None,
            probes: 0,
            finished: None,
            removed: BTreeMap::new(),
            heard: Vec::new(),
            sender: None,
        })))
    }

    /// Runs `f` on the record.
    pub(super) fn with<T>(&self, f: impl FnOnce(&mut Backchannel) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
