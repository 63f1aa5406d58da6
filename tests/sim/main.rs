//! Whole clusters of the real node on a simulated network and clock, by seed.
//!
//! A run is a world of three or four nodes (foca, QUIC with mutual TLS, RESP over TCP) with two copies
//! of each slot (in some one or three, of which two may be enough for an acknowledgement), six clients that write
//! to few slots and keep a history of what they were told, and troubles drawn from the seed: crashes with a
//! restart without data, restarts in good order, nodes that are cut off, do not hear or are not heard, stand
//! still, or lag, lost and doubled datagrams;
//! and beside them nodes that join or leave. What must hold:
//!
//! - no acknowledged write is lost, nothing is granted twice, and nothing is found that was certainly
//!   not executed (`story`);
//! - after each trouble all nodes agree on one placement, every slot is acted for once, is complete
//!   where it belongs, and its copies are equal, within [`SETTLING_MAX`] (`world`);
//! - as long as all that run hear each other no slot is ever acted for twice.
//!
//! Every acknowledgement stands for two copies where `acks_shortfall` is `error`. Where it is
//! `accept`, one copy is enough while the other holder is away, which a cut may lose: those worlds
//! have crashes, restarts, joins and leaves only.
//!
//! A failing run prints its seed, and the seed alone repeats it: `CHICKADEE_SEED=17 cargo test
//! --all-features --test sim`. `CHICKADEE_SEEDS=5000` or `=200..400` runs others, `CHICKADEE_LOG=debug` shows
//! what the nodes log, with the simulated time.

#![expect(clippy::panic, reason = "a world whose promise was broken has failed")]

mod apart;
mod client;
mod entropy;
mod faults;
mod log;
mod stories;
mod story;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use apart::Order;
use chickadee::cluster::breakage::Rule;
use faults::Kind;
use world::{Outcome, SETTLING_MAX};

/// Seeds within which each broken rule must be found.
const BREAKAGE_SEEDS: u64 = 50;

/// How many seeds run where nothing else is said.
const SEEDS: u64 = 200;

/// The seeds that are asked for: one, so many, or a range of them.
fn seeds() -> Vec<u64> {
    let said = |name: &str| std::env::var(name).ok();
    let number = |text: &str| text.parse::<u64>().expect("seeds are numbers");
    if let Some(seed) = said("CHICKADEE_SEED") {
        return vec![number(&seed)];
    }
    let many = said("CHICKADEE_SEEDS").unwrap_or_else(|| SEEDS.to_string());
    let (first, end) = many.split_once("..").unwrap_or(("0", &many));
    (number(first)..number(end)).collect()
}

/// Runs each seed, as many at a time as there are processors. All of them run before one that failed
/// is told.
#[expect(clippy::print_stdout, reason = "what a run found is shown with --nocapture")]
fn run_all(seeds: &[u64]) -> Vec<Outcome> {
    let mut outcomes = side_by_side(seeds, |seed| {
        let outcome = Order::of_seed(*seed).run(true);
        if let Some(outcome) = &outcome {
            println!("{outcome}");
        }
        (*seed, outcome)
    });
    outcomes.sort_by_key(|(seed, _)| *seed);
    let failed: Vec<u64> =
        outcomes.iter().filter(|(_, outcome)| outcome.is_none()).map(|(seed, _)| *seed).collect();
    assert!(failed.is_empty(), "seeds {failed:?} failed: CHICKADEE_SEED repeats one");
    outcomes.into_iter().filter_map(|(_, outcome)| outcome).collect()
}

/// Does something with each of `all`, as many at a time as there are processors.
fn side_by_side<T: Sync, R: Send>(all: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = work(one);
                    results.lock().expect("no worker panics").push(result);
                }
            });
        }
    });
    results.into_inner().expect("no worker panics")
}

#[test]
fn no_acknowledged_write_is_lost_and_copies_become_equal() {
    let seeds = seeds();
    let outcomes = run_all(&seeds);
    assert_eq!(outcomes.len(), seeds.len(), "every seed came to its end");
    for outcome in &outcomes {
        assert!(outcome.counts.acknowledged > 200, "{outcome}: hardly anything was written");
    }
    if outcomes.len() < 10 {
        return;
    }
    let had = |wanted: fn(Kind) -> bool| {
        outcomes.iter().flat_map(|outcome| &outcome.faults).any(|fault| wanted(fault.kind))
    };
    assert!(had(|kind| kind == Kind::Crash), "nodes crashed");
    assert!(had(|kind| kind == Kind::Restart), "nodes were started again");
    assert!(had(|kind| matches!(kind, Kind::Cut | Kind::OneWay { .. })), "nodes were cut off");
    assert!(had(|kind| kind == Kind::Join), "nodes joined");
    assert!(had(|kind| matches!(kind, Kind::Stall | Kind::Lag)), "nodes stood still");
    assert!(outcomes.iter().any(|outcome| outcome.fences > 0), "nodes were fenced");
    assert!(outcomes.iter().any(|outcome| outcome.taken_over > 0), "slots were taken over");
    assert!(outcomes.iter().any(|outcome| outcome.filled > 0), "slots were filled");
    assert!(outcomes.iter().all(|outcome| outcome.slowest < SETTLING_MAX));
}

/// What the simulation is worth: each rule is broken in turn, and some seed must notice; of rules
/// that few worlds need, one of a world that does.
#[test]
fn a_broken_rule_is_found() {
    let results = side_by_side(&Rule::ALL, |rule| {
        let order = |seed| {
            let order = Order::of_seed(seed).without(*rule);
            match rule {
                Rule::Fence => order.with_script(stories::cuts()),
                Rule::OldCommands => order.with_script(stories::stops()),
                Rule::Outcasts => order.with_script(stories::unheard()),
                Rule::Acks => order.with_script(stories::crashes()),
                Rule::FormerHolderKeeps => order.with_script(stories::comings()),
                Rule::HighestTerm => order.with_script(stories::lonely()),
                _ => order,
            }
        };
        (*rule, (0..BREAKAGE_SEEDS).find(|seed| order(*seed).run(false).is_none()))
    });
    println!("the first seed that noticed each broken rule: {results:?}");
    let missed: Vec<Rule> =
        results.iter().filter(|(_, seed)| seed.is_none()).map(|(rule, _)| *rule).collect();
    assert!(missed.is_empty(), "no seed noticed that {missed:?} were broken; others: {results:?}");
}

#[test]
fn a_seed_repeats_itself() {
    let outcomes = run_all(&[1, 1, 2]);
    let [once, again, other] = &outcomes[..] else { panic!("three runs") };
    assert_eq!(once.history, again.history, "the same seed tells the same story");
    assert_ne!(once.history, other.history, "another seed tells another one");
}
