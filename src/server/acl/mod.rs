//! Users of the ports for clients and what they may do, in the words of Redis's ACL files.
//!
//! ```text
//!   acl file ─► file: a line each ─► user: rule by rule ─► rights: commands, keys
//!   password file ─► the user `default`, where the acl file does not define it
//! ```
//!
//! [`Users`] never change: a reload puts others in their place, and each connection finds its user
//! anew by name before it runs its next requests. A connection whose user may do everything is not
//! checked at all.

mod file;
mod reply;
mod rights;
mod user;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use file::UsersError;
pub(in crate::server) use reply::run;
pub(in crate::server) use rights::Denied;
pub(in crate::server) use user::DEFAULT;
pub use user::User;

use crate::server::password::{Hash, Passwords};

/// Every user, by name. There always is a user `default`.
#[derive(Clone, Debug)]
pub struct Users {
    by_name: BTreeMap<Arc<str>, Arc<User>>,
    default: Arc<User>,
}

impl Users {
    /// One user, `default`, who may do everything; with one of the passwords, if there are any.
    pub fn with_passwords(passwords: Option<Passwords>) -> Self {
        Self::of(Vec::new(), passwords)
    }

    /// These users, and `default` if it is not among them. Names are different.
    fn of(users: Vec<User>, passwords: Option<Passwords>) -> Self {
        let mut by_name: BTreeMap<Arc<str>, Arc<User>> =
            users.into_iter().map(|user| (Arc::clone(&user.name), Arc::new(user))).collect();
        let made = || Arc::new(User::default_with(passwords));
        let default = Arc::clone(by_name.entry(DEFAULT.into()).or_insert_with(made));
        Self { by_name, default }
    }

    /// The user of connections that have not logged in.
    pub(in crate::server) const fn default_user(&self) -> &Arc<User> {
        &self.default
    }

    /// The user of this name.
    pub(in crate::server) fn get(&self, name: &str) -> Option<&Arc<User>> {
        self.by_name.get(name)
    }

    /// Every user, by name.
    fn all(&self) -> impl Iterator<Item = &Arc<User>> {
        self.by_name.values()
    }

    /// The user who logs in with these words. A user that does not exist, one that is off and a wrong
    /// password take the same time and are told apart by nothing.
    pub(in crate::server) fn log_in(&self, name: &[u8], password: &[u8]) -> Option<&Arc<User>> {
        let given = Hash::of(password);
        let user = str::from_utf8(name).ok().and_then(|name| self.by_name.get(name));
        let known = user.map_or(&self.default.passwords, |user| &user.passwords);
        let is_right = given.is_among(known);
        user.filter(|user| user.is_on && (user.needs_no_password || is_right))
    }
}

impl Default for Users {
    fn default() -> Self {
        Self::with_passwords(None)
    }
}

#[cfg(test)]
mod tests;
