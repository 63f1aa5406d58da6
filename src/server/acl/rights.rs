//! What a user may do: which commands, on which keys.

use crate::command::{Row, glob, parse, table};

/// A set of commands and subcommands, by their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CommandSet([u64; table::NUMBERS.div_ceil(64)]);

impl CommandSet {
    /// No command.
    pub(super) const NONE: Self = Self([0; table::NUMBERS.div_ceil(64)]);

    /// Every command that there is.
    pub(super) fn all() -> Self {
        let mut set = Self::NONE;
        for row in table::ROWS {
            set.put(row, true);
        }
        set
    }

    /// Adds or takes away a command with its subcommands, or one subcommand.
    pub(super) fn put(&mut self, row: &Row, allowed: bool) {
        for row in std::iter::once(row).chain(row.subcommands) {
            let number = usize::from(row.id.wire());
            if let Some(word) = self.0.get_mut(number / 64) {
                let bit = 1 << (number % 64);
                *word = if allowed { *word | bit } else { *word & !bit };
            }
        }
    }

    fn has(&self, row: &Row) -> bool {
        let number = usize::from(row.id.wire());
        self.0.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }
}

/// Keys that may be read, written, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyPattern {
    pub(super) read: bool,
    pub(super) write: bool,
    pub(super) pattern: String,
}

impl KeyPattern {
    /// The pattern as a rule of an ACL file.
    pub(super) fn rule(&self) -> String {
        let access = match (self.read, self.write) {
            (true, false) => "%R~",
            (false, true) => "%W~",
            _ => "~",
        };
        format!("{access}{}", self.pattern)
    }
}

/// Why a user may not run a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Denied {
    /// The command is none of the user's.
    Command,
    /// One of the keys is not.
    Key,
}

/// What a user may do.
#[derive(Clone, Debug)]
pub(super) struct Rights {
    pub(super) commands: CommandSet,
    pub(super) all_keys: bool,
    pub(super) keys: Vec<KeyPattern>,
}

impl Rights {
    /// Nothing.
    pub(super) const NONE: Self =
        Self { commands: CommandSet::NONE, all_keys: false, keys: Vec::new() };

    /// Whether there is nothing to be checked.
    pub(super) fn are_whole(&self) -> bool {
        self.all_keys && self.commands == CommandSet::all()
    }

    /// Whether a request may run. What may run before a login needs no right.
    pub(super) fn check(&self, row: &Row, args: &[&[u8]]) -> Result<(), Denied> {
        if !self.commands.has(row) {
            return Err(Denied::Command);
        }
        if self.all_keys {
            return Ok(());
        }
        let mut keys = parse::keys(row, args).peekable();
        if keys.peek().is_none() {
            return Ok(());
        }
        // A command that neither reads nor changes a value, such as EXISTS, needs a pattern of any kind.
        let access = parse::access(row, args);
        let reads = access.contains(&"access");
        let writes = ["update", "insert", "delete"].iter().any(|word| access.contains(word));
        let may = |key: &[u8]| {
            self.keys.iter().any(|pattern| {
                (pattern.read || !reads)
                    && (pattern.write || !writes)
                    && glob::matches(pattern.pattern.as_bytes(), key)
            })
        };
        if keys.all(may) { Ok(()) } else { Err(Denied::Key) }
    }
}
