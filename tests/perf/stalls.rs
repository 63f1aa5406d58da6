//! The longest single calls of the local store, in CPU time of the thread, so that what the machine
//! does beside it does not count: `cargo bench --bench stalls`.
//!
//! Three loads, each of millions of calls with one lock held for each: churn at the budget with sizes
//! that drift, a million values that expire at once, and a hash tag that grows to two million keys.
//!
//! Beside each call of the churn as much arithmetic is timed that touches no memory: where the thread of a
//! virtual machine is stopped its CPU time goes on, and what that adds shows there.

#![expect(clippy::missing_docs_in_private_items, clippy::print_stdout, reason = "a benchmark")]

use std::hint::black_box;
use std::time::Duration;

use chickadee::ring::slot_of;
use chickadee::store::{Policy, Remains, Store, StoreOptions};
use chickadee::types::{BodyRef, ByteSize, RecordRef, Slot, Version, WallMillis};
use rustix::time::{ClockId, clock_gettime};

const CALLS: u64 = 10_000_000;
const EXPIRING: u64 = 1_000_000;
const OF_ONE_TAG: u64 = 2_000_000;
/// What one sweep looks at, as the node does.
const SWEEP_STEP: usize = 512;
const DUE: WallMillis = WallMillis(2_000_000);

/// How long each call took.
struct Spans(Vec<u32>);

impl Spans {
    const fn new() -> Self {
        Self(Vec::new())
    }

    fn time<T>(&mut self, call: impl FnOnce() -> T) -> T {
        let began = thread_time();
        let result = call();
        let span = thread_time().saturating_sub(began);
        self.0.push(u32::try_from(span.as_nanos()).unwrap_or(u32::MAX));
        result
    }

    /// Prints the median, high quantiles and the longest, in microseconds.
    fn tell(mut self, what: &str) {
        self.0.sort_unstable();
        let last = self.0.len() - 1;
        let at = |parts_in_ten_million: usize| {
            let index = last - last * parts_in_ten_million / 10_000_000;
            f64::from(self.0[index]) / 1_000.0
        };
        let over = self.0.iter().filter(|span| **span > 1_000_000).count();
        println!(
            "{what}: {} calls; median {:.2} us, 99.9 % {:.1}, 99.9999 % {:.1}, longest {:.1}; {over} over 1 ms",
            self.0.len(),
            at(5_000_000),
            at(10_000),
            at(10),
            at(0),
        );
    }
}

fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    let nanos = u32::try_from(now.tv_nsec).unwrap_or_default();
    Duration::new(u64::try_from(now.tv_sec).unwrap_or_default(), nanos)
}

fn store(limit: u64) -> Store {
    let limit = ByteSize(limit);
    let policy = Policy::Evict;
    let options = StoreOptions { shards: 64, limit, policy, digest_seed: 1, hash_seed: 2, slot_of };
    let store = Store::new(options);
    for slot in Slot::all() {
        store.lock(slot).header_mut(slot).acting = true;
    }
    store
}

/// Writes as the node does, under one lock.
fn write(store: &Store, name: &str, clock: u64, value: &[u8], expires_at: Option<WallMillis>) {
    let key = [&[0], name.as_bytes()].concat();
    let slot = slot_of(name.as_bytes());
    let version = Version { term: 1, clock, origin: 1 };
    let record = RecordRef { key: &key, version, expires_at, body: BodyRef::String(value) };
    let mut shard = store.lock(slot);
    shard.go_ahead(&mut |_| Remains::Nothing);
    let need = shard.room_for(slot, &record);
    if shard.make_room(need, &mut |_| Remains::Nothing) {
        shard.put(slot, record);
    }
}

/// Numbers that look drawn (`SplitMix64`).
const fn mixed(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// What a machine that is left alone takes about as long for as for a call of the churn.
fn arithmetic(seed: u64) -> u64 {
    (0..1_000).fold(seed, |number, _| mixed(number))
}

fn churn() {
    let store = store(512 << 20);
    let value = vec![7; 2_048];
    let means = [61, 190, 675, 56, 790];
    let (mut spans, mut control) = (Spans::new(), Spans::new());
    for call in 0..CALLS {
        control.time(|| black_box(arithmetic(black_box(call))));
        let drawn = mixed(call);
        let mean = means[usize::try_from(call * 5 / CALLS).unwrap_or_default()];
        let length = usize::try_from(drawn >> 40).unwrap_or_default() % (2 * mean);
        let name = format!("key:{:016}", drawn % 5_500_000);
        spans.time(|| write(&store, &name, call + 1, &value[..length], None));
    }
    spans.tell("churn at 512 MiB, sets");
    control.tell("beside them, arithmetic alone");
}

fn mass_expiry() {
    let store = store(1 << 30);
    for number in 0..EXPIRING {
        write(&store, &format!("key:{number:016}"), number + 1, &[7; 100], Some(DUE));
    }
    let mut spans = Spans::new();
    let (mut left, now) = (EXPIRING, WallMillis(DUE.0 + 1_000));
    while left > 0 {
        for index in 0..store.shards() {
            let gone = spans
                .time(|| store.lock_shard(index).sweep(now, SWEEP_STEP, &mut |_| Remains::Nothing));
            left -= gone as u64;
            while spans.time(|| store.lock_shard(index).tidy(&mut |_| Remains::Nothing)) {}
        }
    }
    spans.tell("a million values due at once, sweeps and cleaning");
}

fn one_tag() {
    let store = store(2 << 30);
    let mut spans = Spans::new();
    for number in 0..OF_ONE_TAG {
        let name = format!("{{tag}}:{number:016}");
        spans.time(|| write(&store, &name, number + 1, &[7; 32], None));
    }
    spans.tell("two million keys of one hash tag, sets");
    let (slot, mut spans, mut from, mut entries) = (slot_of(b"{tag}"), Spans::new(), Some(0), 0);
    while let Some(hash) = from {
        from = spans.time(|| store.lock(slot).scan(slot, hash, 256, &mut |_, _| entries += 1));
    }
    assert_eq!(entries, OF_ONE_TAG, "the walk sees every key");
    spans.tell("the walk over them");
    let mut spans = Spans::new();
    let floor = Version { term: 2, clock: OF_ONE_TAG + 1, origin: 1 };
    spans.time(|| store.lock(slot).set_floor(slot, None, floor));
    while spans.time(|| store.lock(slot).free_garbage()) {}
    spans.tell("their flush");
}

fn main() {
    churn();
    mass_expiry();
    one_tag();
}
