//! Whole clusters of the real node on a simulated network and clock, by seed.
//!
//! A run is a world of three nodes (foca, QUIC with mutual TLS, RESP over TCP), a client that keeps
//! a history of what was acknowledged, and faults drawn from the seed: one crash with a restart,
//! one partition that heals. A failing run prints its seed; the seed alone repeats it.
//! `CHICKADEE_SEEDS=200 cargo test --features simulation --test sim` runs more of them,
//! `CHICKADEE_SEED=17` one.

#![expect(clippy::panic, reason = "a broken promise fails the test with its seed")]

mod client;
mod world;

use std::time::Duration;

use world::{Fault, Outcome, World};

/// How many seeds run where nothing else is said.
const SEEDS: u64 = 20;

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match (number("CHICKADEE_SEED"), number("CHICKADEE_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, count) => (0..count.unwrap_or(SEEDS)).collect(),
    }
}

/// Runs one seed on a thread of its own: what a simulation leaves on its thread is not shared.
fn run(seed: u64) -> Outcome {
    let thread = std::thread::Builder::new().name(format!("seed {seed}"));
    let run = thread.spawn(move || World::new(seed).run()).expect("a thread can be started");
    let outcome = run.join().ok();
    outcome.unwrap_or_else(|| panic!("seed {seed} failed: CHICKADEE_SEED={seed} repeats it"))
}

#[test]
fn no_acknowledged_write_is_lost_and_copies_become_equal() {
    let (mut crashes, mut partitions, mut takeovers, mut fills) = (0, 0, 0, 0);
    for seed in seeds() {
        let outcome = run(seed);
        crashes +=
            outcome.faults.iter().filter(|fault| matches!(fault, Fault::Crash { .. })).count();
        partitions +=
            outcome.faults.iter().filter(|fault| matches!(fault, Fault::Partition { .. })).count();
        takeovers += outcome.takeovers;
        fills += outcome.fills;
        println!(
            "seed {seed}: {} writes acknowledged, {} failed, converged {:?} after the last fault",
            outcome.acknowledged, outcome.failed, outcome.converged
        );
        assert!(outcome.acknowledged > 50, "seed {seed}: the client got hardly anything done");
        assert!(outcome.converged < Duration::from_secs(30), "seed {seed}");
    }
    assert!(crashes > 0 && partitions > 0, "the faults were really injected");
    assert!(takeovers > 0 && fills > 0, "slots were taken over, and filled again");
}

#[test]
fn a_seed_repeats_itself() {
    let (once, again, other) = (run(1), run(1), run(2));
    assert_eq!(once.history, again.history, "the same seed tells the same story");
    assert_ne!(once.history, other.history, "another seed tells another one");
}
