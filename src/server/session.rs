//! What one connection has chosen for itself.

use std::sync::Arc;

use crate::resp::Proto;
use crate::server::Live;
use crate::server::acl::User;
use crate::types::Db;

/// The state of a connection, as its own commands change it.
#[derive(Debug)]
pub(super) struct Session {
    /// The protocol of replies.
    pub(super) proto: Proto,
    /// The database of commands on keys.
    pub(super) db: Db,
    /// Whose it is; `default` before a login.
    pub(super) user: Arc<User>,
    /// Which of the node's sets of users that one was taken from.
    users: u64,
    /// Whether it has logged in, or did not need to.
    pub(super) authenticated: bool,
    /// Whether it may do everything, so that nothing has to be checked.
    pub(super) is_free: bool,
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
    pub(super) fn new(live: &Live) -> Self {
        let user = Arc::clone(live.users.default_user());
        let mut session = Self {
            proto: Proto::default(),
            db: Db::default(),
            authenticated: user.is_open(),
            user,
            users: live.users_number,
            is_free: false,
            reads_replicas: false,
            answers: Answers::default(),
        };
        session.weigh();
        session
    }

    /// Makes it a connection of `user`, who has proved that.
    pub(super) fn become_user(&mut self, user: &Arc<User>, live: &Live) {
        self.user = Arc::clone(user);
        self.users = live.users_number;
        self.authenticated = true;
        self.weigh();
    }

    /// Whether other users have been read since its own was looked up.
    pub(super) fn is_outdated(&self, live: &Live) -> bool {
        self.users != live.users_number
    }

    /// Takes the present rights of its user; `false` if there is none any more who could log in, and
    /// then it may do nothing.
    pub(super) fn renew(&mut self, live: &Live) -> bool {
        self.users = live.users_number;
        let found = live.users.get(self.user.name());
        if let Some(user) = found {
            self.user = Arc::clone(user);
            let is_default = Arc::ptr_eq(user, live.users.default_user());
            self.authenticated |= is_default && user.is_open();
        }
        let stays = !self.authenticated || found.is_some_and(|user| user.is_on());
        self.authenticated &= stays;
        self.weigh();
        stays
    }

    fn weigh(&mut self) {
        self.is_free = self.authenticated && self.user.is_free();
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
