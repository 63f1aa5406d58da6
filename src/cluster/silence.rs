//! Who does not answer: noticed by calls that fail, judged by pings of this node's own.
//!
//! A member is *doubted* when a call to it has no answer or membership suspects it; any answer ends
//! the doubt. Whoever is doubted is skipped by routes and pinged at once, directly and by others on
//! this node's behalf. If that brings no sign of life either it is *silent*: nobody waits for its
//! acknowledgements, and the next complete members take over what it acts for. A node that others
//! do not answer either cannot tell that anybody is silent: it may be the one that is cut off. Neither
//! can one of the last two while others are dead and keep their places: it waits for the other's death.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::limits::{PING_TIMEOUT, PING_WITNESSES, PROBE_TIMEOUT};
use crate::peers::{Answer, Call, CallError, Served};
use crate::types::NodeId;
use crate::wire::message::{Request, Response};

use super::breakage::Rule;
use super::replicate::Link;
use super::view::{Standing, View};
use super::{Cache, Shared};

impl Shared {
    /// Takes note of whether a peer answered. What it refused, or what never left, says nothing.
    pub(super) fn note_answer(&self, link: &Link, answer: &Answer) {
        match answer {
            Ok(_) => link.answered(),
            Err(CallError::TimedOut | CallError::Lost | CallError::Unreachable(_)) => {
                self.doubt(link);
            }
            Err(CallError::Busy | CallError::Refused(_) | CallError::TooLarge) => {}
        }
    }

    /// A peer did not answer: it is pinged in a round that begins soon.
    pub(super) fn doubt(&self, link: &Link) {
        if link.doubt() {
            tracing::debug!(node = %link.node, "member does not answer");
            self.kick();
        }
    }

    /// Whether a node may be expected to answer.
    pub(super) fn is_answering(&self, view: &View, node: NodeId) -> bool {
        view.standing(node) == Standing::Alive
            && self.links.load().get(&node).is_none_or(|link| !link.is_doubted())
    }
}

/// The pings that are under way for one doubted member.
struct Pings {
    link: Arc<Link>,
    direct: Call,
    through: Vec<Call>,
    /// Whether there is nobody else, dead or alive: no answer is all there is to know.
    alone: bool,
}

impl Cache {
    /// Pings every doubted member; gives those that are silent.
    pub(super) async fn judge_doubted(&self, view: &View) -> BTreeSet<NodeId> {
        let doubted = self.doubted(view);
        // All are sent before the first is waited for.
        let pings: Vec<Pings> = doubted.into_iter().map(|link| self.ping(view, link)).collect();
        let mut silent = BTreeSet::new();
        for pings in pings {
            let link = Arc::clone(&pings.link);
            // Who could not be asked did not fail to answer.
            let is_asked = view.peer_address(link.node).is_some();
            if Rule::DeputyPings.is_broken() || is_asked && pings.are_unanswered().await {
                link.set_silent();
                silent.insert(link.node);
            }
        }
        silent
    }

    /// The members that are doubted now.
    pub(super) fn doubted(&self, view: &View) -> Vec<Arc<Link>> {
        view.others()
            .filter_map(|member| self.shared.link(member.identity.node))
            .filter(|link| link.is_doubted())
            .collect()
    }

    fn ping(&self, view: &View, link: Arc<Link>) -> Pings {
        let node = link.node;
        let mut witnesses: Vec<NodeId> = view
            .others()
            .map(|member| member.identity.node)
            .filter(|other| *other != node)
            .collect();
        // Of the last two each may be the one that is cut off, as long as others are missed.
        let alone = witnesses.is_empty() && !view.misses_somebody();
        if !witnesses.is_empty() {
            let first = self.shared.rng.below(witnesses.len() as u64);
            witnesses.rotate_left(usize::try_from(first).unwrap_or_default());
            // Those that answer come first.
            witnesses.sort_by_key(|other| !self.shared.is_answering(view, *other));
            witnesses.truncate(PING_WITNESSES);
        }
        let probe = Request::Probe { node }.encode();
        let ask = |other: NodeId| self.peers.call(other, probe.clone(), PROBE_TIMEOUT);
        Pings {
            direct: self.peers.call(node, Request::Present.encode(), PROBE_TIMEOUT),
            through: witnesses.into_iter().map(ask).collect(),
            link,
            alone,
        }
    }

    /// Pings a node on behalf of a peer.
    pub(super) fn probe(&self, node: NodeId) -> Served {
        let call = self.peers.call(node, Request::Present.encode(), PING_TIMEOUT);
        Served::Later(Box::pin(async move {
            let answered = call.await.is_ok();
            Response::Present(answered).encode()
        }))
    }
}

impl Pings {
    /// Whether nobody had a sign of life, and this node is not the one that is cut off.
    async fn are_unanswered(self) -> bool {
        if self.direct.await.is_ok() {
            self.link.answered();
            return false;
        }
        let mut confirmed = self.alone;
        for call in self.through {
            let Ok(answer) = call.await else { continue };
            match Response::decode(&answer) {
                Some(Response::Present(true)) => return false,
                Some(Response::Present(false)) => confirmed = true,
                _ => {}
            }
        }
        confirmed
    }
}
