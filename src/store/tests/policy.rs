//! The eviction against S3-FIFO as published, where each entry counts alike and nothing is lost to
//! pages: a store of the same number of bytes must find nearly as much.
//!
//! `CHICKADEE_TRACES` may name a folder of traces (`NAME.csv`): a first line that ends with `cols=key`, then one key a
//! line; each is replayed at a hundredth and a tenth of its keys, and the figures are printed. Others are left out.

use std::collections::{HashMap, VecDeque};
use std::io::Write as _;

use super::room::{mixed, put_with_room};
use super::*;

/// Bytes of every value.
const VALUE: usize = 200;
/// What an entry costs beside key and value, table and ghost included.
const BESIDE: usize = 30;
/// By how much the hit ratio may be lower, in hundredths of a percent: three pages are always
/// on their way from one thing to another, which of few pages is much.
fn loss_max(capacity: usize) -> i64 {
    if capacity < 1_800 { 150 } else { 60 }
}

/// S3-FIFO over a number of entries, a tenth of them in the small queue.
struct Reference {
    capacity: usize,
    small: VecDeque<u64>,
    main: VecDeque<u64>,
    ghost: VecDeque<(u64, u64)>,
    /// When each key of the ghost was evicted last.
    remembered: HashMap<u64, u64>,
    evicted: u64,
    uses: HashMap<u64, u8>,
}

impl Reference {
    fn new(capacity: usize) -> Self {
        Self {
            capacity,
            small: VecDeque::new(),
            main: VecDeque::new(),
            ghost: VecDeque::new(),
            remembered: HashMap::new(),
            evicted: 0,
            uses: HashMap::new(),
        }
    }

    /// Asks for a key, and takes it in where it is not there.
    fn hits(&mut self, key: u64) -> bool {
        if let Some(uses) = self.uses.get_mut(&key) {
            *uses = (*uses + 1).min(3);
            return true;
        }
        while self.uses.len() >= self.capacity {
            if self.small.len() >= (self.capacity / 10).max(1) {
                self.evict_small();
            } else {
                self.evict_main();
            }
        }
        let came_back = self.remembered.remove(&key).is_some();
        let queue = if came_back { &mut self.main } else { &mut self.small };
        queue.push_back(key);
        self.uses.insert(key, 0);
        false
    }

    fn evict_small(&mut self) {
        let Some(key) = self.small.pop_front() else { return };
        if self.uses[&key] >= 2 {
            self.main.push_back(key);
            self.uses.insert(key, 0);
            return;
        }
        self.uses.remove(&key);
        self.evicted += 1;
        self.ghost.push_back((key, self.evicted));
        self.remembered.insert(key, self.evicted);
        if self.ghost.len() > self.capacity * 9 / 10
            && let Some((forgotten, at)) = self.ghost.pop_front()
            && self.remembered.get(&forgotten) == Some(&at)
        {
            self.remembered.remove(&forgotten);
        }
    }

    fn evict_main(&mut self) {
        let Some(key) = self.main.pop_front() else { return self.evict_small() };
        match self.uses[&key] {
            0 => drop(self.uses.remove(&key)),
            uses => {
                self.main.push_back(key);
                self.uses.insert(key, uses - 1);
            }
        }
    }
}

/// Hit ratios of the store at the bytes of so many entries, and of the reference, in hundredths of a
/// percent.
fn ratios(trace: &[u64], capacity: usize, of_reference: usize) -> (i64, i64) {
    let beside = BESIDE + key_in(slot(10), 50_000).stored().len();
    let limit = (capacity * (VALUE + beside)) as u64;
    let store = store(1, limit, Policy::Evict);
    let mut reference = Reference::new(of_reference);
    let (mut ours, mut theirs) = (0, 0);
    for (number, key) in (1..).zip(trace) {
        let of = slot(u16::try_from(key % 10 + 10).unwrap());
        let name = key_in(of, *key);
        let found = store.lock(of).get(of, name.stored(), WallMillis(0)).is_some();
        if !found {
            assert!(put_with_room(&store, of, &sized(&name, number, VALUE)));
        }
        ours += i64::from(found);
        theirs += i64::from(reference.hits(*key));
    }
    let share = |hits: i64| hits * 10_000 / i64::try_from(trace.len()).unwrap();
    (share(ours), share(theirs))
}

/// Half the requests go to keys of which few are asked for often, a fifth are scans, the rest walks a
/// working set that moves on.
fn mixed_trace(length: u64) -> Vec<u64> {
    let of = |number: u64| {
        let random = mixed(number);
        match random % 10 {
            0..5 => (random >> 20) % (1 << ((random >> 8) % 15)),
            5..7 => 1_000_000 + number,
            _ => 100_000 + number / 100 + (random >> 40) % 3_000,
        }
    };
    (0..length).map(of).collect()
}

/// What a store has not for entries are the pages that are on their way from one thing to another.
#[test]
fn the_store_finds_nearly_as_much_as_the_published_policy_with_a_tenth_less() {
    for capacity in [1_500, 6_000] {
        let trace = mixed_trace(300_000);
        let (ours, reference) = ratios(&trace, capacity, capacity * 9 / 10);
        assert!(ours > reference - 150, "{capacity} entries: {ours}, {reference}");
        assert!(ours > 3_000, "{ours}");
    }
}

#[test]
fn traces_are_replayed_where_there_are_some() {
    let Some(folder) = std::env::var_os("CHICKADEE_TRACES") else { return };
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "csv"));
    files.sort();
    assert!(!files.is_empty(), "the folder has traces");
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        if !text.lines().next().is_some_and(|head| head.ends_with("cols=key")) {
            writeln!(std::io::stderr(), "left out, more than keys: {}", path.display()).unwrap();
            continue;
        }
        let trace: Vec<u64> = text.lines().skip(1).map(|line| line.parse().unwrap()).collect();
        let unique = trace.iter().collect::<BTreeSet<_>>().len();
        for capacity in [unique / 100, unique / 10] {
            let (ours, reference) = ratios(&trace, capacity, capacity);
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            writeln!(std::io::stderr(), "{name} at {capacity}: {ours}, published {reference}")
                .unwrap();
            assert!(ours > reference - loss_max(capacity), "{name} at {capacity} entries");
        }
    }
}
