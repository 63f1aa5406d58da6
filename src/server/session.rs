//! What one connection has chosen for itself.

use crate::resp::Proto;
use crate::types::Db;

/// The state of a connection, as its own commands change it.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// The protocol of replies.
    pub(super) proto: Proto,
    /// The database of commands on keys.
    pub(super) db: Db,
    /// Whether it may do everything: from the start, where there is no password.
    pub(super) authenticated: bool,
    /// `READONLY`: a cluster client reads from replicas too. Reads are served either way.
    pub(super) reads_replicas: bool,
    /// Which replies are sent.
    pub(super) answers: Answers,
}

/// Which replies are sent: `CLIENT REPLY`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Answers {
    /// All.
    #[default]
    On,
    /// None.
    Off,
    /// All but the next one.
    SkipNext,
}

impl Session {
    /// A new connection's state.
    pub(super) fn new(authenticated: bool) -> Self {
        Self { authenticated, ..Self::default() }
    }

    /// Whether the reply of the next request is sent.
    pub(super) fn answers_next(&mut self) -> bool {
        match self.answers {
            Answers::On => true,
            Answers::Off => false,
            Answers::SkipNext => {
                self.answers = Answers::On;
                false
            }
        }
    }
}
