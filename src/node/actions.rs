//! The node as admin tells it to act.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::admin::status::{Facts, KeyChanged, KeyRow, Left};
use crate::admin::{Acted, Actions};
use crate::members::{FactsChange, KeyChange, KeysError, MemberInfo};
use crate::membership::GossipKey;
use crate::tls::Secret;
use crate::types::{MemberState, NodeId};

use super::source::{NodeSource, count, name_of, shown_facts};

impl Actions for NodeSource {
    fn leave(&self, timeout: Option<Duration>) -> Acted<'_, Left> {
        Box::pin(async move {
            let remaining = Arc::clone(&self.0).leave(timeout).await;
            Ok(Left { slots_remaining: count(remaining) })
        })
    }

    fn form(&self) -> Acted<'_, ()> {
        Box::pin(async move {
            if self.0.members.form().await {
                Ok(())
            } else {
                Err("this node is in a cluster already".to_owned())
            }
        })
    }

    fn forget(&self, member: String) -> Acted<'_, ()> {
        Box::pin(async move {
            let table = self.0.members.table();
            // Who left may have had the name before.
            let called = table.members.iter().filter(|known| is_called(known, &member));
            let found = called.min_by_key(|known| known.state == MemberState::Left);
            let Some(found) = found else {
                return Err(format!("no member is called {member:?}"));
            };
            let node = found.identity.node;
            match found.state {
                MemberState::Alive | MemberState::Suspect => Err(format!(
                    "{member} is {}: only a dead member is forgotten; \
                     `chickadee leave` there takes it out in order",
                    found.state
                )),
                MemberState::Dead if self.0.members.forget(node).await => Ok(()),
                // It came back while this was asked.
                MemberState::Dead => Err(format!("{member} is not dead any more")),
                MemberState::Left => Err(format!("{member} has left already")),
            }
        })
    }

    fn set_fact(&self, name: String, value: String) -> Acted<'_, Facts> {
        Box::pin(async move {
            let node = &self.0;
            let facts = node.members.table().facts.clone();
            let wished = node.config.with_fact(&facts, &name, &value)?;
            let change = FactsChange {
                replicas: changed(facts.replicas, wished.replicas),
                virtual_nodes: changed(facts.virtual_nodes, wished.virtual_nodes),
                ring_grace: changed(facts.ring_grace, wished.ring_grace),
                tombstone_grace: changed(facts.tombstone_grace, wished.tombstone_grace),
            };
            if change == FactsChange::default() {
                return Ok(shown_facts(&facts));
            }
            let set = node.members.set_facts(change).await.map_err(|error| error.to_string())?;
            Ok(shown_facts(&set))
        })
    }

    fn keys(&self) -> Acted<'_, Vec<KeyRow>> {
        Box::pin(async move {
            let keys = self.0.members.keys().await.ok_or("the node is stopping")?;
            let rows = keys.ring.keys().map(|(id, key)| KeyRow {
                id,
                primary: id == keys.ring.primary(),
                fingerprint: key.fingerprint(),
            });
            Ok(rows.collect())
        })
    }

    fn add_key(&self, contents: Bytes) -> Acted<'_, KeyChanged> {
        Box::pin(async move {
            let secret = Secret::parse(&contents).map_err(|error| error.to_string())?;
            let key = GossipKey::new(*secret.gossip_key(&self.0.config.cluster.name));
            self.change_keys(KeyChange::Add(key)).await
        })
    }

    fn use_key(&self, id: u8) -> Acted<'_, KeyChanged> {
        Box::pin(self.change_keys(KeyChange::Use(id)))
    }

    fn remove_key(&self, id: u8) -> Acted<'_, KeyChanged> {
        Box::pin(self.change_keys(KeyChange::Remove(id)))
    }
}

impl NodeSource {
    async fn change_keys(&self, change: KeyChange) -> Result<KeyChanged, String> {
        let named = |nodes: Vec<NodeId>| -> Vec<String> {
            nodes.into_iter().map(|node| self.name(node)).collect()
        };
        match self.0.members.change_keys(change).await {
            Ok(changed) => Ok(KeyChanged { id: changed.id, late: named(changed.late) }),
            Err(KeysError::Unconfirmed(nodes)) => Err(format!(
                "these members do not have this node's key ring yet, try again: {}",
                named(nodes).join(", ")
            )),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Whether people mean this member by `word`: its name, or its id.
fn is_called(member: &MemberInfo, word: &str) -> bool {
    name_of(member) == word || member.identity.node.to_string() == word
}

fn changed<T: Copy + PartialEq>(before: T, after: T) -> Option<T> {
    (before != after).then_some(after)
}
