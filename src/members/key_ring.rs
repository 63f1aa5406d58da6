//! The key ring of gossip as a record of the cluster: changed at one node, taken over by all.
//!
//! A change goes to every member over QUIC at once; who misses it has it with the next join or
//! push-pull. A key seals, or goes, only when every living member has said that it holds the ring as
//! it is: before, a packet could be sent that somebody cannot open.

use thiserror::Error;

use crate::members::asking::{CALL_BUDGET, Line, Outcome};
use crate::members::service::Task;
use crate::membership::{GossipKey, KeyRing, KeyRingError};
use crate::peers::Call;
use crate::types::{ClusterName, NodeId};
use crate::wire::keys::{KeyBytes, KeyRingRecord};
use crate::wire::member::{MemberAnswer, MemberRequest};

/// Why the key ring was not changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum KeysError {
    /// The ring does not allow it.
    #[error(transparent)]
    Ring(#[from] KeyRingError),
    /// These living members did not say that they hold the ring as it is here; try again when they
    /// answer, or when they are dead.
    #[error("not every member has this node's key ring yet")]
    Unconfirmed(Vec<NodeId>),
    /// The ring was changed elsewhere meanwhile.
    #[error("the key ring was changed meanwhile: look at it again")]
    Changed,
    /// There is no cluster yet whose ring could be changed.
    #[error("this node is in no cluster yet")]
    NotFormed,
    /// The member service is stopping.
    #[error("the node is stopping")]
    Stopping,
}

/// A change of the key ring.
#[derive(Clone, Debug)]
pub enum KeyChange {
    /// Another key opens.
    Add(GossipKey),
    /// Another key seals.
    Use(u8),
    /// A key opens no more.
    Remove(u8),
}

/// A key ring and its place among the versions of the cluster's.
#[derive(Clone, Debug)]
pub struct VersionedKeys {
    /// The keys.
    pub ring: KeyRing,
    /// Order among changes: the higher wins. 0 is the ring that the secret gives.
    pub revision: u64,
    /// Tag of the node that made this revision; settles equal revisions.
    pub origin: u32,
}

impl VersionedKeys {
    /// The ring that a cluster has before anyone changed it.
    pub const fn first(ring: KeyRing) -> Self {
        Self { ring, revision: 0, origin: 0 }
    }

    /// The ring of a record; `None` if it is none.
    pub fn of_record(cluster: ClusterName, record: &KeyRingRecord) -> Option<Self> {
        let keys = record.keys.iter().map(|(id, key)| (*id, GossipKey::new(key.0)));
        let ring = KeyRing::of(cluster, keys, record.primary)?;
        Some(Self { ring, revision: record.revision, origin: record.origin })
    }

    /// The ring as it travels, and as it is kept.
    pub fn to_record(&self) -> KeyRingRecord {
        let keys = self.ring.keys().map(|(id, key)| (id, KeyBytes(*key.bytes())));
        KeyRingRecord {
            revision: self.revision,
            origin: self.origin,
            primary: self.ring.primary(),
            keys: keys.collect(),
        }
    }

    /// The ring after a change made by `origin`, and the id of the key that it is about.
    fn changed(&self, change: KeyChange, origin: NodeId) -> Result<(Self, u8), KeyRingError> {
        let mut ring = self.ring.clone();
        let id = match change {
            KeyChange::Add(key) => ring.add_next(key)?,
            KeyChange::Use(id) => ring.use_key(id).map(|()| id)?,
            KeyChange::Remove(id) => ring.remove(id).map(|()| id)?,
        };
        let revision = self.revision.saturating_add(1);
        Ok((Self { ring, revision, origin: origin.tag() }, id))
    }
}

/// What a change came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysChanged {
    /// The id of the key that it was about.
    pub id: u8,
    /// Living members that did not say that they have it; they get it with a later push-pull.
    pub late: Vec<NodeId>,
}

/// Tells a ring to members; those who do not hold the same afterwards.
pub(super) struct Telling {
    ring: KeyRingRecord,
    calls: Vec<(NodeId, Call)>,
    line: Line,
}

impl Telling {
    /// The members that did not confirm the ring.
    pub(super) async fn unconfirmed(self) -> Vec<NodeId> {
        let mut late = Vec::new();
        for (node, call) in self.calls {
            let answer = call.await.ok().and_then(|bytes| (self.line.codec.decode)(&bytes));
            let holds = matches!(answer, Some(MemberAnswer::Keys(theirs)) if *theirs == self.ring);
            if !holds {
                late.push(node);
            }
        }
        late
    }
}

impl Task {
    /// Tells every living member the ring; the calls are under way when this returns.
    pub(super) fn tell_keys(&self) -> Telling {
        let ring = self.keys.to_record();
        let request = (self.line.codec.encode)(MemberRequest::Keys(Box::new(ring.clone())));
        let living = self.core.members().filter(|member| !member.is_gone());
        let calls = living.map(|member| {
            let node = member.identity.node;
            (node, self.line.peers.call(node, request.clone(), CALL_BUDGET))
        });
        Telling { ring, calls: calls.collect(), line: self.line.clone() }
    }

    /// Exchanges rings with a member.
    pub(super) fn exchange_keys(&mut self, with: NodeId) {
        if let Some(target) = self.target(with) {
            let request = MemberRequest::Keys(Box::new(self.keys.to_record()));
            let call = self.line.clone().call(target, request, CALL_BUDGET);
            self.spawn(async move { Outcome::Keys(call.await) });
        }
    }

    /// Takes a ring over if it is later than this node's.
    pub(super) fn merge_keys(&mut self, theirs: &KeyRingRecord) {
        if theirs.order() <= (self.keys.revision, self.keys.origin) {
            return;
        }
        if let Some(keys) = VersionedKeys::of_record(self.facts.name.clone(), theirs) {
            self.adopt_keys(keys);
        } else {
            tracing::warn!("key ring of a member is not usable");
        }
    }

    fn adopt_keys(&mut self, keys: VersionedKeys) {
        let count = keys.ring.keys().count();
        tracing::info!(
            revision = keys.revision,
            keys = count,
            primary = keys.ring.primary(),
            "key ring changed"
        );
        self.core.set_key_ring(keys.ring.clone());
        (self.on_keys)(&keys.to_record());
        self.keys = keys;
    }

    /// Changes the ring, if it still is the one of `revision`.
    pub(super) fn change_keys(
        &mut self,
        revision: u64,
        change: KeyChange,
    ) -> Result<u8, KeysError> {
        if !self.is_formed() {
            return Err(KeysError::NotFormed);
        }
        if revision != self.keys.revision {
            return Err(KeysError::Changed);
        }
        let (keys, id) = self.keys.changed(change, self.own.node)?;
        self.adopt_keys(keys);
        Ok(id)
    }
}
