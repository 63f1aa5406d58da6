//! What a member record from another node's push-pull changes here.
//!
//! The rule exists for healed partitions: each half holds the other for dead, and taking over the
//! other's dead would kill both. So a *dead* and an *alive* of the same generation are settled by
//! the member itself, which is told to renew; only what is newer, unknown, or said by the member
//! itself (*left*) is taken over.

use std::cmp::Ordering;

use crate::membership::identity::order;
use crate::membership::member::Member;
use crate::types::{MemberRecord, MemberState};

/// What to do with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Hand it to foca.
    Apply,
    /// One side holds the member for dead, the other for alive: tell it to renew.
    Dispute,
    /// Nothing new.
    Ignore,
}

/// Judges a record about a member that is not this node.
pub(super) fn judge(ours: Option<&Member>, theirs: &MemberRecord) -> Verdict {
    let Some(ours) = ours else { return Verdict::Apply };
    let theirs_gone = matches!(theirs.state, MemberState::Dead | MemberState::Left);
    // At one incarnation a suspicion outweighs the older word that the member is alive.
    let later = theirs.incarnation > ours.incarnation
        || (theirs.incarnation == ours.incarnation
            && (ours.state, theirs.state) == (MemberState::Alive, MemberState::Suspect));
    match order(&theirs.identity, &ours.identity) {
        Ordering::Greater => Verdict::Apply,
        Ordering::Equal if theirs.state == MemberState::Left && !ours.is_gone() => Verdict::Apply,
        Ordering::Equal if ours.state == MemberState::Left => Verdict::Ignore,
        Ordering::Equal if theirs_gone != ours.is_gone() => Verdict::Dispute,
        Ordering::Equal if !theirs_gone && later => Verdict::Apply,
        Ordering::Equal | Ordering::Less => Verdict::Ignore,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::tests::{identity, member, record};
    use crate::types::{Identity, Phase};

    use MemberState::{Alive, Dead, Left, Suspect};

    #[test]
    fn an_unknown_or_newer_member_is_taken_over() {
        for state in MemberState::ALL {
            assert_eq!(judge(None, &record(identity(1, 5), state)), Verdict::Apply);
            for ours in MemberState::ALL {
                let ours = member(identity(1, 4), ours);
                assert_eq!(judge(Some(&ours), &record(identity(1, 5), state)), Verdict::Apply);
            }
        }
    }

    #[test]
    fn a_newer_revision_counts_as_newer() {
        let ours = member(identity(1, 5), Dead);
        let theirs = Identity { revision: 1, ..identity(1, 5) };
        assert_eq!(judge(Some(&ours), &record(theirs, Alive)), Verdict::Apply);
    }

    #[test]
    fn an_older_record_is_ignored() {
        let ours = member(identity(1, 5), Alive);
        assert_eq!(judge(Some(&ours), &record(identity(1, 4), Dead)), Verdict::Ignore);
    }

    #[test]
    fn dead_against_alive_is_settled_by_the_member() {
        let same = identity(1, 5);
        for (ours, theirs) in [(Alive, Dead), (Suspect, Dead), (Dead, Alive), (Dead, Suspect)] {
            let ours = member(same.clone(), ours);
            assert_eq!(judge(Some(&ours), &record(same.clone(), theirs)), Verdict::Dispute);
        }
    }

    #[test]
    fn what_is_known_already_is_no_news() {
        let (ours, theirs) = (member(identity(1, 5), Alive), record(identity(1, 5), Alive));
        assert_eq!(judge(Some(&ours), &theirs), Verdict::Ignore);
        let suspected = record(identity(1, 5), Suspect);
        assert_eq!(judge(Some(&ours), &suspected), Verdict::Apply);
        let refuted = MemberRecord { incarnation: 1, ..theirs };
        assert_eq!(judge(Some(&member(identity(1, 5), Suspect)), &refuted), Verdict::Apply);
    }

    #[test]
    fn left_is_the_members_own_word() {
        let leaving = Identity { phase: Phase::Leaving, ..identity(1, 5) };
        let ours = member(leaving.clone(), Alive);
        assert_eq!(judge(Some(&ours), &record(leaving.clone(), Left)), Verdict::Apply);
        let ours = member(leaving.clone(), Left);
        assert_eq!(judge(Some(&ours), &record(leaving, Alive)), Verdict::Ignore);
    }
}
