//! What is known of a command before it runs: one [`Row`] of the table.

use crate::command::table::Id;

/// One command, or one subcommand of a container.
#[derive(Debug)]
pub struct Row {
    /// Which one it is.
    pub id: Id,
    /// The name in lower case; a subcommand's is `container|subcommand`.
    pub name: &'static str,
    /// How many arguments it takes, its name included (a subcommand's: both names); a negative
    /// number is the least.
    pub arity: i8,
    /// What it does and when it may run.
    pub flags: Flags,
    /// Which of its arguments are keys.
    pub keys: Keys,
    /// Where it runs.
    pub runs: Runs,
    /// The version of Redis that has it first.
    pub since: &'static str,
    /// The group in which the reference lists it.
    pub group: Group,
    /// One sentence.
    pub summary: &'static str,
    /// Hints for clients that split commands themselves.
    pub tips: &'static [&'static str],
    /// The rows of its subcommands; empty if it is no container.
    pub subcommands: &'static [Self],
}

impl Row {
    /// Whether it takes this many arguments, its name included.
    pub fn accepts(&self, args: usize) -> bool {
        let least = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 { args >= least } else { args == least }
    }

    /// Whether it changes data.
    pub const fn is_write(&self) -> bool {
        self.flags.has(Flags::WRITE)
    }

    /// Whether it must be refused when the memory budget is used up and nothing may be evicted.
    pub const fn needs_memory(&self) -> bool {
        self.flags.has(Flags::DENYOOM)
    }

    /// The part of the name that a client sends last: `id` of `client|id`.
    pub fn last_name(&self) -> &'static str {
        self.name.rsplit('|').next().unwrap_or(self.name)
    }

    /// The ACL categories, without the `@`, in the order in which Redis lists them.
    pub fn categories(&self) -> impl Iterator<Item = &'static str> {
        let flags = self.flags;
        [
            ("keyspace", flags.has(Flags::KEYSPACE)),
            ("read", flags.has(Flags::READONLY)),
            ("write", flags.has(Flags::WRITE)),
            ("string", flags.has(Flags::STRING)),
            ("admin", flags.has(Flags::ADMIN) || flags.has(Flags::ADMIN_CATEGORY)),
            ("fast", flags.has(Flags::FAST)),
            ("slow", !flags.has(Flags::FAST)),
            (
                "dangerous",
                flags.has(Flags::ADMIN)
                    || flags.has(Flags::ADMIN_CATEGORY)
                    || flags.has(Flags::DANGEROUS),
            ),
            ("connection", flags.has(Flags::CONNECTION)),
        ]
        .into_iter()
        .filter_map(|(name, has)| has.then_some(name))
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Row {}

/// What a command does and when it may run: a set of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u32);

macro_rules! flags {
    ($($(#[$doc:meta])* $bit:literal $name:ident $word:expr;)+) => {
        impl Flags {
            /// No flag.
            pub const NONE: Self = Self(0);
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)+

            /// The words by which `COMMAND` names the flags, in the order in which Redis does.
            pub fn words(self) -> impl Iterator<Item = &'static str> {
                [$((Self::$name, $word)),+]
                    .into_iter()
                    .filter_map(move |(flag, word)| if self.has(flag) { word } else { None })
            }
        }
    };
}

flags! {
    /// Changes data.
    0 WRITE Some("write");
    /// Reads data and changes none.
    1 READONLY Some("readonly");
    /// May need memory.
    2 DENYOOM Some("denyoom");
    /// For administration.
    3 ADMIN Some("admin");
    /// Not from scripts.
    4 NOSCRIPT Some("noscript");
    /// Also while a node is loading.
    5 LOADING Some("loading");
    /// Also while a node's data may be stale.
    6 STALE Some("stale");
    /// Takes a short time whatever the data.
    7 FAST Some("fast");
    /// Also before authentication.
    8 NO_AUTH Some("no_auth");
    /// Not while a node is loading in the background.
    9 NO_ASYNC_LOADING Some("no_async_loading");
    /// Also while a script is running.
    10 ALLOW_BUSY Some("allow_busy");
    /// May be repeated at another node when it was sent and not answered: once more changes neither
    /// the outcome nor the reply. Reads always may; see `parse::is_repeatable`.
    11 REPEATABLE None;
    /// ACL category `string`.
    12 STRING None;
    /// ACL category `keyspace`.
    13 KEYSPACE None;
    /// ACL category `connection`.
    14 CONNECTION None;
    /// ACL category `dangerous` without being for administration.
    15 DANGEROUS None;
    /// ACL categories `admin` and `dangerous` without the flag.
    16 ADMIN_CATEGORY None;
}

impl Flags {
    /// The flags of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all flags of `other` are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Which arguments are keys: from `first` to `last` in steps. No key if `first` is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Position of the first key.
    pub first: u8,
    /// Position of the last key; -1 is the last argument.
    pub last: i8,
    /// From one key to the next.
    pub step: u8,
    /// What happens to the keys, in the words of `COMMAND`.
    pub access: &'static [&'static str],
}

impl Keys {
    /// No key.
    pub const NONE: Self = Self { first: 0, last: 0, step: 0, access: &[] };

    /// The first argument.
    pub const fn one(access: &'static [&'static str]) -> Self {
        Self { first: 1, last: 1, step: 1, access }
    }

    /// The argument behind a subcommand's name.
    pub const fn second(access: &'static [&'static str]) -> Self {
        Self { first: 2, last: 2, step: 1, access }
    }

    /// All arguments.
    pub const fn all(access: &'static [&'static str]) -> Self {
        Self { first: 1, last: -1, step: 1, access }
    }

    /// Every other argument; values between them.
    pub const fn pairs(access: &'static [&'static str]) -> Self {
        Self { first: 1, last: -1, step: 2, access }
    }
}

/// Where a command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// At the connection: it is about the connection itself.
    Connection,
    /// At the node that was asked: it is about the node or the cluster.
    Node,
    /// Where the one slot of its keys is acted for.
    Slot,
    /// Split by slot, run at each, and the replies merged.
    FanOut(Merge),
    /// Over all slots: of the cluster, or on the cluster port of this node.
    Keyspace,
}

/// How the replies of the parts become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Integers are added.
    Sum,
    /// Arrays: each element takes the place of its key.
    Array,
    /// All are `OK`.
    Ok,
}

/// The group of a command in the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Commands on strings.
    String,
    /// Commands on keys of any type.
    Generic,
    /// Commands about the connection.
    Connection,
    /// Commands about the node.
    Server,
    /// Commands about the cluster.
    Cluster,
}

impl Group {
    /// The group's name as `COMMAND DOCS` gives it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Generic => "generic",
            Self::Connection => "connection",
            Self::Server => "server",
            Self::Cluster => "cluster",
        }
    }
}
