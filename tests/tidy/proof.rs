//! Each check shown to fail on a small input that breaks its rule.

use std::collections::BTreeSet;

use super::*;

fn shape_faults_of(file: &Source) -> Vec<String> {
    shape_faults(file, LINES_MAX)
}

fn file(path: &str, text: &str) -> Source {
    Source::read(path, text)
}

#[test]
fn code_is_told_from_comments_literals_and_tests() {
    let text = "//! a\nlet x = \"tokio\"; // tokio\nlet c = '\"'; /* tokio */\nlet r = r#\"to\"kio\"#;\n\
                fn f<'a>() {}\n#[cfg(test)]\nmod tests {\n    use tokio;\n}\nfn g() {}\n";
    let read = file("src/store/x.rs", text);
    assert!(!read.code.contains("tokio"));
    assert!(read.code.contains("fn g()"));
    assert_eq!(read.strings, [(2, "tokio".to_owned()), (4, "to\"kio".to_owned())]);
    let parent = file("src/store/mod.rs", "#[cfg(test)]\nmod tests;\nmod x;\n");
    assert_eq!(parent.test_children, ["tests"]);
}

#[test]
fn an_upward_import_is_found() {
    assert_eq!(layer_faults(&file("src/store/x.rs", "use crate::types::Key;\n")).len(), 0);
    assert_eq!(layer_faults(&file("src/gossip.rs", "use crate::clock::Clock;\n")).len(), 0);
    assert_eq!(layer_faults(&file("src/store/x.rs", "use crate::node::Node;\n")).len(), 1);
    assert_eq!(layer_faults(&file("src/hlc.rs", "fn f(_: crate::store::Store) {}")).len(), 1);
    assert_eq!(layer_faults(&file("src/ring/x.rs", "use crate::{types, store};\n")).len(), 1);
    assert_eq!(layer_faults(&file("src/ring/mod.rs", "use super::store;\n")).len(), 1);
    assert_eq!(layer_faults(&file("src/a/b/c.rs", "use super::super::store;\n")).len(), 1);
    assert_eq!(layer_faults(&file("src/novel.rs", "use crate::types::Key;\n")).len(), 1);
}

#[test]
fn io_in_a_core_is_found() {
    assert_eq!(purity_faults(&file("src/ring/x.rs", "use tokio::time;\n")).len(), 1);
    assert_eq!(purity_faults(&file("src/config/load.rs", "std::fs::read(p)\n")).len(), 1);
    assert_eq!(purity_faults(&file("src/server/x.rs", "use tokio::time;\n")).len(), 0);
}

#[test]
fn what_is_out_of_its_place_is_found() {
    for line in [
        "let t = Instant::now();",
        "tokio::spawn(f);",
        "std::thread::spawn(f);",
        "let r = rand::rng();",
        "metrics::counter!(n);",
        "mpsc::unbounded_channel();",
        "unsafe { f() }",
    ] {
        assert_eq!(only_faults(&file("src/server/x.rs", line)).len(), 1, "{line}");
    }
    assert_eq!(only_faults(&file("src/clock.rs", "Instant::now()")).len(), 0);
}

#[test]
fn a_metric_or_setting_named_elsewhere_is_found() {
    let settings = BTreeSet::from(["node.name"]);
    for text in ["\"chickadee_keys\"", "\"node.name\"", "\"CHICKADEE_NODE_NAME\""] {
        assert_eq!(name_faults(&file("src/store/x.rs", text), &settings).len(), 1, "{text}");
    }
    let fine = file("src/server/x.rs", "\"chickadee_version\" \"node.other\"");
    assert_eq!(name_faults(&fine, &settings).len(), 0);
}

#[test]
fn an_unbiased_select_is_found() {
    let good = "tokio::select! {\n    biased;\n    _ = a => {}\n}";
    assert_eq!(select_faults(&file("src/server/x.rs", good)).len(), 0);
    let bad = "fn f() {}\ntokio::select! {\n    _ = a => {}\n}";
    let faults = select_faults(&file("src/server/x.rs", bad));
    assert!(faults.len() == 1 && faults[0].contains(":2:"), "{faults:?}");
}

#[test]
fn a_shapeless_file_is_found() {
    assert_eq!(shape_faults_of(&file("src/store/x.rs", "//! For x.\n")).len(), 0);
    assert_eq!(shape_faults_of(&file("src/store/x.rs", "use y;\n")).len(), 1);
    assert_eq!(shape_faults_of(&file("src/store/utils.rs", "//! For x.\n")).len(), 1);
    assert_eq!(shape_faults_of(&file("src/store/x.rs", "//! For x.\n// TODO: y\n")).len(), 1);
    assert_eq!(shape_faults_of(&file("src/x.rs", "//! For x.\n// TODO(#3): y\n")).len(), 0);
    let long = format!("//! For x.\n{}", "let a = 1;\n".repeat(LINES_MAX));
    assert_eq!(shape_faults_of(&file("src/store/x.rs", &long)).len(), 1);
    let tested =
        format!("//! For x.\n#[cfg(test)]\nmod tests {{\n{}}}\n", "f();\n".repeat(LINES_MAX));
    assert_eq!(shape_faults_of(&file("src/store/x.rs", &tested)).len(), 0);
}

#[test]
fn a_second_tls_provider_or_folder_is_found() {
    let good = "name = \"ring\"\nname = \"rustls\"\n";
    assert_eq!(lock_faults(good).len(), 0);
    assert_eq!(lock_faults(&format!("{good}name = \"aws-lc-rs\"\n")).len(), 1);
    assert_eq!(lock_faults("name = \"ring\"\n").len(), 1);
    assert_eq!(folder_faults(["src", ".git", "target"]).len(), 0);
    assert_eq!(folder_faults(["benches"]).len(), 1);
}

#[test]
fn a_file_that_the_code_map_leaves_out_is_found() {
    assert_eq!(map_faults(["a/b.rs"], "| `a/b.rs`, `c.rs` | x |").len(), 0);
    assert_eq!(map_faults(["b.rs", "c.rs"], "| `a/b.rs`, `c.rs` | x |").len(), 1);
}
