//! One user, made by the rules of Redis's ACL files, one after the other.

use std::sync::Arc;

use crate::command::{Row, table};
use crate::limits::PASSWORDS_MAX;
use crate::server::acl::rights::{CommandSet, Denied, KeyPattern, Rights};
use crate::server::password::{Hash, Passwords};

/// The user of a connection that has not said otherwise.
pub(in crate::server) const DEFAULT: &str = "default";

/// Categories that Redis knows; some have no command here.
pub(super) const CATEGORIES: [&str; 21] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

/// Who a connection belongs to, and what it may do.
#[derive(Clone, Debug)]
pub struct User {
    pub(super) name: Arc<str>,
    pub(super) is_on: bool,
    /// Any password is right.
    pub(super) needs_no_password: bool,
    pub(super) passwords: Vec<Hash>,
    rights: Rights,
    /// Whether the rules of commands begin with all of them.
    all_commands: bool,
    /// The rules of commands behind that, as they would stand in a file.
    command_rules: Vec<String>,
    all_channels: bool,
    channels: Vec<String>,
}

impl User {
    /// A user who may do nothing, not even log in.
    pub(super) fn nobody(name: &str) -> Self {
        Self {
            name: name.into(),
            is_on: false,
            needs_no_password: false,
            passwords: Vec::new(),
            rights: Rights::NONE,
            all_commands: false,
            command_rules: Vec::new(),
            all_channels: false,
            channels: Vec::new(),
        }
    }

    /// The user `default` where no ACL file says otherwise: who may do everything, with one of the
    /// passwords if there are any.
    pub(super) fn default_with(passwords: Option<Passwords>) -> Self {
        let all = Rights { commands: CommandSet::all(), all_keys: true, keys: Vec::new() };
        Self {
            is_on: true,
            needs_no_password: passwords.is_none(),
            passwords: passwords.map(|known| known.0).unwrap_or_default(),
            rights: all,
            all_commands: true,
            all_channels: true,
            ..Self::nobody(DEFAULT)
        }
    }

    /// Whether it needs no login.
    pub(in crate::server) const fn is_open(&self) -> bool {
        self.is_on && self.needs_no_password
    }

    /// Whether it may log in.
    pub(in crate::server) const fn is_on(&self) -> bool {
        self.is_on
    }

    /// Whether it may do everything.
    pub(in crate::server) fn is_free(&self) -> bool {
        self.rights.are_whole()
    }

    /// Its name.
    pub(in crate::server) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it may run a request.
    pub(in crate::server) fn check(&self, row: &Row, args: &[&[u8]]) -> Result<(), Denied> {
        self.rights.check(row, args)
    }

    /// Its flags, in Redis's words.
    pub(super) fn flags(&self) -> impl Iterator<Item = &'static str> {
        let on = if self.is_on { "on" } else { "off" };
        std::iter::once(on).chain(self.needs_no_password.then_some("nopass"))
    }

    /// The rules of its commands.
    pub(super) fn commands_text(&self) -> String {
        let first = if self.all_commands { "+@all" } else { "-@all" };
        let rules = self.command_rules.iter().map(String::as_str);
        std::iter::once(first).chain(rules).collect::<Vec<_>>().join(" ")
    }

    /// The rules of its keys.
    pub(super) fn keys_text(&self) -> String {
        if self.rights.all_keys {
            return "~*".to_owned();
        }
        self.rights.keys.iter().map(KeyPattern::rule).collect::<Vec<_>>().join(" ")
    }

    /// The rules of its channels.
    pub(super) fn channels_text(&self) -> String {
        if self.all_channels {
            return "&*".to_owned();
        }
        self.channels.iter().map(|name| format!("&{name}")).collect::<Vec<_>>().join(" ")
    }

    /// Its line of an ACL file.
    pub(super) fn line(&self) -> String {
        let mut words = vec!["user".to_owned(), self.name.to_string()];
        words.extend(self.flags().map(str::to_owned));
        words.extend(self.passwords.iter().map(|hash| format!("#{}", hash.to_hex())));
        words.push(self.keys_text());
        words.extend((!self.all_channels).then(|| "resetchannels".to_owned()));
        words.extend([self.channels_text(), self.commands_text()]);
        words.retain(|word| !word.is_empty());
        words.join(" ")
    }

    /// Changes the user by one rule; the error says what is wrong with the rule.
    pub(super) fn apply(&mut self, rule: &str) -> Result<(), String> {
        match rule.to_ascii_lowercase().as_str() {
            "on" => self.is_on = true,
            "off" => self.is_on = false,
            "nopass" => {
                self.needs_no_password = true;
                self.passwords.clear();
            }
            "resetpass" => {
                self.needs_no_password = false;
                self.passwords.clear();
            }
            "allkeys" | "~*" => {
                self.rights.all_keys = true;
                self.rights.keys.clear();
            }
            "resetkeys" => {
                self.rights.all_keys = false;
                self.rights.keys.clear();
            }
            "allchannels" | "&*" => {
                self.all_channels = true;
                self.channels.clear();
            }
            "resetchannels" => {
                self.all_channels = false;
                self.channels.clear();
            }
            "allcommands" | "+@all" => self.put_all_commands(true),
            "nocommands" | "-@all" => self.put_all_commands(false),
            "reset" => *self = Self::nobody(&self.name),
            // Redis writes these into its own files; what they are about is not there.
            "sanitize-payload" | "skip-sanitize-payload" => {}
            "clearselectors" => return Err(NO_SELECTORS.to_owned()),
            _ => return self.apply_with_value(rule),
        }
        Ok(())
    }

    /// Rules that begin with a sign and name something.
    fn apply_with_value(&mut self, rule: &str) -> Result<(), String> {
        let mut letters = rule.chars();
        let (sign, value) = (letters.next().unwrap_or(' '), letters.as_str());
        match sign {
            '>' => self.add_password(Hash::of(value.as_bytes())),
            '<' => self.remove_password(&Hash::of(value.as_bytes())),
            '#' => self.add_password(Hash::from_hex(value).ok_or(BAD_HASH)?),
            '!' => self.remove_password(&Hash::from_hex(value).ok_or(BAD_HASH)?),
            '~' => self.add_keys(true, true, value),
            '%' => {
                let (access, pattern) = value.split_once('~').ok_or(BAD_ACCESS)?;
                match access.to_ascii_lowercase().as_str() {
                    "r" => self.add_keys(true, false, pattern),
                    "w" => self.add_keys(false, true, pattern),
                    "rw" | "wr" => self.add_keys(true, true, pattern),
                    _ => Err(BAD_ACCESS.to_owned()),
                }
            }
            '&' if self.all_channels => Err(after_all("channels")),
            '&' => {
                self.channels.push(value.to_owned());
                Ok(())
            }
            '+' => self.put_commands(value, true),
            '-' => self.put_commands(value, false),
            '(' => Err(NO_SELECTORS.to_owned()),
            _ => Err("is no rule".to_owned()),
        }
    }

    fn add_password(&mut self, hash: Hash) -> Result<(), String> {
        self.needs_no_password = false;
        if !self.passwords.contains(&hash) {
            self.passwords.push(hash);
        }
        if self.passwords.len() > PASSWORDS_MAX {
            return Err(format!("is one password too many: a user has at most {PASSWORDS_MAX}"));
        }
        Ok(())
    }

    fn remove_password(&mut self, hash: &Hash) -> Result<(), String> {
        let at = self.passwords.iter().position(|known| known == hash);
        let at = at.ok_or("removes a password that the user does not have")?;
        self.passwords.remove(at);
        Ok(())
    }

    fn add_keys(&mut self, read: bool, write: bool, pattern: &str) -> Result<(), String> {
        if self.rights.all_keys {
            return Err(after_all("keys"));
        }
        let pattern = KeyPattern { read, write, pattern: pattern.to_owned() };
        if !self.rights.keys.contains(&pattern) {
            self.rights.keys.push(pattern);
        }
        Ok(())
    }

    fn put_all_commands(&mut self, allowed: bool) {
        self.all_commands = allowed;
        self.command_rules.clear();
        self.rights.commands = if allowed { CommandSet::all() } else { CommandSet::NONE };
    }

    fn put_commands(&mut self, value: &str, allowed: bool) -> Result<(), String> {
        let name = value.to_ascii_lowercase();
        if let Some(category) = name.strip_prefix('@') {
            if !CATEGORIES.contains(&category) {
                return Err("names a category that does not exist".to_owned());
            }
            for row in table::ROWS {
                let is_in = |row: &Row| row.categories().any(|of| of == category);
                std::iter::once(row)
                    .chain(row.subcommands)
                    .filter(|row| is_in(row))
                    .for_each(|row| self.rights.commands.put(row, allowed));
            }
        } else {
            self.rights.commands.put(find(&name)?, allowed);
        }
        // A later rule for the same thing stands for all earlier ones; one for a command also for those
        // of its subcommands.
        let below = format!("{name}|");
        self.command_rules.retain(|rule| {
            let earlier = rule.get(1..).unwrap_or_default();
            earlier != name && !earlier.starts_with(&below)
        });
        self.command_rules.push(format!("{}{name}", if allowed { '+' } else { '-' }));
        Ok(())
    }
}

/// The row of a command, or of a subcommand, that a rule names.
fn find(name: &str) -> Result<&'static Row, String> {
    let (command, sub) = match name.split_once('|') {
        Some((command, sub)) => (command, Some(sub)),
        None => (name, None),
    };
    let row = table::lookup(command.as_bytes());
    let row = row.ok_or("names a command that does not exist here")?;
    match sub {
        None => Ok(row),
        Some(_) if row.subcommands.is_empty() => {
            Err("names an argument: rules tell commands and subcommands apart only".to_owned())
        }
        Some(sub) => {
            let found = table::lookup_subcommand(row, sub.as_bytes());
            found.ok_or_else(|| "names a subcommand that does not exist here".to_owned())
        }
    }
}

fn after_all(what: &str) -> String {
    format!("comes after a rule that allows all {what}: write reset{what} before it")
}

const BAD_HASH: &str = "is not a # or ! with the 64 hex digits, in lower case, of a SHA-256";
const BAD_ACCESS: &str = "is not one of %R~pattern, %W~pattern and %RW~pattern";
const NO_SELECTORS: &str = "is about selectors, which do not exist here";
