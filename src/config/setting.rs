//! What a row of the table of settings holds.

use crate::config::Config;
use crate::config::value::{Kind, Value};

/// When a changed setting takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// When the node is told to read its settings again (SIGHUP).
    Reload,
    /// When the node starts.
    Restart,
    /// When a cluster is formed; later the cluster's own value counts.
    Forming,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// `section.key`, as in the file.
    pub key: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Its default, as in the file; empty for none.
    pub default: &'static str,
    /// What stands in for an empty default, in words.
    pub fallback: &'static str,
    /// When a change takes effect.
    pub change: Change,
    /// A short flag of `serve` beside the one made from the key.
    pub flag: Option<&'static str>,
    /// The credential that names it where nothing else does: a file that the service manager hands
    /// over.
    pub credential: Option<&'static str>,
    /// What it governs, in one line.
    pub doc: &'static str,
    /// What gets better and worse, its relations; may be empty.
    pub more: &'static str,
    /// Puts a value that fits `kind` into the tree.
    pub(super) put: fn(&mut Config, Value),
    /// The value in the tree.
    pub(super) get: fn(&Config) -> Value,
}

impl Setting {
    /// The environment variable that sets it.
    pub fn variable(&self) -> String {
        format!("CHICKADEE_{}", self.key.replace('.', "_").to_uppercase())
    }

    /// The long flag that sets it, without its dashes.
    pub fn long_flag(&self) -> String {
        self.key.replace(['.', '_'], "-")
    }

    /// Its section and its name within it.
    pub fn parts(&self) -> (&'static str, &'static str) {
        self.key.split_once('.').expect("every key has a section")
    }

    /// Its value in `config`, as it would stand in the file; empty for none.
    pub fn show(&self, config: &Config) -> String {
        (self.get)(config).to_string()
    }
}

/// A row with nothing said; every row of the table fills in what it needs.
pub(super) const BLANK: Setting = Setting {
    key: "",
    kind: Kind::Switch,
    default: "",
    fallback: "",
    change: Change::Restart,
    flag: None,
    credential: None,
    doc: "",
    more: "",
    put: |_, _| {},
    get: |_| Value::Nothing,
};
