//! Why a command was refused. The texts are those of Redis, to the byte.

use thiserror::Error;

use crate::resp::{Encoder, errors};

/// Why a command was refused; answered as an error reply. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CommandError {
    /// There is no such command or subcommand; the whole reply, which quotes the client's bytes.
    #[error("{}", String::from_utf8_lossy(.0))]
    Unknown(Vec<u8>),
    /// The number of arguments is not what the command takes; its full name.
    #[error("ERR wrong number of arguments for '{0}' command")]
    WrongArity(&'static str),
    /// Options contradict each other, are unknown, or lack their argument.
    #[error("ERR syntax error")]
    Syntax,
    /// An argument or a value is not an integer of 64 bits.
    #[error("ERR value is not an integer or out of range")]
    NotAnInteger,
    /// An argument or a value is not a floating-point number.
    #[error("ERR value is not a valid float")]
    NotAFloat,
    /// The sum does not fit 64 bits.
    #[error("ERR increment or decrement would overflow")]
    Overflow,
    /// The number to subtract has no negative in 64 bits.
    #[error("ERR decrement would overflow")]
    DecrementOverflow,
    /// The sum is not a number.
    #[error("ERR increment would produce NaN or Infinity")]
    NotFinite,
    /// The expiry is not a time to come, or does not fit; the command's name.
    #[error("ERR invalid expire time in '{0}' command")]
    InvalidExpire(&'static str),
    /// A position before the start of a string.
    #[error("ERR offset is out of range")]
    Offset,
    /// The value would be longer than this node takes.
    #[error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")]
    TooLong,
    /// `NX` with another condition.
    #[error("ERR NX and XX, GT or LT options at the same time are not compatible")]
    NxWithOthers,
    /// `GT` with `LT`.
    #[error("ERR GT and LT options at the same time are not compatible")]
    GtWithLt,
    /// An option of an expiry command that does not exist; the whole reply.
    #[error("{}", String::from_utf8_lossy(.0))]
    UnsupportedOption(Vec<u8>),
    /// Not a cursor.
    #[error("ERR invalid cursor")]
    Cursor,
    /// The keys of a command that must be atomic lie in several slots.
    #[error("{}", errors::CROSSSLOT)]
    CrossSlot,
    /// `COMMAND GETKEYS` of a command without keys.
    #[error("ERR The command has no key arguments")]
    NoKeys,
    /// `COMMAND GETKEYS` of what is no command.
    #[error("ERR Invalid command specified")]
    InvalidCommand,
    /// `COMMAND GETKEYS` with too few or too many arguments.
    #[error("ERR Invalid number of arguments specified for command")]
    InvalidArity,
    /// `OBJECT IDLETIME`: uses are counted, their times are not kept. As Redis with such a policy.
    #[error(
        "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when \
         switching between policies at runtime LRU and LFU data will take some time to adjust."
    )]
    NoIdleTimes,
    /// The memory budget is used up and nothing may be evicted. Redis refuses fewer commands for it.
    #[error("{}", errors::OOM)]
    OutOfMemory,
    /// The key is not there, and its delete would have to be remembered beside more than there is room
    /// for. Redis has none such: it does not remember deletes.
    #[error(
        "OOM too many deletes are remembered: this one, of a key that is not there, is refused until \
         older ones are forgotten, a minute after them"
    )]
    TooManyTombstones,
    /// A row that does not run at a slot was executed there: a peer sent what it must not.
    #[error("ERR this command does not run at a slot")]
    NotAtASlot,
}

impl CommandError {
    /// Answers with this error.
    pub fn encode(&self, reply: &mut Encoder<'_>) {
        match self {
            Self::Unknown(text) | Self::UnsupportedOption(text) => reply.error(text),
            other => reply.error(other.to_string()),
        }
    }
}
