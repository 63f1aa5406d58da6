//! Whether a node that asks to join is let in.

use crate::members::push_pull::Metas;
use crate::membership::{Member, Membership};
use crate::types::{ClusterFacts, Identity, MemberState, NodeId, NodeMeta, Phase};
use crate::wire::member::{Join, MEMBER_PROTOCOL, Refusal};

/// Checks what a starter can check as well: that both mean the same cluster.
pub(super) fn same_cluster(join: &Join, facts: &ClusterFacts) -> Result<(), Refusal> {
    if join.protocol != MEMBER_PROTOCOL {
        return Err(Refusal::OtherProtocol { theirs: MEMBER_PROTOCOL, yours: join.protocol });
    }
    if join.cluster != facts.name {
        return Err(Refusal::OtherCluster {
            theirs: facts.name.clone(),
            yours: join.cluster.clone(),
        });
    }
    Ok(())
}

/// Checks a join against the members; says which dead member of the same name it replaces.
pub(super) fn admit(
    join: &Join,
    core: &Membership,
    own: &NodeMeta,
    metas: &Metas,
) -> Result<Option<NodeId>, Refusal> {
    let joiner = &join.identity;
    // A member that paused said that it stops; whoever comes back under its id with a later
    // generation is that node after its restart, wherever its sockets are now.
    let restarted =
        |member: &Identity| member.phase == Phase::Paused && member.generation < joiner.generation;
    let same_id =
        core.member(joiner.node).filter(|member| !member.is_gone() && !restarted(&member.identity));
    let holder = same_id
        .map(|member| member.identity.gossip)
        .or_else(|| (joiner.node == own.node).then(|| core.identity().gossip));
    if let Some(holder) = holder.filter(|holder| *holder != joiner.gossip) {
        return Err(Refusal::IdInUse { node: joiner.node, holder, yours: joiner.gossip });
    }
    let mut replaced = None;
    let others = core.members().filter_map(|member| {
        let meta: &NodeMeta = metas.get(member.identity.node)?;
        (meta.node != joiner.node).then_some((Some(member), meta))
    });
    for (member, meta) in others.chain(std::iter::once((None, own))) {
        let gone = member.is_some_and(Member::is_gone);
        if meta.name == join.meta.name && meta.node != joiner.node {
            if !gone {
                return Err(Refusal::NameTaken {
                    name: meta.name.clone(),
                    holder: meta.peer,
                    yours: join.meta.peer,
                });
            }
            if member.is_some_and(|member| member.state == MemberState::Dead) {
                replaced = Some(meta.node);
            }
        }
        if let (Some(theirs), Some(yours)) = (&meta.zone, &join.meta.zone)
            && !gone
            && theirs != yours
            && theirs.tag() == yours.tag()
        {
            return Err(Refusal::ZoneClash { theirs: theirs.clone(), yours: yours.clone() });
        }
    }
    Ok(replaced)
}
