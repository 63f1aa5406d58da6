//! What the service manager is told (`sd_notify(3)`): that the node is ready, how it goes, that it
//! needs longer, and that it is healthy. Without a manager nothing is said.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
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
/// A node may take a third of the watchdog's time to show that it is healthy.
const WATCHDOG_PART: u32 = 3;
/// A node that starts or stops asks for so much longer each time.
const LONGER: Duration = Duration::from_secs(30);
/// A node that looks for its cluster and has nothing of it counts as started after this time: hosts
/// may be installed one after the other.
const ALONE: Duration = Duration::from_secs(10);
/// A stop that gets nowhere asks for longer for so many looks beyond its time.
const STOP_LOOKS: u32 = 60;

/// The service manager.
#[derive(Default)]
pub(super) struct Manager {
    is_ready: AtomicBool,
}

impl Manager {
    /// Tells of a node until `life` ends. A stop may take `patience`.
    pub(super) async fn tell(
        &self,
        node: &Node,
        patience: Duration,
        life: impl Future<Output = ()>,
    ) {
        if std::env::var_os(NOTIFY_VARIABLE).is_none() {
            return life.await;
        }
        let mut teller = Teller::new(self, patience);
        let alone = tokio::time::sleep(ALONE);
        tokio::pin!(life, alone);
        loop {
            teller.tell(node);
            tokio::select! {
                biased;
                () = &mut life => return,
                // Told at once: a stop may be over before the next look.
                () = node.told_to_stop(), if !teller.is_stopping => {}
                () = &mut alone, if !teller.has_waited => teller.has_waited = true,
                () = async {
                    teller.feed(node).await;
                    tokio::time::sleep(EVERY).await;
                } => {}
            }
        }
    }

    /// The settings are being read again. Before it is ready, and when it stops, the manager waits for
    /// something else.
    pub(super) fn reloading(&self, node: &Node) {
        if !self.is_served_by(node) {
            return;
        }
        match NotifyState::monotonic_usec_now() {
            Ok(now) => say(&[NotifyState::Reloading, now]),
            Err(error) => debug!(%error, "no monotonic clock"),
        }
    }

    /// The settings were read again, or stay as they were.
    pub(super) fn reloaded(&self, node: &Node) {
        if self.is_served_by(node) {
            say(&[NotifyState::Ready]);
        }
    }

    fn is_served_by(&self, node: &Node) -> bool {
        self.is_ready.load(Ordering::Relaxed) && !node.is_stopping()
    }
}

struct Teller<'a> {
    manager: &'a Manager,
    /// Looks at a stop that count as its own time.
    stop_looks: u32,
    /// Looks since the stop began, or since something changed after its time.
    looks: u32,
    has_waited: bool,
    is_stuck: bool,
    is_stopping: bool,
    status: String,
}

impl<'a> Teller<'a> {
    fn new(manager: &'a Manager, patience: Duration) -> Self {
        let looks = patience.as_millis() / EVERY.as_millis();
        Self {
            manager,
            stop_looks: u32::try_from(looks).unwrap_or(u32::MAX).saturating_add(STOP_LOOKS),
            looks: 0,
            has_waited: false,
            is_stuck: false,
            is_stopping: false,
            status: String::new(),
        }
    }

    fn tell(&mut self, node: &Node) {
        let (status, reasons) = (node.status(), node.reasons());
        let mut news = Vec::new();
        let stops = node.is_stopping();
        if stops && !self.is_stopping {
            self.is_stopping = true;
            news.push(NotifyState::Stopping);
        }
        let waits = self.has_waited && node.has_nothing_to_lose();
        let mut starts = !self.manager.is_ready.load(Ordering::Relaxed);
        if starts && !stops && (reasons.is_empty() || waits) {
            self.manager.is_ready.store(true, Ordering::Relaxed);
            news.push(NotifyState::Ready);
            // More time would be given to the watchdog as well.
            starts = false;
        }
        let line = line(&status, &reasons, stops);
        let changed = line != self.status;
        if changed {
            self.status = line;
            news.push(NotifyState::Status(&self.status));
        }
        self.looks += u32::from(stops);
        if changed {
            self.looks = self.looks.min(self.stop_looks - STOP_LOOKS);
        }
        let goes_on = if stops { self.looks < self.stop_looks } else { starts && !self.is_stuck };
        if goes_on {
            let micros = u32::try_from(LONGER.as_micros()).unwrap_or(u32::MAX);
            news.push(NotifyState::ExtendTimeoutUsec(micros));
        }
        say(&news);
    }

    /// Tells that the node is healthy, if all of its parts answer. A node that stops ends its parts.
    async fn feed(&mut self, node: &Node) {
        let Some(watchdog) = sd_notify::watchdog_enabled() else { return };
        if node.is_stopping() {
            return say(&[NotifyState::Watchdog]);
        }
        let pulse = node.pulse(watchdog / WATCHDOG_PART).await;
        self.is_stuck = pulse.is_err();
        match pulse {
            Ok(()) => say(&[NotifyState::Watchdog]),
            Err(stuck) => {
                warn!("{stuck} did not answer, the service manager is not told that all is well");
            }
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
