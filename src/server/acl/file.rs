//! Users from the files that the settings name.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::config::ClientConfig;
use crate::config::keys;
use crate::limits::{ACL_FILE_MAX, USERS_MAX};
use crate::server::acl::Users;
use crate::server::acl::user::{DEFAULT, User};
use crate::server::password::{Passwords, PasswordsError};

/// Why there are no users. The node must not start with it; a running one stays as it was.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UsersError {
    /// A file could not be read.
    #[error("{setting} {}: cannot be read: {source}", path.display())]
    Read {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is larger than any such file.
    #[error("{setting} {}: has more than {ACL_FILE_MAX} bytes", path.display())]
    TooLarge {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The password file gives none.
    #[error("{} {}: {source}", keys::PASSWORD_FILE, path.display())]
    Passwords {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PasswordsError,
    },
    /// A line of the ACL file is wrong.
    #[error("{}:{line}: {message}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        message: String,
    },
    /// Everybody could do something from everywhere.
    #[error(
        "{} {}: the user `default` needs no password, and clients are received beyond loopback: give it \
         a password, turn it off, or set client.danger_allow_anonymous",
        keys::ACL_FILE, path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
    },
}

impl Users {
    /// Reads the files that the settings name.
    pub fn read(config: &ClientConfig) -> Result<Self, UsersError> {
        let passwords = match &config.password_file {
            Some(path) => {
                let text = read(keys::PASSWORD_FILE, path)?;
                let passwords = Passwords::from_lines(&text);
                let wrong = |source| UsersError::Passwords { path: path.clone(), source };
                Some(passwords.map_err(wrong)?)
            }
            None => None,
        };
        let Some(path) = &config.acl_file else {
            return Ok(Self::with_passwords(passwords));
        };
        let users = parse(&read(keys::ACL_FILE, path)?)
            .map_err(|(line, message)| UsersError::Line { path: path.clone(), line, message })?;
        if passwords.is_some() && users.iter().any(|user| user.name() == DEFAULT) {
            tracing::warn!(
                file = %path.display(),
                "the password file is not used: the ACL file defines the user `default`"
            );
        }
        let users = Self::of(users, passwords);
        if users.default_user().is_open()
            && config.lets_strangers_connect()
            && !config.danger_allow_anonymous
        {
            return Err(UsersError::Open { path: path.clone() });
        }
        Ok(users)
    }
}

fn read(setting: &'static str, path: &Path) -> Result<String, UsersError> {
    let failed = |source| UsersError::Read { setting, path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o777;
    if mode & 0o007 != 0 {
        let (file, mode) = (path.display(), format!("{mode:03o}"));
        tracing::warn!(%file, mode, "a file of passwords is open to other users: run chmod 600");
    }
    let mut text = String::new();
    file.take(ACL_FILE_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > ACL_FILE_MAX {
        return Err(UsersError::TooLarge { setting, path: path.to_owned() });
    }
    Ok(text)
}

/// The users of an ACL file; else the number of a line, and what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Vec<User>, (usize, String)> {
    let (mut users, mut names) = (Vec::new(), BTreeSet::new());
    for (number, line) in (1..).zip(text.lines()) {
        let wrong = |message: String| (number, message);
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            None => continue,
            Some(word) if word.starts_with('#') => continue,
            Some("user") => {}
            Some(_) => {
                return Err(wrong("a line begins with `user`, or with # and is none".into()));
            }
        }
        let name = words.next().ok_or_else(|| wrong("`user` needs a name".to_owned()))?;
        if name.contains(char::is_control) {
            return Err(wrong("a name has no control characters".to_owned()));
        }
        if !names.insert(name) {
            return Err(wrong(format!("the user {name:?} is defined twice")));
        }
        let mut user = User::nobody(name);
        for (place, rule) in (1..).zip(words) {
            // A rule may hold a password: it is named by its place where it could.
            let may_hold_one = rule.starts_with(['>', '<', '#', '!']) || !is_plain(rule);
            let shown = if may_hold_one {
                format!("rule {place}")
            } else {
                format!("rule {place}, {rule:?},")
            };
            user.apply(rule)
                .map_err(|message| wrong(format!("user {name:?}: {shown} {message}")))?;
        }
        users.push(user);
        if users.len() > USERS_MAX {
            return Err(wrong(format!("more than {USERS_MAX} users")));
        }
    }
    Ok(users)
}

/// Whether a rule begins as one that names commands, keys or channels.
fn is_plain(rule: &str) -> bool {
    rule.starts_with(['+', '-', '~', '%', '&', '(']) || rule.bytes().all(|b| b.is_ascii_lowercase())
}
