//! Takes in what another holder has of slots that nobody acts for, before this node does: a compare in one
//! direction, for which a round of the reconciler waits.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot};

use crate::limits::{HOLDINGS_TIMEOUT, PULLS_AT_ONCE};
use crate::peers::CallError;
use crate::tasks;
use crate::types::{NodeId, Slot, SlotSet, Term};
use crate::wire::message::{Request, Response};

use super::Cache;
use super::compare::{DIGESTS_AT_ONCE, not_understood};

/// Slots that are taken in from one holder at a time: as many answers to `Fetch` are in memory.
const PULLS_UNDER_WAY: usize = 16;

impl Cache {
    /// Takes in what a complete holder has of slots that nobody acts for, and this node has not or has
    /// older. Gives the slots for which that was done: not more than a few that differ, because a round
    /// waits for it, and the next round goes on; and why it ended before its time, if it did.
    pub(super) async fn pull_from(
        &self,
        node: NodeId,
        slots: &SlotSet,
    ) -> (SlotSet, Result<(), CallError>) {
        let all: Vec<Slot> = slots.iter().collect();
        let (mut done, mut left) = (SlotSet::new(), PULLS_AT_ONCE);
        for chunk in all.chunks(DIGESTS_AT_ONCE) {
            let ended = self.pull_chunk(node, chunk, &mut done, &mut left).await;
            if ended.is_err() {
                return (done, ended);
            }
        }
        (done, Ok(()))
    }

    /// Takes in some slots, as far as `left` of them that differ.
    async fn pull_chunk(
        &self,
        node: NodeId,
        chunk: &[Slot],
        done: &mut SlotSet,
        left: &mut usize,
    ) -> Result<(), CallError> {
        let shared = &self.shared;
        let slots: SlotSet = chunk.iter().copied().collect();
        let request = Request::Digests { slots: slots.clone() };
        // Others wait for the slots: a holder that has died since it was heard must not hold them up.
        let answer = self.peers.call(node, request.encode(), HOLDINGS_TIMEOUT).await;
        if let Some(link) = shared.link(node) {
            shared.note_answer(&link, &answer);
        }
        let answer = answer?;
        let Some(Response::Digests(theirs)) = Response::decode(&answer) else {
            return Err(not_understood());
        };
        let mut differing = Vec::new();
        let theirs: BTreeMap<Slot, (u64, Term)> = theirs
            .into_iter()
            .filter(|it| slots.contains(it.0))
            .map(|(slot, digest, term)| (slot, (digest, term)))
            .collect();
        for (slot, (digest, _)) in &theirs {
            if shared.store.lock(*slot).header(*slot).digest() == *digest {
                done.insert(*slot);
            } else if *left > 0 {
                // The rest in the next round; those that are equal are done all the same.
                *left -= 1;
                differing.push(*slot);
            }
        }
        let (pulled, ended) = self.pull_slots(node, &differing).await;
        done.union_with(&pulled);
        for (slot, (_, term)) in theirs.into_iter().filter(|(slot, _)| done.contains(*slot)) {
            let mut shard = shared.store.lock(slot);
            let header = shard.header_mut(slot);
            header.term = header.term.max(term);
        }
        ended
    }

    /// Takes in what a holder has of some slots, and this node has not or has older: many at a time, since
    /// others wait for them. Gives those for which that was done, and why it was not for the others.
    pub(super) async fn pull_slots(
        &self,
        node: NodeId,
        slots: &[Slot],
    ) -> (SlotSet, Result<(), CallError>) {
        let turns = Arc::new(Semaphore::new(PULLS_UNDER_WAY));
        let pull = |slot: &Slot| {
            let (cache, slot, (tell, told)) = (self.clone(), *slot, oneshot::channel());
            let turns = Arc::clone(&turns);
            tasks::spawn("pull", async move {
                let pulled = match Arc::clone(&turns).acquire_owned().await {
                    Ok(_turn) => cache.pull_slot(node, slot).await,
                    Err(_) => Err(CallError::Lost),
                };
                if let Err(CallError::TimedOut | CallError::Lost | CallError::Unreachable(_)) =
                    pulled
                {
                    // A round waits for it: who has stopped answering is not asked for the rest.
                    turns.close();
                }
                let _round_may_be_gone = tell.send(pulled);
            });
            (slot, told)
        };
        let pulls: Vec<_> = slots.iter().map(pull).collect();
        let (mut done, mut ended) = (SlotSet::new(), Ok(()));
        for (slot, told) in pulls {
            match told.await.unwrap_or(Err(CallError::Lost)) {
                Ok(()) => {
                    done.insert(slot);
                }
                Err(error) => ended = Err(error),
            }
        }
        (done, ended)
    }

    async fn pull_slot(&self, node: NodeId, slot: Slot) -> Result<(), CallError> {
        let difference = self.difference(node, slot, u64::MAX).await?;
        self.fetch_from(node, slot, &difference.fetch).await
    }
}
