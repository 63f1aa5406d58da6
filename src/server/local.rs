//! Commands about the connection itself.

use crate::audit;
use crate::command::number::parse_integer;
use crate::command::{CommandError, Id, Row};
use crate::limits;
use crate::resp::{Encoder, Proto, errors};
use crate::server::acl::{DEFAULT, Users};
use crate::server::clients::Client;
use crate::server::session::{Answers, Session};
use crate::server::{Backend, CHICKADEE_VERSION, Port, REDIS_VERSION, Server, about};
use crate::types::Db;

/// What follows a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// The next one.
    Continue,
    /// The next one, and no reply to this one.
    Silent,
    /// The connection closes once the reply is written.
    Close,
}

/// What commands about the connection and the node may look at and change.
pub(super) struct Context<'a> {
    pub(super) server: &'a Server,
    pub(super) backend: &'a dyn Backend,
    pub(super) client: &'a Client,
    pub(super) session: &'a mut Session,
    pub(super) port: Port,
}

/// Why a command was refused: its whole error reply.
pub(super) enum Refusal {
    /// One of the fixed texts.
    Fixed(&'static str),
    /// A text that quotes.
    Text(Vec<u8>),
}

impl From<CommandError> for Refusal {
    fn from(error: CommandError) -> Self {
        Self::Text(error.to_string().into_bytes())
    }
}

impl Refusal {
    pub(super) fn encode(&self, reply: &mut Encoder<'_>) {
        match self {
            Self::Fixed(text) => reply.error(text),
            Self::Text(text) => reply.error(text),
        }
    }
}

pub(super) const SYNTAX: Refusal = Refusal::Fixed(errors::SYNTAX);
const BAD_NAME: Refusal =
    Refusal::Fixed("ERR Client names cannot contain spaces, newlines or special characters.");

type Done = Result<After, Refusal>;

/// Runs a command about the connection and appends its reply.
pub(super) fn run(
    row: &Row,
    args: &[&[u8]],
    context: &mut Context<'_>,
    out: &mut Vec<u8>,
) -> After {
    // HELLO answers in the protocol that it asks for, all others in the one before.
    let proto = context.session.proto;
    match execute(row, args, context, out) {
        Ok(after) => after,
        Err(refusal) => {
            refusal.encode(&mut Encoder::new(out, proto));
            After::Continue
        }
    }
}

fn execute(row: &Row, args: &[&[u8]], context: &mut Context<'_>, out: &mut Vec<u8>) -> Done {
    let mut reply = Encoder::new(out, context.session.proto);
    match (row.id, args) {
        (Id::Ping, [_]) => reply.simple("PONG"),
        (Id::Ping | Id::Echo, [_, message]) => reply.bulk(message),
        (Id::Select, [_, number]) => select(number, context, &mut reply)?,
        (Id::Auth, [_, credentials @ ..]) => auth(credentials, context, &mut reply)?,
        (Id::Hello, _) => hello(args, context, out)?,
        (Id::Quit, _) => {
            reply.ok();
            return Ok(After::Close);
        }
        (Id::Reset, _) => {
            reset(context);
            Encoder::new(out, Proto::Resp2).simple("RESET");
        }
        (Id::ReadOnly | Id::ReadWrite, _) => {
            context.session.reads_replicas = row.id == Id::ReadOnly;
            reply.ok();
        }
        (Id::Asking, _) => reply.ok(),
        (Id::Client, [_, sub, ..]) => {
            let text = errors::unknown_subcommand(row.name, sub);
            return Err(Refusal::Text(text));
        }
        _ if row.name.starts_with("client|") => return client(row, args, context, &mut reply),
        _ => return Err(CommandError::WrongArity(row.name).into()),
    }
    Ok(After::Continue)
}

fn select(
    number: &[u8],
    context: &mut Context<'_>,
    reply: &mut Encoder<'_>,
) -> Result<(), Refusal> {
    let number = parse_integer(number)?;
    let db = u8::try_from(number).ok().and_then(Db::new);
    let db = db.ok_or(Refusal::Fixed("ERR DB index is out of range"))?;
    context.session.db = db;
    context.client.show(|shown| shown.db = db);
    reply.ok();
    Ok(())
}

fn auth(
    credentials: &[&[u8]],
    context: &mut Context<'_>,
    reply: &mut Encoder<'_>,
) -> Result<(), Refusal> {
    match credentials {
        [_password] if context.server.live().users.default_user().is_open() => {
            return Err(Refusal::Fixed(errors::AUTH_WITHOUT_PASSWORD));
        }
        [password] => log_in(DEFAULT.as_bytes(), password, context)?,
        [user, password] => log_in(user, password, context)?,
        _ => return Err(SYNTAX),
    }
    reply.ok();
    Ok(())
}

fn log_in(user: &[u8], password: &[u8], context: &mut Context<'_>) -> Result<(), Refusal> {
    let live = context.server.live();
    let Some(user) = live.users.log_in(user, password) else {
        context.server.refuse_login(context.client, user);
        return Err(Refusal::Fixed(errors::WRONGPASS));
    };
    let (from, name) = (context.client.from(), user.name());
    tracing::debug!(target: audit::TARGET, %from, user = name, "client logged in");
    context.session.become_user(user, &live);
    context.client.show(|shown| shown.user = Some(user.name().to_owned()));
    Ok(())
}

fn hello(args: &[&[u8]], context: &mut Context<'_>, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let mut proto = context.session.proto;
    let mut options: &[&[u8]] = &[];
    if let [_, version, rest @ ..] = args {
        let number = parse_integer(version).map_err(|_| {
            Refusal::Fixed("ERR Protocol version is not an integer or out of range")
        })?;
        let known = u8::try_from(number).ok().and_then(Proto::new);
        proto = known.ok_or(Refusal::Fixed(errors::NOPROTO))?;
        options = rest;
    }
    let (mut credentials, mut name) = (None, None);
    while let [option, rest @ ..] = options {
        options = match rest {
            [user, password, rest @ ..] if option.eq_ignore_ascii_case(b"AUTH") => {
                credentials = Some((*user, *password));
                rest
            }
            [given, rest @ ..] if option.eq_ignore_ascii_case(b"SETNAME") => {
                name = Some(valid_name(given).ok_or(BAD_NAME)?);
                rest
            }
            _ => {
                let text = [&b"ERR Syntax error in HELLO option '"[..], option, b"'"].concat();
                return Err(Refusal::Text(text));
            }
        };
    }
    if let Some((user, password)) = credentials {
        log_in(user, password, context)?;
    }
    if !context.session.authenticated {
        return Err(Refusal::Fixed(errors::HELLO_NOAUTH));
    }
    if let Some(name) = name {
        context.client.show(|shown| shown.name = name);
    }
    context.session.proto = proto;
    context.client.show(|shown| shown.proto = proto);
    let id = i64::try_from(context.client.id()).unwrap_or(i64::MAX);
    let mut reply = Encoder::new(out, proto);
    reply.map(8);
    for (field, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
        reply.bulk(field);
        reply.bulk(value);
    }
    for (field, value) in [("proto", i64::from(proto.number())), ("id", id)] {
        reply.bulk(field);
        reply.integer(value);
    }
    let mode = about::mode(context.port);
    for (field, value) in [("mode", mode), ("role", "master")] {
        reply.bulk(field);
        reply.bulk(value);
    }
    reply.bulk("modules");
    reply.array(0);
    reply.bulk("chickadee_version");
    reply.bulk(CHICKADEE_VERSION);
    Ok(())
}

fn reset(context: &mut Context<'_>) {
    *context.session = Session::new(&context.server.live());
    let user = context.session.authenticated.then(|| DEFAULT.to_owned());
    context.client.show(|shown| {
        shown.user = user;
        shown.name = Vec::new();
        shown.db = Db::default();
        shown.proto = Proto::default();
    });
}

/// A name without spaces or control characters; `None` if it is not one.
fn valid_name(name: &[u8]) -> Option<Vec<u8>> {
    let printable = name.iter().all(|byte| (b'!'..=b'~').contains(byte));
    (printable && name.len() <= limits::CLIENT_NAME_MAX).then(|| name.to_vec())
}

fn client(row: &Row, args: &[&[u8]], context: &mut Context<'_>, reply: &mut Encoder<'_>) -> Done {
    let now = context.server.clock.now();
    match (row.id, args.get(2..).unwrap_or_default()) {
        (Id::ClientId, _) => reply.integer(i64::try_from(context.client.id()).unwrap_or(i64::MAX)),
        (Id::ClientGetName, _) => {
            let name = context.client.shown().name;
            reply.optional(Some(&*name).filter(|name| !name.is_empty()));
        }
        (Id::ClientSetName, [name]) => {
            let name = valid_name(name).ok_or(BAD_NAME)?;
            context.client.show(|shown| shown.name = name);
            reply.ok();
        }
        (Id::ClientSetInfo, [field, value]) => {
            set_info(field, value, context)?;
            reply.ok();
        }
        (Id::ClientInfo, _) => reply.verbatim(*b"txt", context.client.line(now) + "\n"),
        (Id::ClientList, filter) => list(filter, context, reply)?,
        (Id::ClientKill, filter) => return kill(filter, context, reply),
        (Id::ClientReply, [mode]) => return answers(mode, context, reply),
        (Id::ClientNoEvict | Id::ClientNoTouch, [switch]) => {
            on_or_off(switch)?;
            reply.ok();
        }
        (Id::ClientTracking, [switch, ..]) => {
            if on_or_off(switch)? {
                return Err(Refusal::Fixed("ERR client side caching is not supported"));
            }
            reply.ok();
        }
        (Id::ClientHelp, _) => about::help("client", reply),
        _ => return Err(CommandError::WrongArity(row.name).into()),
    }
    Ok(After::Continue)
}

fn on_or_off(switch: &[u8]) -> Result<bool, Refusal> {
    match switch.to_ascii_lowercase().as_slice() {
        b"on" => Ok(true),
        b"off" => Ok(false),
        _ => Err(SYNTAX),
    }
}

fn set_info(field: &[u8], value: &[u8], context: &Context<'_>) -> Result<(), Refusal> {
    let name = field.to_ascii_lowercase();
    if !matches!(name.as_slice(), b"lib-name" | b"lib-ver") {
        return Err(Refusal::Text([&b"ERR Unrecognized option '"[..], field, b"'"].concat()));
    }
    let refusal = || {
        let text =
            [&name, &b" cannot contain spaces, newlines or special characters."[..]].concat();
        Refusal::Text([b"ERR ", text.as_slice()].concat())
    };
    let value = valid_name(value).ok_or_else(refusal)?;
    context.client.show(|shown| match name.as_slice() {
        b"lib-name" => shown.library = value,
        _ => shown.library_version = value,
    });
    Ok(())
}

fn answers(mode: &[u8], context: &mut Context<'_>, reply: &mut Encoder<'_>) -> Done {
    match mode.to_ascii_lowercase().as_slice() {
        b"on" => {
            context.session.answers = Answers::On;
            reply.ok();
            Ok(After::Continue)
        }
        b"off" => {
            context.session.answers = Answers::Off;
            Ok(After::Silent)
        }
        b"skip" => {
            if context.session.answers != Answers::Off {
                context.session.answers = Answers::SkipNext;
            }
            Ok(After::Silent)
        }
        _ => Err(SYNTAX),
    }
}

fn client_id(text: &[u8]) -> Option<u64> {
    parse_integer(text).ok().and_then(|id| u64::try_from(id).ok()).filter(|id| *id > 0)
}

/// Whether this type of client is one that exists here.
fn is_normal(kind: &[u8]) -> Result<bool, Refusal> {
    match kind.to_ascii_lowercase().as_slice() {
        b"normal" => Ok(true),
        b"master" | b"replica" | b"slave" | b"pubsub" => Ok(false),
        _ => Err(Refusal::Text([&b"ERR Unknown client type '"[..], kind, b"'"].concat())),
    }
}

fn list(filter: &[&[u8]], context: &Context<'_>, reply: &mut Encoder<'_>) -> Result<(), Refusal> {
    let all = context.server.clients.all();
    let chosen: Vec<_> = match filter {
        [] => all,
        [name, kind] if name.eq_ignore_ascii_case(b"TYPE") => {
            if is_normal(kind)? {
                all
            } else {
                Vec::new()
            }
        }
        [name, ids @ ..] if name.eq_ignore_ascii_case(b"ID") && !ids.is_empty() => {
            let ids: Option<Vec<u64>> = ids.iter().map(|id| client_id(id)).collect();
            let ids = ids.ok_or(Refusal::Fixed("ERR Invalid client ID"))?;
            all.into_iter().filter(|client| ids.contains(&client.id())).collect()
        }
        _ => return Err(SYNTAX),
    };
    let now = context.server.clock.now();
    let lines: String = chosen.iter().map(|client| client.line(now) + "\n").collect();
    reply.verbatim(*b"txt", lines);
    Ok(())
}

/// Whom `CLIENT KILL` means.
#[derive(Default)]
struct Victims<'a> {
    id: Option<u64>,
    from: Option<&'a [u8]>,
    to: Option<&'a [u8]>,
    user: Option<&'a [u8]>,
    none: bool,
    skip_me: bool,
}

impl Victims<'_> {
    fn include(&self, client: &Client, me: u64) -> bool {
        let is = |address: &[u8], real: String| real.as_bytes() == address;
        !(self.none
            || self.skip_me && client.id() == me
            || self.id.is_some_and(|id| id != client.id())
            || self.user.is_some_and(|name| client.shown().user_name().as_bytes() != name)
            || self.from.is_some_and(|from| !is(from, client.from().to_string()))
            || self.to.is_some_and(|to| !is(to, client.to().to_string())))
    }
}

fn victims<'a>(filter: &[&'a [u8]], users: &Users) -> Result<Victims<'a>, Refusal> {
    let mut victims = Victims { skip_me: true, ..Victims::default() };
    for pair in filter.chunks(2) {
        let [name, value] = pair else { return Err(SYNTAX) };
        match name.to_ascii_lowercase().as_slice() {
            b"id" => {
                let id = client_id(value);
                let refusal = Refusal::Fixed("ERR client-id should be greater than 0");
                victims.id = Some(id.ok_or(refusal)?);
            }
            b"addr" => victims.from = Some(value),
            b"laddr" => victims.to = Some(value),
            b"type" => victims.none |= !is_normal(value)?,
            b"user" => {
                let known = str::from_utf8(value).is_ok_and(|name| users.get(name).is_some());
                if !known {
                    return Err(Refusal::Text([&b"ERR No such user '"[..], value, b"'"].concat()));
                }
                victims.user = Some(value);
            }
            b"skipme" => {
                victims.skip_me = match value.to_ascii_lowercase().as_slice() {
                    b"yes" => true,
                    b"no" => false,
                    _ => return Err(SYNTAX),
                };
            }
            _ => return Err(SYNTAX),
        }
    }
    Ok(victims)
}

fn kill(filter: &[&[u8]], context: &Context<'_>, reply: &mut Encoder<'_>) -> Done {
    let one = matches!(filter, [_]);
    let victims = match filter {
        [address] => Victims { from: Some(address), ..Victims::default() },
        _ => victims(filter, &context.server.live().users)?,
    };
    let me = context.client.id();
    let (mut killed, mut after) = (0_usize, After::Continue);
    for client in context.server.clients.all() {
        if !victims.include(&client, me) {
            continue;
        }
        killed = killed.saturating_add(1);
        if client.id() == me {
            after = After::Close;
        } else {
            client.close();
        }
    }
    match (one, killed) {
        (true, 0) => return Err(Refusal::Fixed("ERR No such client")),
        (true, _) => reply.ok(),
        (false, _) => reply.count(killed),
    }
    Ok(after)
}
