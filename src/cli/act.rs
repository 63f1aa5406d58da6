//! Verbs that make a node act, through its socket.

use std::pin::pin;
use std::time::Duration;

use crate::admin::status::{Facts, Left, Status};
use crate::cli::ask::{Ask, query_escaped};
use crate::cli::failure::Failure;
use crate::cli::look::facts_page;
use crate::cli::output::{self, Output, Page};
use crate::config::keys;
use crate::config::settings::find;
use crate::types::Phase;
use crate::types::units::{format_span, parse_span};

/// What an action may take beyond the time that the node gives itself.
const SLACK: Duration = Duration::from_secs(10);

/// How often a node that was told to leave is asked whether it does.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// `leave`: exit 1 if slots remained whose only copy went with the node.
pub(super) async fn leave(
    ask: &Ask,
    timeout: Option<Duration>,
    output: Output,
) -> Result<(), Failure> {
    let default = find(keys::LEAVE_TIMEOUT).and_then(|row| parse_span(row.default).ok());
    // The node may have been given a longer time than the default: it is the one that knows.
    let patience = timeout.or_else(|| default.map(|span| span * 4)).unwrap_or(SLACK) + SLACK;
    let path = match timeout {
        Some(span) => format!("/v1/leave?timeout={}", format_span(span)),
        None => "/v1/leave".to_owned(),
    };
    let mut asked = pin!(ask.post::<Left>(&path, patience));
    let left = tokio::select! {
        biased;
        // Gone, refused, or left at once: there is no progress to tell of.
        done = &mut asked => done?,
        () = leaving(ask) => {
            output::note("leaving: slots are handed over");
            asked.await?
        }
    };
    let json = serde_json::json!({ "slots_remaining": left.slots_remaining });
    let rows = vec![vec!["left".to_owned()]];
    output.page(&Page { json, head: &[], rows })?;
    match left.slots_remaining {
        0 => Ok(()),
        slots => Err(Failure::Failed(format!("{slots} slots had no other complete copy"))),
    }
}

/// Waits until the node says that it is leaving; for ever, if it does not.
async fn leaving(ask: &Ask) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let status = ask.get::<Status>("/v1/status").await;
        if status.is_ok_and(|status| status.phase == Phase::Leaving) {
            return;
        }
    }
}

/// `form`.
pub(super) async fn form(ask: &Ask, output: Output) -> Result<(), Failure> {
    let _nothing_to_say: serde_json::Value = ask.post("/v1/form", SLACK).await?;
    let json = serde_json::json!({ "formed": true });
    output.page(&Page { json, head: &[], rows: vec![vec!["formed".to_owned()]] })
}

/// `forget`.
pub(super) async fn forget(ask: &Ask, member: &str, output: Output) -> Result<(), Failure> {
    let path = format!("/v1/forget?member={}", query_escaped(member));
    let _nothing_to_say: serde_json::Value = ask.post(&path, SLACK).await?;
    let json = serde_json::json!({ "forgotten": member });
    output.page(&Page { json, head: &[], rows: vec![vec![format!("forgot {member}")]] })
}

/// `cluster set`: prints the facts as they are then.
pub(super) async fn set_fact(
    ask: &Ask,
    (key, value): (&str, &str),
    output: Output,
) -> Result<(), Failure> {
    let (name, value) = (query_escaped(key), query_escaped(value));
    let facts: Facts = ask.post(&format!("/v1/cluster?name={name}&value={value}"), SLACK).await?;
    output.page(&facts_page(&facts))
}
