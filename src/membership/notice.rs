//! `Removed{node, generation}`, gossiped beside foca's updates: the place of a dead member is given
//! up by a message, so that every ring changes on the same word and not by N private timers.
//!
//! Layout: kind u8 = 1, node id 16 bytes, generation u64, little-endian.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use foca::{BroadcastHandler, Invalidates};
use thiserror::Error;

use crate::membership::backchannel::SharedBackchannel;
use crate::types::{Generation, Identity, NodeId};

const KIND_REMOVED: u8 = 1;

/// The bytes of a removal notice.
pub(super) fn removed_bytes(node: NodeId, generation: Generation) -> Vec<u8> {
    let mut bytes = vec![KIND_REMOVED];
    bytes.extend_from_slice(&node.0.to_le_bytes());
    bytes.extend_from_slice(&generation.0.to_le_bytes());
    bytes
}

fn parse(bytes: &[u8]) -> Option<(NodeId, Generation)> {
    let (kind, rest) = bytes.split_first()?;
    let (node, rest) = rest.split_first_chunk::<16>()?;
    let (generation, rest) = rest.split_first_chunk::<8>()?;
    let removal = (NodeId(u128::from_le_bytes(*node)), Generation(u64::from_le_bytes(*generation)));
    (*kind == KIND_REMOVED && rest.is_empty()).then_some(removal)
}

/// A notice of a kind that this version does not know: dropped, and the packet counts as malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a notice of a known kind")]
pub(super) struct UnknownNotice;

/// Which notice replaces which: the later one about the same node.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoticeKey(NodeId, Generation);

impl Invalidates for NoticeKey {
    fn invalidates(&self, other: &Self) -> bool {
        self.0 == other.0 && self.1 >= other.1
    }
}

/// foca's handler of notices.
#[derive(Debug)]
pub(super) struct NoticeHandler {
    back: SharedBackchannel,
}

impl NoticeHandler {
    pub(super) const fn new(back: SharedBackchannel) -> Self {
        Self { back }
    }
}

impl BroadcastHandler<Identity> for NoticeHandler {
    type Key = NoticeKey;
    type Error = UnknownNotice;

    fn receive_item(
        &mut self,
        data: &[u8],
        sender: Option<&Identity>,
    ) -> Result<Option<NoticeKey>, UnknownNotice> {
        let (node, generation) = parse(data).ok_or(UnknownNotice)?;
        let news = match sender {
            None => true,
            Some(_) => self.back.with(|back| back.hear_removed(node, generation)),
        };
        Ok(news.then_some(NoticeKey(node, generation)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_read_as_it_was_written() {
        let (node, generation) = (NodeId(7 << 90), Generation(1 << 40));
        let bytes = removed_bytes(node, generation);
        assert_eq!(parse(&bytes), Some((node, generation)));
        assert_eq!(parse(&bytes[..24]), None);
        assert_eq!(parse(&[]), None);
    }
}
