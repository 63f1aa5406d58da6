//! Whether a connection may run a request: before a login hardly any, then what its user may.

use crate::command::{CommandError, Flags, Row, parse};
use crate::resp::{Encoder, errors};
use crate::server::Server;
use crate::server::acl::Denied;
use crate::server::clients::Client;
use crate::server::session::Session;

/// Why a request was not even started.
pub(super) enum Refused {
    /// There is no such command, or not with so many arguments.
    Command(CommandError),
    /// A login is needed first.
    Unauthenticated,
    /// The user lacks the right to it.
    Denied(&'static Row, Denied),
}

impl Refused {
    pub(super) fn encode(&self, reply: &mut Encoder<'_>) {
        match self {
            Self::Command(error) => error.encode(reply),
            Self::Unauthenticated => reply.error(errors::NOAUTH),
            Self::Denied(row, Denied::Command) => reply.error(errors::no_permission(row.name)),
            Self::Denied(_, Denied::Key) => reply.error(errors::NOPERM_KEY),
        }
    }
}

/// Takes the rights that the connection's user has now. Without such a user the connection ends.
pub(super) fn renew(session: &mut Session, server: &Server, client: &Client) {
    let live = server.live();
    if session.is_outdated(&live) && !session.renew(&live) {
        client.close();
    }
}

/// The row of a request that this connection may run. Who may do everything pays for one look.
pub(super) fn admit(
    row: Option<&'static Row>,
    args: &[&[u8]],
    session: &Session,
) -> Result<&'static Row, Refused> {
    let row = match row {
        Some(row) => row,
        None => parse::resolve(args).map_err(Refused::Command)?,
    };
    if session.is_free || row.flags.has(Flags::NO_AUTH) {
        return Ok(row);
    }
    if !session.authenticated {
        return Err(Refused::Unauthenticated);
    }
    session.user.check(row, args).map(|()| row).map_err(|denied| Refused::Denied(row, denied))
}
