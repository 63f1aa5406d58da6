//! Whole clusters of the real node on a simulated network and clock, by seed.
//!
//! A run is a world of three or four nodes (foca, QUIC with mutual TLS, RESP over TCP) with two copies
//! of each slot (in some one or three), six clients that write to few slots and keep a history of what they were told, and
//! troubles drawn from the seed: crashes with a restart without data, restarts in good order, nodes
//! that are cut off, do not hear or are not heard, stand still, or lag, lost and doubled datagrams;
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

mod client;
mod entropy;
mod faults;
mod log;
mod stories;
mod story;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use chickadee::cluster::breakage::{Rule, break_rule};
use faults::Kind;
use world::{Outcome, SETTLING_MAX, World};

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

/// Runs each seed, as many at a time as there are processors, each on a thread of its own: what a
/// simulation leaves on its thread is not shared. All of them run before one that failed is told.
#[expect(clippy::print_stdout, reason = "what a run found is shown with --nocapture")]
fn run_all(seeds: &[u64]) -> Vec<Outcome> {
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = run(*seed);
                    if let Some(outcome) = &outcome {
                        println!("{outcome}");
                    }
                    outcomes.lock().expect("no worker panics").push((*seed, outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().expect("no worker panics");
    outcomes.sort_by_key(|(seed, _)| *seed);
    let failed: Vec<u64> =
        outcomes.iter().filter(|(_, outcome)| outcome.is_none()).map(|(seed, _)| *seed).collect();
    assert!(failed.is_empty(), "seeds {failed:?} failed: CHICKADEE_SEED repeats one");
    outcomes.into_iter().filter_map(|(_, outcome)| outcome).collect()
}

/// Runs one seed; `None` if it panicked, which says why on the standard error stream.
fn run(seed: u64) -> Option<Outcome> {
    run_on_thread(seed, |seed| World::new(seed).run())
}

fn run_on_thread(
    seed: u64,
    world: impl FnOnce(u64) -> Outcome + Send + 'static,
) -> Option<Outcome> {
    let thread = std::thread::Builder::new().name(format!("seed {seed}"));
    let run = thread.spawn(move || {
        entropy::seed(seed);
        world(seed)
    });
    let run = run.expect("a thread can be started");
    run.join().ok()
}

#[test]
fn no_acknowledged_write_is_lost_and_copies_become_equal() {
    log::start();
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
    log::start();
    let found = |rule: Rule| {
        (0..BREAKAGE_SEEDS).find(|seed| {
            let world = move |seed| {
                break_rule(Some(rule));
                match rule {
                    Rule::Fence => World::scripted(seed, stories::cuts()).run(),
                    Rule::Outcasts => World::scripted(seed, stories::unheard()).run(),
                    _ => World::new(seed).run(),
                }
            };
            run_on_thread(*seed, world).is_none()
        })
    };
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(rule) = Rule::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let seed = found(*rule);
                    results.lock().expect("no worker panics").push((*rule, seed));
                }
            });
        }
    });
    let results = results.into_inner().expect("no worker panics");
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
