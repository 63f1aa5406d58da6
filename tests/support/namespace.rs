//! A network of its own for one test, in which datagrams can be dropped.
//!
//! The test runs itself once more in new namespaces, of the network and of process ids: whatever
//! becomes of it, its processes end with it, and its network and the rules there are gone.

use std::io::Write;
use std::process::{Command, Stdio};

/// Tells the test that it runs inside.
const INSIDE: &str = "CHICKADEE_INSIDE";

/// What is of its own there.
const SEPARATE: [&str; 5] = ["--net", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// The table for the rules, in which there are none.
const NO_RULE: &str = "table inet faults {\n counter dropped {}\n chain in {\n \
    type filter hook input priority 0; policy accept;\n }\n}\n";

/// Whether this process runs in a network of its own.
pub(crate) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs the test of that name inside, if that can be done here.
#[allow(clippy::print_stdout, reason = "why a test is left out is told")]
pub(crate) fn run_inside(test: &str) {
    if let Some(missing) = missing() {
        println!("left out: {missing}");
        return;
    }
    let own = std::env::current_exe().expect("the test knows its file");
    let mut command = Command::new("unshare");
    command.args(SEPARATE).arg(own);
    command.args(["--exact", test, "--ignored", "--nocapture"]).env(INSIDE, "1");
    assert!(command.status().expect("unshare runs").success(), "the test failed inside");
}

/// What is missing here, if anything.
fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("only root makes networks".to_owned());
    }
    let runs = |words: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(SEPARATE).args(words);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let rules = format!("{NO_RULE}{}", rules_for(&[1, 2]));
    let needed: [&[&str]; 4] = [&["true"], &["ip", "link"], &["nft", &rules], &["ss", "-Hunap"]];
    let absent = needed.into_iter().find(|words| !runs(words));
    absent.map(|words| format!("in a network of its own `{}` does not run here", words.join(" ")))
}

/// Makes loopback ready, and rules that drop nothing as yet.
pub(crate) fn make_ready() {
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    assert!(up.expect("ip runs").success(), "loopback is up");
    nft(NO_RULE);
}

/// The ports of all sockets for datagrams that a process has: it listens at some and calls others from more.
pub(crate) fn ports_of(process: u32) -> Vec<u16> {
    let listed = Command::new("ss").arg("-Hunap").output().expect("ss runs").stdout;
    let (listed, owner) = (String::from_utf8_lossy(&listed), format!("pid={process},"));
    let port = |line: &str| line.split_whitespace().nth(3)?.rsplit(':').next()?.parse().ok();
    listed.lines().filter(|line| line.contains(&owner)).filter_map(port).collect()
}

/// Drops all datagrams from and to these ports from now on.
pub(crate) fn drop_datagrams(ports: &[u16]) {
    nft(&rules_for(ports));
}

fn rules_for(ports: &[u16]) -> String {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let ports = ports.join(", ");
    let rule = |end: &str| {
        format!("add rule inet faults in udp {end} {{ {ports} }} counter name dropped drop\n")
    };
    format!("{}{}", rule("dport"), rule("sport"))
}

/// Drops nothing from now on.
pub(crate) fn drop_nothing() {
    nft("flush chain inet faults in\n");
}

/// How many datagrams were dropped.
pub(crate) fn dropped() -> u64 {
    let mut listed = Command::new("nft");
    listed.args(["list", "counter", "inet", "faults", "dropped"]);
    let text = listed.output().expect("nft runs").stdout;
    let text = String::from_utf8_lossy(&text);
    let mut words = text.split_whitespace().skip_while(|word| *word != "packets");
    words.nth(1).and_then(|word| word.parse().ok()).expect("nft tells the packets")
}

fn nft(rules: &str) {
    let mut nft =
        Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft runs");
    let mut input = nft.stdin.take().expect("it has an input");
    input.write_all(rules.as_bytes()).expect("nft reads its rules");
    drop(input);
    assert!(nft.wait().expect("nft ends").success(), "nft takes the rules:\n{rules}");
}
