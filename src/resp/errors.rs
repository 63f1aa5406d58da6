//! The error texts by which client libraries decide what to do: they match on the first word, and
//! some on more. Changing one is a change of protocol.

use std::net::SocketAddr;

use crate::types::Slot;

/// The command is for another kind of value.
pub const WRONGTYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";
/// A password is needed first.
pub const NOAUTH: &str = "NOAUTH Authentication required.";
/// The password or the user is wrong.
pub const WRONGPASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";
/// A key is none of the user's.
pub const NOPERM_KEY: &str =
    "NOPERM this user has no permissions to access one of the keys used as arguments";
/// `AUTH` on a node without a password.
pub const AUTH_WITHOUT_PASSWORD: &str = "ERR AUTH <password> called without any password \
configured for the default user. Are you sure your configuration is correct?";
/// `HELLO` without `AUTH` on a node with a password.
pub const HELLO_NOAUTH: &str = "NOAUTH HELLO must be called with the client already \
authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate \
the client and select the RESP protocol version at the same time";
/// `HELLO` with a version that does not exist.
pub const NOPROTO: &str = "NOPROTO unsupported protocol version";
/// Keys of a command that must be atomic lie in several slots.
pub const CROSSSLOT: &str = "CROSSSLOT Keys in request don't hash to the same slot";
/// The memory budget is used up and nothing may be evicted.
pub const OOM: &str = "OOM command not allowed when used memory > 'maxmemory'.";
/// Too few copies for the acknowledgements asked for.
pub const NOREPLICAS: &str = "NOREPLICAS Not enough good replicas to write.";
/// A transaction was given up because one of its commands was refused.
pub const EXECABORT: &str = "EXECABORT Transaction discarded because of previous errors.";
/// The connection limit is reached.
pub const MAX_CLIENTS: &str = "ERR max number of clients reached";
/// The node is not part of a cluster yet, and knows nobody to pass a command to.
pub const LOADING: &str = "LOADING this node is not part of a cluster yet";
/// Options that contradict each other, or are unknown.
pub const SYNTAX: &str = "ERR syntax error";

/// The longest part of a client's own bytes that an error quotes; as in Redis.
const QUOTED_MAX: usize = 128;

/// The command, or the subcommand by its whole name, is none of the user's.
pub fn no_permission(command: &str) -> String {
    format!("NOPERM this user has no permissions to run the '{command}' command")
}

/// The key's slot is acted for at another node.
pub fn moved(slot: Slot, to: SocketAddr) -> String {
    format!("MOVED {slot} {to}")
}

/// Certainly not executed, try again: client libraries repeat it by themselves.
pub fn try_again(why: &str) -> String {
    format!("TRYAGAIN {why}")
}

/// The node stood still since the connection was made, which is closed with this: what comes over it
/// may be from before.
pub const STOOD_STILL: &str = "TRYAGAIN this node stood still for a while: connect anew";

/// The write may have been executed or not.
pub fn outcome_unknown(why: &str) -> String {
    format!("ERR outcome unknown: {why}")
}

/// There is no such command. The bytes that the client sent are quoted as they are.
pub fn unknown_command(args: &[&[u8]]) -> Vec<u8> {
    let name = quoted(args.first().copied().unwrap_or_default(), QUOTED_MAX);
    let mut listed = Vec::new();
    for arg in args.get(1..).unwrap_or_default() {
        if listed.len() >= QUOTED_MAX {
            break;
        }
        let room = QUOTED_MAX.saturating_sub(listed.len());
        listed.push(b'\'');
        listed.extend_from_slice(quoted(arg, room));
        listed.extend_from_slice(b"' ");
    }
    [b"ERR unknown command '", name, b"', with args beginning with: ", &listed].concat()
}

/// The command has no such subcommand. `container` is the command's name.
pub fn unknown_subcommand(container: &str, subcommand: &[u8]) -> Vec<u8> {
    let container = container.to_ascii_uppercase();
    let name = quoted(subcommand, QUOTED_MAX);
    [b"ERR unknown subcommand '", name, b"'. Try ", container.as_bytes(), b" HELP."].concat()
}

/// The start of what a client sent, up to the first zero byte.
fn quoted(bytes: &[u8], max: usize) -> &[u8] {
    let bytes = bytes.get(..max).unwrap_or(bytes);
    let end = memchr::memchr(0, bytes).unwrap_or(bytes.len());
    bytes.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_command_is_quoted_with_its_arguments() {
        assert_eq!(
            unknown_command(&[b"foo", b"bar", b"b\0az"]),
            b"ERR unknown command 'foo', with args beginning with: 'bar' 'b' "
        );
        let long = [b'x'; 500];
        assert!(unknown_command(&[&long, &long, &long, &long]).len() < 600);
    }

    #[test]
    fn moved_names_slot_and_address() {
        let slot = Slot::new(3999).unwrap();
        assert_eq!(moved(slot, "127.0.0.1:6381".parse().unwrap()), "MOVED 3999 127.0.0.1:6381");
    }
}
