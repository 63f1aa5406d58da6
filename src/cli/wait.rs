//! `status --wait`: until a node, or the cluster as it sees it, is as it should be.

use std::time::Duration;

use indicatif::ProgressBar;

use crate::admin::status::{Member, Status};
use crate::cli::args::Goal;
use crate::cli::ask::Ask;
use crate::cli::failure::Failure;
use crate::cli::look;
use crate::cli::output::Output;
use crate::clock::within;
use crate::types::MemberState;
use crate::types::units::format_span;

/// How often it is asked again.
const EVERY: Duration = Duration::from_millis(200);

/// Waits for `goal`, then shows the status; a node that does not answer yet is waited for too.
pub(super) async fn wait(
    ask: &Ask,
    goal: Goal,
    timeout: Duration,
    output: Output,
) -> Result<(), Failure> {
    let progress = ProgressBar::new_spinner();
    let mut missing = "no answer yet".to_owned();
    let reached = within(timeout, async {
        while let Err(why) = check(ask, goal).await {
            progress.set_message(why.clone());
            progress.tick();
            missing = why;
            tokio::time::sleep(EVERY).await;
        }
    })
    .await;
    progress.finish_and_clear();
    if reached.is_none() {
        let span = format_span(timeout);
        return Err(Failure::TimedOut(format!("not reached within {span}: {missing}")));
    }
    look::status(ask, output).await
}

/// Whether the goal is reached, else what is missing.
async fn check(ask: &Ask, goal: Goal) -> Result<(), String> {
    let say = |failure: Failure| failure.message().unwrap_or("failed").to_owned();
    let own: Status = ask.get("/v1/status").await.map_err(say)?;
    if !own.ready {
        return Err(not_ready(ask, &own).await);
    }
    if goal == Goal::Ready {
        return Ok(());
    }
    let members: Vec<Member> = ask.get("/v1/members").await.map_err(say)?;
    if let Some(member) = members.iter().find(|member| member.state == MemberState::Suspect) {
        return Err(format!("{} is suspect", member.name));
    }
    let others = members.iter().filter(|member| {
        member.state == MemberState::Alive && !member.is_self && member.admin.is_some()
    });
    agree(&own, &own, goal)?;
    for member in others {
        let address = member.admin.map(|address| address.to_string()).unwrap_or_default();
        let asked = Ask::tcp(&address).map_err(say)?;
        let status: Status = asked.get("/v1/status").await.map_err(say)?;
        if !status.ready {
            return Err(not_ready(&asked, &status).await);
        }
        agree(&own, &status, goal)?;
    }
    Ok(())
}

/// What a node waits for: its own reasons, else its phase.
async fn not_ready(ask: &Ask, status: &Status) -> String {
    let name = &status.node.name;
    match ask.reasons().await {
        Ok(reasons) if !reasons.is_empty() => {
            format!("{name} is not ready: {}", reasons.join("; "))
        }
        Ok(_) | Err(_) => format!("{name} is not ready ({})", status.phase),
    }
}

fn agree(own: &Status, other: &Status, goal: Goal) -> Result<(), String> {
    let name = &other.node.name;
    if other.ring.placement_id != own.ring.placement_id {
        return Err(format!("{name} has another placement than {}", own.node.name));
    }
    let lacking = other.ring.slots_under_replicated + other.ring.slots_incomplete;
    if goal == Goal::Replicated && lacking > 0 {
        return Err(format!("{lacking} slots of {name} lack a copy"));
    }
    Ok(())
}
