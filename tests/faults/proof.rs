//! Each kind of broken promise, shown to be found in a story that has it and in no other.

use crate::findings::{Findings, Kind};
use crate::story::{Act, Claims, Stories, Story, Told};

/// What is found where these acts of one client end with `key` as `found`.
fn found(acts: &[(Act, Told)], key: &str, found: Option<&str>) -> Vec<Kind> {
    let (mut story, claims, findings) = (Story::new(0), Claims::default(), Findings::default());
    for (act, told) in acts {
        story.note(act, *told, &claims, &findings);
    }
    Stories { stories: &[story], claims: &claims }.check(key, found, &findings);
    findings.kinds()
}

fn set(value: &str) -> Act {
    Act::Set("often:0:1".to_owned(), value.to_owned())
}

fn delete() -> Act {
    Act::Delete("often:0:1".to_owned())
}

fn increment() -> Act {
    Act::Increment(2, "counter:0:2".to_owned())
}

fn claim(value: &str) -> Act {
    Act::Claim(7, "claim:7".to_owned(), value.to_owned())
}

#[test]
fn a_value_that_is_missing_or_wrong_is_found() {
    let acts = [(set("a"), Told::Done(0)), (set("b"), Told::NotExecuted)];
    let end = |value| found(&acts, "often:0:1", value);
    assert_eq!(end(Some("a")), []);
    assert_eq!(end(None), [Kind::Missing]);
    assert_eq!(end(Some("b")), [Kind::Missing]);
    let acts = [(set("a"), Told::Done(0)), (set("b"), Told::Unknown), (delete(), Told::Unknown)];
    for value in [Some("a"), Some("b"), None] {
        assert_eq!(found(&acts, "often:0:1", value), []);
    }
    let acts = [(set("a"), Told::Unknown), (set("b"), Told::Done(0))];
    assert_eq!(found(&acts, "often:0:1", Some("a")), [Kind::Missing]);
}

#[test]
fn a_deleted_key_that_is_back_is_found() {
    let acts = [(set("a"), Told::Done(0)), (delete(), Told::Done(1))];
    assert_eq!(found(&acts, "often:0:1", None), []);
    assert_eq!(found(&acts, "often:0:1", Some("a")), [Kind::Back]);
}

#[test]
fn a_counter_that_is_wrong_or_went_back_is_found() {
    let acts =
        [(increment(), Told::Done(1)), (increment(), Told::Unknown), (increment(), Told::Done(3))];
    let end = |value| found(&acts, "counter:0:2", value);
    for (value, wrong) in
        [(None, 1), (Some("1"), 1), (Some("2"), 0), (Some("3"), 0), (Some("4"), 1)]
    {
        assert_eq!(end(value), vec![Kind::Counter; wrong], "{value:?}");
    }
    let acts = [(increment(), Told::Done(1)), (increment(), Told::Done(1))];
    assert_eq!(found(&acts, "counter:0:2", Some("2")), [Kind::Counter; 2], "raised twice to 1");
}

#[test]
fn a_claim_that_was_granted_twice_or_passed_on_is_found() {
    let acts = [(claim("a"), Told::Done(0)), (claim("b"), Told::Refused)];
    let end = |value| found(&acts, "claim:7", value);
    assert_eq!(end(Some("a")), []);
    assert_eq!(end(Some("b")), [Kind::Claim]);
    assert_eq!(end(None), [Kind::Missing]);
    let acts = [(claim("a"), Told::Done(0)), (claim("b"), Told::Done(0))];
    assert_eq!(found(&acts, "claim:7", Some("a")), [Kind::Claim]);
    let acts = [(claim("a"), Told::Unknown), (claim("b"), Told::Refused)];
    for (value, wrong) in [(None, 0), (Some("a"), 0), (Some("b"), 1)] {
        assert_eq!(found(&acts, "claim:7", value), vec![Kind::Claim; wrong], "{value:?}");
    }
}
