//! The warm restart: what the node has is written to its snapshot file when it pauses (and every
//! `snapshot.interval`, if set), and loaded at its next start, so that only what changed meanwhile has
//! to be sent to it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::metrics::level;
use crate::persist::{
    SnapshotError, SnapshotHead, SnapshotReader, SnapshotWriter, Storage, StorageError,
};
use crate::tasks::{Executor, Stop};
use crate::types::{Phase, Slot, WallMillis};

use super::Inner;

/// Pieces that are loaded before other tasks have their turn.
const BEFORE_A_TURN: usize = 4;

fn seconds(wall: WallMillis) -> f64 {
    Duration::from_millis(wall.0).as_secs_f64()
}

/// Where the snapshot file is.
pub(super) struct Disk {
    storage: Arc<dyn Storage>,
    /// Who writes or removes the file waits for it.
    turn: Semaphore,
}

impl Disk {
    /// The file in `storage`.
    pub(super) fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage, turn: Semaphore::new(1) }
    }
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
        let _one_at_a_time = self.disk.turn.acquire().await;
        let Some(clock) = self.shared.snapshot_clock() else {
            tracing::info!("the snapshot file stays as it is: it was not loaded yet");
            return;
        };
        let began = self.clock.now();
        match self.write_snapshot(clock).await {
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

    async fn write_snapshot(&self, clock: u64) -> Result<Written, StorageError> {
        let head = SnapshotHead { node: self.me, taken_at: self.clock.wall(), clock };
        let mut writer = SnapshotWriter::begin(&*self.disk.storage, head)?;
        let (mut keys, mut piece) = (0, Vec::new());
        for slot in Slot::all() {
            let mut from = Some(0);
            while let Some(hash) = from {
                piece.clear();
                let (entries, next) = self.shared.snapshot_piece(slot, hash, &mut piece);
                if !piece.is_empty() {
                    writer.put(&piece)?;
                    // Gossip goes on meanwhile.
                    tokio::task::yield_now().await;
                }
                keys += entries;
                from = next;
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
        self.retire_snapshot().await;
    }

    /// Once this node is sure of its copies the file is of the past: after a crash it would bring
    /// back what was deleted since. Where snapshots are written on and on that is what is asked for.
    async fn retire_snapshot(&self) {
        let mut views = self.shared.view_changes();
        while self.shared.view().phase != Phase::Active {
            if views.changed().await.is_err() {
                return;
            }
        }
        let _one_at_a_time = self.disk.turn.acquire().await;
        let stops = self.stopping.is_open();
        if self.config.snapshot.interval.is_zero()
            && !stops
            && let Err(error) = SnapshotReader::discard(&*self.disk.storage)
        {
            tracing::warn!(%error, "the old snapshot file could not be removed");
        }
    }

    /// The clock of the snapshot that was loaded; 0 if there is none of use.
    async fn read_snapshot(&self) -> Result<u64, SnapshotError> {
        let Some(mut reader) = SnapshotReader::open(&*self.disk.storage)? else { return Ok(0) };
        let (head, began) = (reader.head, self.clock.now());
        // Of a time to come it is as far off: one of the two clocks was wrong.
        let age = self.clock.wall().0.abs_diff(head.taken_at.0);
        // A delete is not remembered for longer than that.
        let too_old = self.members.table().facts.tombstone_grace;
        if head.node != self.me || Duration::from_millis(age) >= too_old {
            tracing::info!(age_seconds = age / 1_000, "snapshot is too old, or another node's");
            return Ok(0);
        }
        let (mut keys, mut expired, mut pieces, mut whole) = (0, 0, 0, true);
        loop {
            // What stands before the damage is as good as the whole: all of it is compared.
            let piece = match reader.next_body() {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "the rest of the snapshot is lost");
                    whole = false;
                    break;
                }
            };
            if !self.shared.has_room() {
                tracing::warn!("memory.limit is reached: the rest of the snapshot is left out");
                whole = false;
                break;
            }
            match self.shared.load_piece(&piece) {
                Ok(loaded) => {
                    keys += loaded.keys;
                    expired += loaded.expired;
                }
                Err(error) => {
                    tracing::warn!(%error, "a piece of the snapshot is not understood");
                    whole = false;
                }
            }
            pieces += 1;
            if pieces % BEFORE_A_TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
        let took = self.clock.now().saturating_since(began);
        tracing::info!(keys, expired, age_seconds = age / 1_000, ?took, "snapshot loaded");
        // A part is as good as the whole to be compared, but no node is to rely on it alone.
        Ok(if whole { head.clock } else { 0 })
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
