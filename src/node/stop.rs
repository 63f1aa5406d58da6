//! The order of stopping, as code: not ready, no new clients, slots released, goodbye, clients
//! answered, snapshot written, connections closed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::tasks::lock;
use crate::types::{Instant, Phase};

use super::Inner;

/// How long a stopping node waits between two looks at what it still holds.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How long tasks may take to end.
const TASK_GRACE: Duration = Duration::from_secs(2);

impl Inner {
    /// Keeps its place, releases its slots to the next complete replicas, and stops.
    pub(super) async fn pause(self: Arc<Self>) {
        if self.stopping.is_open() {
            return self.stopped.opened().await;
        }
        self.stopping.open();
        tracing::info!("pausing: releasing slots");
        self.listeners.stop();
        let had = Mutex::new(self.shared.acting_slots());
        self.members.set_phase(Phase::Paused).await;
        let deadline = self.clock.now() + self.config.cluster.leave_timeout;
        // Until their new nodes say that they act: an answer to a release may still be on its way.
        let awaited = self
            .wait_until(deadline, |inner| {
                // What was asked for before may come now, and must go as well.
                let expects_none = !inner.shared.is_asking();
                let mut had = lock(&had);
                had.union_with(&inner.shared.acting_slots());
                let (awaited, _) = inner.shared.unclaimed(&had);
                // With one copy of each slot the heirs are known once this node has lost its place.
                let is_paused = inner.shared.view().phase == Phase::Paused;
                (expects_none && awaited == 0 && is_paused, awaited)
            })
            .await;
        let (_, stranded) = self.shared.unclaimed(&lock(&had));
        if awaited + stranded > 0 {
            tracing::warn!(
                slots = awaited + stranded,
                "slots could not be released: nobody else has them until one of their nodes returns"
            );
        }
        self.close_clients().await;
        let left = deadline.saturating_since(self.clock.now());
        if crate::clock::within(left, self.save_snapshot()).await.is_none() {
            tracing::warn!("snapshot was not written in time: the others fill this node");
        }
        self.end().await;
    }

    /// Hands everything over, says goodbye for good, and stops. Gives the number of slots that this
    /// node alone held.
    pub(super) async fn leave(self: Arc<Self>, timeout: Option<Duration>) -> usize {
        if self.stopping.is_open() {
            self.stopped.opened().await;
            return 0;
        }
        self.stopping.open();
        tracing::info!("leaving: handing over slots");
        self.listeners.stop();
        self.members.set_phase(Phase::Leaving).await;
        let patience = timeout.unwrap_or(self.config.cluster.leave_timeout);
        let deadline = self.clock.now() + patience;
        let held = self
            .wait_until(deadline, |inner| {
                let held = inner.shared.own_held();
                (held == 0 || !inner.has_successors(), held)
            })
            .await;
        if held > 0 {
            tracing::warn!(slots = held, "slots were not handed over in time");
        }
        self.members.leave().await;
        self.close_clients().await;
        self.end().await;
        held
    }

    /// Waits until `done` says so or the deadline has passed; gives what it counted last.
    async fn wait_until(&self, deadline: Instant, done: impl Fn(&Self) -> (bool, usize)) -> usize {
        let mut last = usize::MAX;
        loop {
            let (over, count) = done(self);
            if over || self.clock.now() >= deadline {
                return count;
            }
            if count != last {
                tracing::debug!(left = count, "not done yet");
                last = count;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Whether another member is there that could take slots over.
    fn has_successors(&self) -> bool {
        let view = self.shared.view();
        view.others().any(|member| {
            matches!(member.identity.phase, Phase::Active | Phase::Joining | Phase::Returning)
        })
    }

    /// Lets clients have the answers they wait for.
    async fn close_clients(&self) {
        self.server.clients().close_all();
        let deadline = self.clock.now() + self.config.client.op_timeout;
        let clients = self
            .wait_until(deadline, |inner| {
                let connected = inner.server.clients().count();
                (connected == 0, connected)
            })
            .await;
        if clients > 0 {
            tracing::warn!(clients, "clients were cut off");
        }
    }

    /// Closes everything.
    async fn end(&self) {
        self.transport.close().await;
        self.tasks.stop_and_join(TASK_GRACE).await;
        self.stopped.open();
        tracing::info!("stopped");
    }
}
