//! Checks of the secret and the clients' password.

use std::net::SocketAddr;

use crate::config::keys;

use super::Finding;
use super::facts::{Facts, Readable};

/// The secret is all that keeps strangers out of the cluster.
pub(super) fn secret(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "secret";
    let config = facts.config();
    let path = config.security.secret_file.as_ref().map(|path| path.display().to_string());
    let (Some(state), Some(path)) = (&facts.secret, path) else {
        // Settings with a gossip or peer address beyond loopback are refused without one.
        return vec![Finding::ok(CHECK, "none: nodes listen to each other on loopback only")];
    };
    vec![judged(CHECK, state, &path, "chickadee keygen --out FILE, the same file on every node")]
}

/// Who reaches a client port may read and write everything.
pub(super) fn password(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "password";
    let client = &facts.config().client;
    let path = client.password_file.as_ref().map(|path| path.display().to_string());
    if let (Some(state), Some(path)) = (&facts.password, path) {
        return vec![judged(CHECK, state, &path, "write one line to it, the same on every node")];
    }
    let beyond = |address: &&SocketAddr| !address.ip().is_loopback();
    let open = client.listen.iter().chain(&client.cluster_listen).find(beyond);
    vec![match open {
        Some(address) => Finding::warn(
            CHECK,
            format!("anybody who reaches {address} may read and write everything"),
            format!("set {} to a file with a password", keys::PASSWORD_FILE),
        ),
        None => Finding::ok(CHECK, "none: clients are served on loopback only"),
    }]
}

fn judged(check: &'static str, state: &Readable, path: &str, make: &str) -> Finding {
    match state {
        Readable::Good => Finding::ok(check, format!("{path} is good")),
        Readable::Denied => Finding::warn(
            check,
            format!("this user must not look at {path}"),
            "run the doctor as root, or as the node's user",
        ),
        Readable::Exposed(why) => Finding::fail(check, why, format!("chmod 600 {path}")),
        Readable::Bad(why) => Finding::fail(check, why, make),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level::{Fail, Ok, Warn};
    use super::super::facts::good;
    use super::*;

    #[test]
    fn a_secret_or_password_is_good_hidden_exposed_or_bad() {
        let mut facts = good();
        assert_eq!(secret(&facts)[0].level, Ok);
        facts.loaded.config.security.secret_file = Some("/etc/chickadee/secret".into());
        facts.loaded.config.client.password_file = Some("/etc/chickadee/password".into());
        for (state, expected) in [
            (Readable::Good, Ok),
            (Readable::Denied, Warn),
            (Readable::Exposed("open to other users".to_owned()), Fail),
            (Readable::Bad("too short".to_owned()), Fail),
        ] {
            facts.secret = Some(state.clone());
            facts.password = Some(state.clone());
            for finding in [secret(&facts), password(&facts)].concat() {
                assert_eq!(finding.level, expected, "{state:?} {finding:?}");
                assert_eq!(finding.fix.is_some(), expected != Ok, "{finding:?}");
            }
        }
    }

    #[test]
    fn an_open_client_port_without_a_password_is_warned_of() {
        let mut facts = good();
        assert_eq!(password(&facts)[0].level, Ok);
        facts.loaded.config.client.danger_allow_anonymous = true;
        facts.loaded.config.client.listen = vec!["0.0.0.0:6379".parse().unwrap()];
        let found = password(&facts);
        assert_eq!(found[0].level, Warn);
        assert!(found[0].found.contains("0.0.0.0:6379"), "{found:?}");
    }
}
