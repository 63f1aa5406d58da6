//! Checks of the certificates that the settings name.

use std::time::Duration;

use crate::admin::status::Stamp;
use crate::cli::output::span;
use crate::limits::CERTIFICATE_WARNING;

use super::Finding;
use super::facts::{CertificateFile, Facts, Validity};

const CHECK: &str = "certificates";

/// Each file of certificates is there and counts today, and for some days more.
pub(super) fn certificates(facts: &Facts) -> Vec<Finding> {
    facts.certificates.iter().map(|file| judged(file, facts)).collect()
}

fn judged(file: &CertificateFile, facts: &Facts) -> Finding {
    let named = format!("{} {}", file.key, file.path.display());
    let exchange = "put a new one in its place, then `systemctl reload chickadee`";
    let (from, until) = match &file.validity {
        Validity::Between(from, until) => (*from, *until),
        Validity::Denied => {
            let found = format!("this user must not look at {named}");
            return Finding::warn(CHECK, found, "run the doctor as root, or as the node's user");
        }
        Validity::Bad(why) => {
            let fix = format!("point {} to a file of certificates in PEM form", file.key);
            return Finding::fail(CHECK, why, fix);
        }
    };
    let left = Duration::from_millis(until.saturating_since(facts.now));
    if facts.now < from {
        let found = format!("{named} counts from {} on only", Stamp(from));
        return Finding::fail(CHECK, found, "set the clock of this machine, or wait");
    }
    if left.is_zero() {
        return Finding::fail(CHECK, format!("{named} ended at {}", Stamp(until)), exchange);
    }
    let found = format!("{named} ends at {}, in {}", Stamp(until), span(left.as_secs_f64()));
    if left > CERTIFICATE_WARNING.0 {
        Finding::ok(CHECK, found)
    } else {
        Finding::warn(CHECK, found, exchange)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level::{Fail, Ok, Warn};
    use super::super::facts::good;
    use super::*;
    use crate::config::keys;
    use crate::types::WallMillis;

    #[test]
    fn a_certificate_is_good_ends_soon_ended_begins_later_or_cannot_be_read() {
        let mut facts = good();
        assert!(certificates(&facts).is_empty(), "none is set");
        let now = facts.now;
        let day = 24 * 3_600 * 1_000;
        let at = |days: i64| WallMillis(now.0.saturating_add_signed(days * day));
        let cases = [
            (Validity::Between(at(-1), at(30)), Ok),
            (Validity::Between(at(-1), at(6)), Warn),
            (Validity::Between(at(-9), at(-1)), Fail),
            (Validity::Between(at(1), at(30)), Fail),
            (Validity::Denied, Warn),
            (Validity::Bad("no certificate in it".to_owned()), Fail),
        ];
        for (validity, expected) in cases {
            let (key, path) = (keys::TLS_CERT_FILE, "/etc/chickadee/client.pem".into());
            facts.certificates = vec![CertificateFile { key, path, validity }];
            let found = &certificates(&facts)[0];
            assert_eq!(found.level, expected, "{found:?}");
            assert_eq!(found.fix.is_some(), expected != Ok, "{found:?}");
        }
    }
}
