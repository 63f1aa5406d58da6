//! The warm restart: what the node has is written to its snapshot file when it pauses (and every
//! `snapshot.interval`, if set), and loaded at its next start, so that only what changed meanwhile has
//! to be sent to it.

use std::sync::Arc;
use std::time::Duration;

use crate::metrics::level;
use crate::persist::{SnapshotError, SnapshotHead, SnapshotReader, SnapshotWriter, StorageError};
use crate::tasks::{Executor, Stop};
use crate::types::{Slot, WallMillis};

use super::Inner;

/// Slots that are written, and pieces that are loaded, before other tasks have their turn.
const BEFORE_A_TURN: usize = 16;

fn seconds(wall: WallMillis) -> f64 {
    Duration::from_millis(wall.0).as_secs_f64()
}

/// What a snapshot came to.
struct Written {
    keys: u64,
    bytes: u64,
}

impl Inner {
    /// Loads the snapshot file, if this node is to have one, in a task of its own. Called before this
    /// node is a member: nobody is to believe that it has nothing.
    pub(super) fn begin_warm_start(self: &Arc<Self>, control: &Executor) {
        if self.config.snapshot.enabled {
            self.shared.begin_loading();
            self.tasks.spawn_on(control, "snapshot", Arc::clone(self).load_snapshot());
        }
    }

    /// Writes the snapshot file every so often, if it is to.
    pub(super) fn begin_snapshots(self: &Arc<Self>, control: &Executor) {
        let every = self.config.snapshot.interval;
        if !every.is_zero() {
            let keeping = Arc::clone(self).keep_snapshots(every, self.tasks.stop_signal());
            self.tasks.spawn_on(control, "snapshots", keeping);
        }
    }

    /// Writes the snapshot file, if this node is to have one. A failure is logged: the node is filled
    /// by the others then.
    pub(super) async fn save_snapshot(&self) {
        if !self.config.snapshot.enabled {
            return;
        }
        let began = self.clock.now();
        match self.write_snapshot().await {
            Ok(Written { keys, bytes }) => {
                let took = self.clock.now().saturating_since(began);
                let metrics = &self.metrics.cluster;
                metrics.snapshot_written.set(seconds(self.clock.wall()));
                metrics.snapshot_bytes.set(level(usize::try_from(bytes).unwrap_or(usize::MAX)));
                tracing::info!(keys, bytes, ?took, "snapshot written");
            }
            Err(error) => tracing::error!(%error, "snapshot could not be written"),
        }
    }

    async fn write_snapshot(&self) -> Result<Written, StorageError> {
        let head = SnapshotHead {
            node: self.me,
            taken_at: self.clock.wall(),
            clock: self.shared.snapshot_clock(),
        };
        let mut writer = SnapshotWriter::begin(&*self.storage, head)?;
        let mut keys = 0;
        for slot in Slot::all() {
            keys += self.shared.snapshot_slot(slot, &mut |piece| writer.put(piece))?;
            if slot.index() % BEFORE_A_TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok(Written { keys, bytes: writer.commit()? })
    }

    /// Loads the snapshot file as far as it is good, and says so to the cluster layer.
    async fn load_snapshot(self: Arc<Self>) {
        let clock = match self.read_snapshot().await {
            Ok(clock) => clock,
            Err(error) => {
                tracing::warn!(%error, "snapshot was not loaded: the others fill this node");
                0
            }
        };
        self.shared.loaded(clock);
    }

    /// The clock of the snapshot that was loaded; 0 if there is none of use.
    async fn read_snapshot(&self) -> Result<u64, SnapshotError> {
        let Some(mut reader) = SnapshotReader::open(&*self.storage)? else { return Ok(0) };
        let (head, began) = (reader.head, self.clock.now());
        let age = self.clock.wall().0.saturating_sub(head.taken_at.0);
        // A delete is not remembered for longer than that.
        let too_old = self.members.table().facts.tombstone_grace;
        if head.node != self.me || Duration::from_millis(age) >= too_old {
            tracing::info!(age_seconds = age / 1_000, "snapshot is too old, or another node's");
            return Ok(0);
        }
        let (mut keys, mut expired, mut pieces) = (0, 0, 0);
        loop {
            // What stands before the damage is as good as the whole: all of it is compared.
            let piece = match reader.next_body() {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "the rest of the snapshot is lost");
                    break;
                }
            };
            if !self.shared.has_room() {
                tracing::warn!("memory.limit is reached: the rest of the snapshot is left out");
                break;
            }
            match self.shared.load_piece(&piece) {
                Ok(loaded) => {
                    keys += loaded.keys;
                    expired += loaded.expired;
                }
                Err(error) => tracing::warn!(%error, "a piece of the snapshot is not understood"),
            }
            pieces += 1;
            if pieces % BEFORE_A_TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
        let took = self.clock.now().saturating_since(began);
        tracing::info!(keys, expired, age_seconds = age / 1_000, ?took, "snapshot loaded");
        Ok(head.clock)
    }

    async fn keep_snapshots(self: Arc<Self>, every: Duration, mut stop: Stop) {
        loop {
            tokio::select! {
                biased;
                () = stop.stopped() => return,
                () = tokio::time::sleep(every) => self.save_snapshot().await,
            }
        }
    }
}
