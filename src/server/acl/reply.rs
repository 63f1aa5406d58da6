//! `ACL`: looking at users, and reading their file again. Users are changed in the file.

use std::fmt::Write;

use crate::command::number::parse_integer;
use crate::command::{CommandError, Id, Row, table};
use crate::resp::{Encoder, errors};
use crate::server::about;
use crate::server::acl::User;
use crate::server::acl::user::CATEGORIES;
use crate::server::local::{Context, Refusal};
use crate::server::password::Hash;

const IN_THE_FILE: Refusal = Refusal::Fixed(
    "ERR users are defined in the file of client.acl_file: change it, then ACL LOAD or a reload",
);
const NO_FILE: Refusal = Refusal::Fixed(
    "ERR This Redis instance is not configured to use an ACL file. You may want to specify users via \
     the ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have a Redis configuration \
     file set) in order to store users in the Redis configuration.",
);
const BAD_BITS: Refusal = Refusal::Fixed(
    "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number \
     up to 4096",
);

/// Runs a command about users and appends its reply.
pub(in crate::server) fn run(
    row: &Row,
    args: &[&[u8]],
    context: &Context<'_>,
    reply: &mut Encoder<'_>,
) -> Result<(), Refusal> {
    let live = context.server.live();
    match (row.id, args.get(2..).unwrap_or_default()) {
        (Id::AclWhoAmI, _) => reply.bulk(context.session.user.name()),
        (Id::AclUsers, _) => {
            let names: Vec<&str> = live.users.all().map(|user| user.name()).collect();
            bulks(&names, reply);
        }
        (Id::AclList, _) => {
            let lines: Vec<String> = live.users.all().map(|user| user.line()).collect();
            bulks(&lines, reply);
        }
        (Id::AclGetUser, [name]) => {
            match str::from_utf8(name).ok().and_then(|name| live.users.get(name)) {
                Some(user) => show(user, reply),
                None => reply.null(),
            }
        }
        (Id::AclCat, []) => bulks(&CATEGORIES, reply),
        (Id::AclCat, [category]) => bulks(&in_category(category)?, reply),
        (Id::AclGenPass, options @ ([] | [_])) => {
            reply.bulk(generated(options.first().copied(), context)?);
        }
        (Id::AclLoad, _) if live.config.acl_file.is_none() => return Err(NO_FILE),
        (Id::AclLoad, _) => {
            let loaded = context.server.load_users();
            loaded.map_err(|error| Refusal::Text(format!("ERR {error}").into_bytes()))?;
            reply.ok();
        }
        (Id::AclSetUser | Id::AclDelUser | Id::AclSave, _) => return Err(IN_THE_FILE),
        (Id::AclHelp, _) => about::help("acl", reply),
        (Id::Acl, _) => {
            let sub = args.get(1).copied().unwrap_or_default();
            return Err(Refusal::Text(errors::unknown_subcommand(row.name, sub)));
        }
        _ => return Err(CommandError::WrongArity(row.name).into()),
    }
    Ok(())
}

fn bulks(texts: &[impl AsRef<[u8]>], reply: &mut Encoder<'_>) {
    reply.array(texts.len());
    for text in texts {
        reply.bulk(text);
    }
}

fn show(user: &User, reply: &mut Encoder<'_>) {
    reply.map(6);
    reply.bulk("flags");
    let flags: Vec<&str> = user.flags().collect();
    reply.set(flags.len());
    for flag in flags {
        reply.bulk(flag);
    }
    reply.bulk("passwords");
    let hashes: Vec<String> = user.passwords.iter().map(Hash::to_hex).collect();
    bulks(&hashes, reply);
    for (field, text) in [
        ("commands", user.commands_text()),
        ("keys", user.keys_text()),
        ("channels", user.channels_text()),
    ] {
        reply.bulk(field);
        reply.bulk(text);
    }
    reply.bulk("selectors");
    reply.array(0);
}

fn in_category(category: &[u8]) -> Result<Vec<&'static str>, Refusal> {
    let wanted = category.to_ascii_lowercase();
    if !CATEGORIES.iter().any(|known| known.as_bytes() == wanted) {
        return Err(Refusal::Text([&b"ERR Unknown category '"[..], category, b"'"].concat()));
    }
    let rows = table::ROWS.iter().flat_map(|row| std::iter::once(row).chain(row.subcommands));
    let is_in = |row: &&Row| row.categories().any(|of| of.as_bytes() == wanted);
    Ok(rows.filter(is_in).map(|row| row.name).collect())
}

/// So many random bits, 256 if nothing is said, as hex digits.
fn generated(bits: Option<&[u8]>, context: &Context<'_>) -> Result<String, Refusal> {
    let bits = bits.map_or(Ok(256), parse_integer)?;
    let bits = usize::try_from(bits).ok().filter(|bits| (1..=4096).contains(bits));
    let digits = bits.ok_or(BAD_BITS)?.div_ceil(4);
    let mut text = String::with_capacity(digits + 16);
    while text.len() < digits {
        let _writing_to_a_string_works = write!(text, "{:016x}", context.server.rng.next_u64());
    }
    text.truncate(digits);
    Ok(text)
}
