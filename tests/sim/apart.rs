//! Each world in a process of its own.
//!
//! What a library draws or counts once for a process would tie a world to those that run beside it:
//! tokio seeds each runtime by how many there were before. A seed that failed among others then
//! passed alone. So the tests order their worlds from this program, started anew for each.

use std::process::{Command, Stdio};
use std::thread;

use chickadee::cluster::breakage::{Rule, break_rule};
use serde::{Deserialize, Serialize};

use super::faults::Script;
use super::world::{Outcome, World};
use super::{entropy, log};

/// The variable that holds a process's order.
const ORDER: &str = "CHICKADEE_WORLD";
/// Before the outcome on the standard output stream, where the test runner writes as well.
const MARK: &str = "outcome: ";

/// What a world is made from. Its text repeats it:
/// `CHICKADEE_WORLD='…' cargo test --all-features --test sim the_world -- --ignored --nocapture`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    seed: u64,
    /// Its troubles; the seed draws them where none are given.
    script: Option<Script>,
    /// The rule that is broken in it, by name.
    broken: Option<String>,
}

impl Order {
    /// The world that a seed draws.
    pub(crate) const fn of_seed(seed: u64) -> Self {
        Self { seed, script: None, broken: None }
    }

    /// With these troubles; the seed draws the rest.
    pub(crate) fn with_script(mut self, script: Script) -> Self {
        self.script = Some(script);
        self
    }

    /// With a rule broken.
    pub(crate) fn without(mut self, rule: Rule) -> Self {
        self.broken = Some(format!("{rule:?}"));
        self
    }

    /// Runs the world in a process of its own. `None` if a promise was broken in it, which says how
    /// on the standard error stream if that is `heard`.
    pub(crate) fn run(&self, heard: bool) -> Option<Outcome> {
        let program = std::env::current_exe().expect("a program knows its file");
        let text = serde_json::to_string(self).expect("an order can be written");
        let done = Command::new(program)
            .args(["--exact", "apart::the_world_of_an_order", "--ignored", "--nocapture"])
            .env(ORDER, &text)
            .stdin(Stdio::null())
            .stderr(if heard { Stdio::inherit() } else { Stdio::null() })
            .output()
            .expect("this program can be started once more");
        let said = String::from_utf8_lossy(&done.stdout);
        let outcome = said.split_once(MARK).and_then(|(_, rest)| rest.lines().next());
        let outcome = outcome.and_then(|json| serde_json::from_str(json).ok());
        outcome.filter(|_| done.status.success())
    }

    fn run_here(self) -> Outcome {
        entropy::seed(self.seed);
        if let Some(name) = self.broken {
            let rule = Rule::ALL.into_iter().find(|rule| format!("{rule:?}") == name);
            break_rule(Some(rule.expect("a rule that can be broken")));
        }
        match self.script {
            Some(script) => World::scripted(self.seed, script).run(),
            None => World::new(self.seed).run(),
        }
    }
}

#[test]
#[ignore = "the other tests run it, with an order for one world"]
fn the_world_of_an_order() {
    log::start();
    let order = std::env::var(ORDER).expect("an order");
    let order: Order = serde_json::from_str(&order).expect("an order");
    // The thread of a test has drawn entropy before; a new one has not.
    let world = thread::Builder::new().name(format!("seed {}", order.seed));
    let world = world.spawn(move || order.run_here()).expect("a thread can be started");
    let outcome = world.join().expect("every promise is kept");
    println!("{MARK}{}", serde_json::to_string(&outcome).expect("an outcome can be written"));
}
