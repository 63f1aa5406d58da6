//! What the service manager is told (`sd_notify(3)`): that the node is ready, how it goes, that it
//! needs longer, and that it is healthy. Without a manager nothing is said.

use std::future::Future;
use std::time::Duration;

use sd_notify::{NotifyState, notify};
use tracing::{debug, warn};

use crate::admin::status::Status;
use crate::node::Node;
use crate::types::Phase;

/// Where the service manager listens.
pub(super) const NOTIFY_VARIABLE: &str = "NOTIFY_SOCKET";

/// How often it is told.
const EVERY: Duration = Duration::from_millis(500);
/// How long a part of the node may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// A node that starts or stops asks for so much longer each time.
const LONGER: Duration = Duration::from_secs(15);
/// A node that looks for its cluster and has nothing of it counts as started after so many looks: hosts
/// may be installed one after the other.
const ALONE_LOOKS: u32 = 20;

/// Tells of a node until `life` ends.
pub(super) async fn tell(node: &Node, life: impl Future<Output = ()>) {
    if std::env::var_os(NOTIFY_VARIABLE).is_none() {
        return life.await;
    }
    let mut teller = Teller::default();
    tokio::pin!(life);
    loop {
        teller.tell(node);
        tokio::select! {
            biased;
            () = &mut life => return,
            // Told at once: a stop may be over before the next look.
            () = node.told_to_stop(), if !teller.is_stopping => {}
            () = async {
                teller.feed(node).await;
                tokio::time::sleep(EVERY).await;
            } => {}
        }
    }
}

/// The settings are being read again.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => say(&[NotifyState::Reloading, now]),
        Err(error) => debug!(%error, "no monotonic clock"),
    }
}

/// The settings were read again, or stay as they were.
pub(super) fn reloaded() {
    say(&[NotifyState::Ready]);
}

#[derive(Default)]
struct Teller {
    is_ready: bool,
    is_stopping: bool,
    looks: u32,
    status: String,
}

impl Teller {
    fn tell(&mut self, node: &Node) {
        let (status, reasons) = (node.status(), node.reasons());
        let mut news = Vec::new();
        let stops = node.is_stopping();
        if stops && !self.is_stopping {
            self.is_stopping = true;
            news.push(NotifyState::Stopping);
        }
        self.looks = self.looks.saturating_add(1);
        let waits = self.looks > ALONE_LOOKS && node.has_nothing_to_lose();
        if !self.is_ready && !stops && (reasons.is_empty() || waits) {
            self.is_ready = true;
            news.push(NotifyState::Ready);
        }
        if !self.is_ready || stops {
            let micros = u32::try_from(LONGER.as_micros()).unwrap_or(u32::MAX);
            news.push(NotifyState::ExtendTimeoutUsec(micros));
        }
        let line = line(&status, &reasons, stops);
        if line != self.status {
            self.status = line;
            news.push(NotifyState::Status(&self.status));
        }
        say(&news);
    }

    /// Tells that the node is healthy, if all of its parts answer. A node that stops ends its parts.
    async fn feed(&self, node: &Node) {
        if sd_notify::watchdog_enabled().is_none() {
            return;
        }
        match node.pulse(PATIENCE).await {
            Err(stuck) if !node.is_stopping() => {
                warn!("{stuck} did not answer, the service manager is not told that all is well");
            }
            Ok(()) | Err(_) => say(&[NotifyState::Watchdog]),
        }
    }
}

fn say(news: &[NotifyState<'_>]) {
    if !news.is_empty()
        && let Err(error) = notify(news)
    {
        debug!(%error, "the service manager was not told");
    }
}

/// The status in one line.
fn line(status: &Status, reasons: &[String], stops: bool) -> String {
    let ring = &status.ring;
    if stops {
        let to_do = if status.phase == Phase::Leaving { "leaving" } else { "pausing" };
        return format!("{to_do}: acting for {} slots", ring.slots_acting);
    }
    if !reasons.is_empty() {
        return reasons.join("; ");
    }
    let members = &status.members;
    format!(
        "serving: {} alive, {} suspect; owner of {} slots, replica of {}, {} without all copies",
        members.alive,
        members.suspect,
        ring.slots_owned,
        ring.slots_replica,
        ring.slots_under_replicated
    )
}
