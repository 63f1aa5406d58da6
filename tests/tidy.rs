//! The architecture as a test: what may import what, what a file may do, how it must look.
//!
//! The sources are read as text: comments and string literals are told apart from code, and test
//! modules are left out, so the checks know names and not meaning. Each check is a function of a
//! small input and is shown to fail on one that breaks its rule.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot read its sources has failed"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use chickadee::config::settings::SETTINGS;
use source::{Source, is_word, word_positions};

#[path = "tidy/proof.rs"]
mod proof;
#[path = "tidy/source.rs"]
mod source;

/// Who may import whom, bottom first: a module imports only from rows above its own, so that no
/// cycle is possible.
const LAYERS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("limits", &[]),
    ("rng", &[]),
    ("audit", &["types"]),
    ("net", &["types", "limits"]),
    ("metrics", &["types", "limits"]),
    ("clock", &["types", "limits"]),
    ("tasks", &["types", "limits", "clock"]),
    ("config", &["types", "limits"]),
    ("hlc", &["types", "limits"]),
    ("ring", &["types", "limits"]),
    ("resp", &["types", "limits"]),
    ("store", &["types", "limits", "metrics", "hlc"]),
    ("command", &["types", "limits", "resp", "store"]),
    ("wire", &["types", "limits", "resp", "command"]),
    ("membership", &["types", "limits", "config", "metrics", "audit"]),
    ("peers", &["types", "limits", "wire", "tasks"]),
    ("members", &[VOCABULARY, "membership", "wire", "peers"]),
    (
        "cluster",
        &[
            VOCABULARY,
            "hlc",
            "ring",
            "store",
            "resp",
            "command",
            "wire",
            "membership",
            "members",
            "peers",
        ],
    ),
    ("tls", &["types", "limits", "config", "clock", "metrics", "rng"]),
    ("gossip", &[VOCABULARY, "members"]),
    ("transport", &[VOCABULARY, "wire", "peers", "tls"]),
    ("persist", &["types", "limits", "metrics", "config", "clock", "tasks", "wire", "store"]),
    ("server", &[VOCABULARY, "resp", "command", "cluster", "tls"]),
    ("admin", &["types", "limits", "metrics", "config", "clock", "tasks", "net", "cluster"]),
    (
        "node",
        &[
            VOCABULARY,
            "hlc",
            "ring",
            "store",
            "resp",
            "command",
            "wire",
            "membership",
            "members",
            "peers",
            "cluster",
            "tls",
            "gossip",
            "transport",
            "persist",
            "server",
            "admin",
        ],
    ),
    (
        "cli",
        &[
            "types", "limits", "config", "clock", "tasks", "net", "rng", "metrics", "tls", "resp",
            "persist", "admin", "node",
        ],
    ),
    ("manual", &[]),
];

/// Stands in a row of [`LAYERS`] for all of these.
const VOCABULARY: &str = "(vocabulary)";
const VOCABULARY_MODULES: &[&str] =
    &["types", "limits", "clock", "rng", "net", "metrics", "tasks", "config", "audit"];

/// Modules that are functions of (state, input, now): no runtime, socket, file, clock or global.
const PURE: &[&str] = &[
    "types",
    "limits",
    "config",
    "audit",
    "hlc",
    "ring",
    "resp",
    "store",
    "command",
    "wire",
    "membership",
];

/// What a pure module must not name.
const IMPURE: &[&str] = &[
    "tokio",
    "std::fs",
    "std::env",
    "std::thread",
    "std::process",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "std::time::Instant",
    "SystemTime",
    "OnceLock",
    "LazyLock",
    "thread_local",
];

/// A thing that only some files may name, and which those are (prefixes of paths below `src/`).
struct Only {
    what: &'static str,
    names: &'static [&'static str],
    files: &'static [&'static str],
}

const ONLY: &[Only] = &[
    Only {
        what: "a clock is read only in clock.rs",
        names: &["Instant::now", "SystemTime::now"],
        files: &["clock.rs"],
    },
    Only {
        what: "tasks are spawned only by tasks.rs",
        names: &["tokio::spawn", "task::spawn", "spawn_local", "spawn_blocking", "JoinSet"],
        files: &["tasks.rs"],
    },
    Only {
        what: "threads are started only by tasks.rs and the node",
        names: &["thread::spawn", "thread::Builder", "thread::scope"],
        files: &["tasks.rs", "node/"],
    },
    Only {
        what: "randomness comes only from rng.rs",
        names: &[
            "SysRng",
            "OsRng",
            "SystemRandom",
            "thread_rng",
            "rand::rng",
            "rand::random",
            "getrandom",
            "RandomState",
            "from_os_rng",
        ],
        files: &["rng.rs"],
    },
    Only {
        what: "metrics are declared only in metrics/",
        names: &["counter!", "gauge!", "histogram!", "describe_counter!", "describe_gauge!"],
        files: &["metrics/"],
    },
    Only {
        what: "a queue has a bound",
        names: &["unbounded_channel", "UnboundedSender"],
        files: &[],
    },
];

/// Files that may hold `unsafe`, each with its section in the decisions page.
const UNSAFE_ALLOWED: &[&str] = &["tests/sim/entropy.rs"];

/// Names like a metric's that are none: fields of INFO, HELLO and CLUSTER INFO stand here.
const FIELDS_LIKE_METRICS: &str = "server";

const FORBIDDEN_STEMS: &[&str] =
    &["util", "utils", "helper", "helpers", "common", "misc", "manager", "managers"];

/// The longest file, its test modules not counted.
const LINES_MAX: usize = 600;

/// The longest file of tests.
const TEST_LINES_MAX: usize = 1000;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files_below(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn paths_below(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    files_below(&root().join(folder), &mut found);
    let below = |path: PathBuf| path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
    found.into_iter().map(below).collect()
}

fn rust_files(folder: &str) -> Vec<Source> {
    let rust = paths_below(folder)
        .into_iter()
        .filter(|path| Path::new(path).extension().is_some_and(|e| e == "rs"));
    rust.map(|path| Source::read(&path, &fs::read_to_string(root().join(&path)).unwrap())).collect()
}

/// The files of `src/` that are no test modules, nor within one.
fn product() -> Vec<Source> {
    let all = rust_files("src");
    let mut tests = Vec::new();
    for file in &all {
        let folder = Path::new(&file.path).with_file_name("");
        for child in &file.test_children {
            tests.push(folder.join(format!("{child}.rs")));
            tests.push(folder.join(child));
        }
    }
    let tested = |file: &Source| tests.iter().any(|test| Path::new(&file.path).starts_with(test));
    all.into_iter().filter(|file| !tested(file)).collect()
}

#[track_caller]
fn assert_tidy(faults: &[String]) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

// --- checks --------------------------------------------------------------------------------

/// Top-level modules that a file names by `crate::`, with lines; a grouped import names `{`.
fn imports(file: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in file.code.lines().enumerate() {
        for at in word_positions(line, "crate::") {
            let rest = &line[at + "crate::".len()..];
            let name: String = rest.chars().take_while(|c| is_word(*c)).collect();
            found.push((number + 1, if name.is_empty() { "{".to_owned() } else { name }));
        }
    }
    found
}

fn may_import(from: &str, to: &str) -> bool {
    let Some((_, allowed)) = LAYERS.iter().find(|(module, _)| *module == from) else {
        return false;
    };
    from == to
        || allowed.contains(&to)
        || (allowed.contains(&VOCABULARY) && VOCABULARY_MODULES.contains(&to))
}

fn layer_faults(file: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    if file.is_root() {
        return faults;
    }
    let module = file.module();
    for (line, name) in imports(file) {
        let exported_macro = file.code.contains(&format!("macro_rules! {name}"));
        if !may_import(module, &name) && !exported_macro {
            faults.push(format!("{}:{line}: {module} must not import {name}", file.path));
        }
    }
    let at_module_root = file.path.ends_with("/mod.rs") || !file.below_src().contains('/');
    if at_module_root && !file.below_src().trim_end_matches("/mod.rs").contains('/') {
        for line in file.lines_with("super::") {
            faults.push(format!("{}:{line}: write crate::…, not super::", file.path));
        }
    }
    for line in file.lines_with("super::super::") {
        faults.push(format!("{}:{line}: write crate::…, not super::super::", file.path));
    }
    faults
}

fn purity_faults(file: &Source) -> Vec<String> {
    if !PURE.contains(&file.module()) {
        return Vec::new();
    }
    let fault =
        |name: &&str, line| format!("{}:{line}: a pure module must not use {name}", file.path);
    let lines = |name| file.lines_with(name).into_iter().map(move |line| fault(&name, line));
    IMPURE.iter().copied().flat_map(lines).collect()
}

fn only_faults(file: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    for rule in ONLY {
        if rule.files.iter().any(|prefix| file.below_src().starts_with(prefix)) {
            continue;
        }
        for name in rule.names {
            for line in file.lines_with(name) {
                faults.push(format!("{}:{line}: {name}: {}", file.path, rule.what));
            }
        }
    }
    if !UNSAFE_ALLOWED.contains(&file.path.as_str()) {
        for line in file.lines_with("unsafe") {
            faults.push(format!("{}:{line}: unsafe is not allowed here", file.path));
        }
    }
    faults
}

fn name_faults(file: &Source, settings: &BTreeSet<&str>) -> Vec<String> {
    let mut faults = Vec::new();
    for (line, text) in &file.strings {
        let metric = text.starts_with("chickadee_") && file.module() != FIELDS_LIKE_METRICS;
        if metric && file.module() != "metrics" {
            faults.push(format!("{}:{line}: only metrics/ names metrics", file.path));
        }
        let setting = settings.contains(text.as_str()) || text.starts_with("CHICKADEE_");
        if setting && file.module() != "config" {
            faults.push(format!("{}:{line}: only config/ names settings", file.path));
        }
    }
    faults
}

fn select_faults(file: &Source) -> Vec<String> {
    let mut faults = Vec::new();
    for at in word_positions(&file.code, "select!") {
        let body = file.code[at + "select!".len()..].trim_start().trim_start_matches(['{', '(']);
        if !body.trim_start().starts_with("biased;") {
            let line = file.code[..at].matches('\n').count() + 1;
            faults.push(format!("{}:{line}: select! must begin with biased;", file.path));
        }
    }
    faults
}

fn shape_faults(file: &Source, lines_max: usize) -> Vec<String> {
    let mut faults = Vec::new();
    if !file.text.starts_with("//! ") {
        faults.push(format!("{}:1: a file opens with //! and what it is for", file.path));
    }
    let lines = file.text.lines().count() - file.test_lines;
    if lines > lines_max {
        faults.push(format!("{}: {lines} lines; a file is one idea", file.path));
    }
    let path = Path::new(&file.path);
    let mut parts = path.iter().map(|part| part.to_string_lossy());
    if parts.any(|part| FORBIDDEN_STEMS.contains(&part.trim_end_matches(".rs"))) {
        faults.push(format!("{}: the name says nothing", file.path));
    }
    for (number, line) in file.text.lines().enumerate() {
        let open = ["TODO", "FIXME", "XXX"].iter().any(|word| {
            word_positions(line, word).any(|at| !line[at + word.len()..].starts_with("(#"))
        });
        if open && line.trim_start().starts_with("//") {
            faults.push(format!("{}:{}: name the issue, as in (#12)", file.path, number + 1));
        }
    }
    faults
}

fn lock_faults(lock: &str) -> Vec<String> {
    let packages: BTreeMap<&str, usize> = lock
        .lines()
        .filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
        .fold(BTreeMap::new(), |mut seen, name| {
            *seen.entry(name).or_default() += 1;
            seen
        });
    let banned = ["aws-lc-rs", "aws-lc-sys", "openssl", "openssl-sys", "native-tls"];
    let mut faults: Vec<String> = banned
        .iter()
        .filter(|name| packages.contains_key(*name))
        .map(|name| format!("Cargo.lock: {name}: ring is the one TLS provider"))
        .collect();
    for name in ["ring", "rustls"] {
        if packages.get(name) != Some(&1) {
            faults.push(format!("Cargo.lock: exactly one {name} is wanted"));
        }
    }
    faults
}

fn folder_faults<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let allowed = ["src", "certs", "deploy", "tests"];
    let built = ["target", "proptest-regressions"];
    names
        .into_iter()
        .filter(|name| !name.starts_with('.') && !allowed.contains(name) && !built.contains(name))
        .map(|name| format!("{name}/: no other folder than {allowed:?}"))
        .collect()
}

/// Files of `src/` that the code map does not name; test modules need no name.
fn map_faults<'a>(files: impl IntoIterator<Item = &'a str>, map: &str) -> Vec<String> {
    files
        .into_iter()
        .filter(|file| !map.contains(&format!("`{file}`")))
        .map(|file| format!("src/{file}: not in the code map of src/manual/architecture.md"))
        .collect()
}

// --- the project ---------------------------------------------------------------------------

#[test]
fn the_layer_table_has_no_upward_arrow() {
    let mut seen = BTreeSet::from([VOCABULARY]);
    for (module, allowed) in LAYERS {
        for name in *allowed {
            assert!(seen.contains(name), "{module} → {name} points upward");
        }
        assert!(seen.insert(module), "{module} stands twice");
    }
    let modules: BTreeSet<String> =
        product().iter().filter(|f| !f.is_root()).map(|f| f.module().to_owned()).collect();
    let listed: BTreeSet<String> = LAYERS.iter().map(|(module, _)| (*module).to_owned()).collect();
    assert!(modules.is_subset(&listed), "not in the table: {:?}", modules.difference(&listed));
}

#[test]
fn modules_import_only_from_below() {
    assert_tidy(&product().iter().flat_map(layer_faults).collect::<Vec<_>>());
}

#[test]
fn pure_modules_do_no_io_and_read_no_clock() {
    assert_tidy(&product().iter().flat_map(purity_faults).collect::<Vec<_>>());
}

#[test]
fn what_has_one_place_stays_there() {
    assert_tidy(&product().iter().flat_map(only_faults).collect::<Vec<_>>());
}

#[test]
fn metrics_and_settings_are_named_in_one_place() {
    let keys: BTreeSet<&str> = SETTINGS.iter().map(|row| row.key).collect();
    let files = product();
    assert_tidy(&files.iter().flat_map(|file| name_faults(file, &keys)).collect::<Vec<_>>());
}

#[test]
fn every_select_is_biased() {
    assert_tidy(&product().iter().flat_map(select_faults).collect::<Vec<_>>());
}

#[test]
fn every_file_opens_with_its_purpose_and_stays_short() {
    let files = product();
    let paths: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let all = rust_files("src").into_iter().chain(rust_files("tests"));
    let shape = |file: Source| {
        let product = paths.contains(file.path.as_str());
        shape_faults(&file, if product { LINES_MAX } else { TEST_LINES_MAX })
    };
    assert_tidy(&all.flat_map(shape).collect::<Vec<_>>());
}

#[test]
fn folders_are_the_agreed_ones() {
    let entries = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap());
    let folders: Vec<String> = entries
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    assert_tidy(&folder_faults(folders.iter().map(String::as_str)));
}

#[test]
fn there_is_one_tls_provider() {
    assert_tidy(&lock_faults(&fs::read_to_string(root().join("Cargo.lock")).unwrap()));
}

#[test]
fn every_file_is_in_the_code_map() {
    let map = fs::read_to_string(root().join("src/manual/architecture.md")).unwrap();
    assert_tidy(&map_faults(product().iter().map(Source::below_src), &map));
}
