//! Marks: for each other holder of a slot the clock up to which it was proved equal to the acting
//! node. They live in the slot's header, under the shard lock.

use crate::store::SlotHeader;
use crate::types::NodeId;

/// The mark of a holder; 0 if none was proved.
pub(super) fn get(header: &SlotHeader, holder: NodeId) -> u64 {
    header.marks.iter().find(|(node, _)| *node == holder).map_or(0, |(_, mark)| *mark)
}

/// The clock up to which this node's silence counts against what a holder has: its mark, or where
/// tombstones are gone that it may not have seen.
pub(super) fn silence(header: &SlotHeader, holder: NodeId) -> u64 {
    get(header, holder).max(header.forgotten)
}

/// A fill or compare proved the holder equal up to `clock`.
pub(super) fn raise(header: &mut SlotHeader, holder: NodeId, clock: u64) {
    if let Some((_, mark)) = header.marks.iter_mut().find(|(node, _)| *node == holder) {
        *mark = (*mark).max(clock);
    } else {
        header.marks.reserve_exact(1);
        header.marks.push((holder, clock));
    }
}

/// Whoever begins to act takes for each holder the lower of its own mark and the one it was told.
pub(super) fn inherit(header: &mut SlotHeader, told: &[(NodeId, u64)]) {
    if header.marks.is_empty() {
        header.marks.extend_from_slice(told);
        return;
    }
    header.marks.retain_mut(|(node, mark)| {
        let other = told.iter().find(|(holder, _)| holder == node).map_or(0, |(_, mark)| *mark);
        *mark = (*mark).min(other);
        *mark > 0
    });
}

/// The highest mark: the acting node stamps above it.
pub(super) fn highest(header: &SlotHeader) -> u64 {
    header.marks.iter().map(|(_, mark)| *mark).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_begins_to_act_believes_the_lower_mark() {
        let mut header = SlotHeader::default();
        raise(&mut header, NodeId(1), 10);
        raise(&mut header, NodeId(2), 20);
        raise(&mut header, NodeId(2), 15);
        assert_eq!((get(&header, NodeId(2)), highest(&header)), (20, 20));
        inherit(&mut header, &[(NodeId(1), 30), (NodeId(2), 5)]);
        assert_eq!((get(&header, NodeId(1)), get(&header, NodeId(2))), (10, 5));
        inherit(&mut header, &[(NodeId(1), 30)]);
        assert_eq!(get(&header, NodeId(2)), 0);
        header.forgotten = 7;
        assert_eq!((silence(&header, NodeId(1)), silence(&header, NodeId(2))), (10, 7));
    }
}
