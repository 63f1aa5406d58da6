//! The certificate for clients: read before any port is bound, read again on demand, and watched, so
//! that its end surprises nobody.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::SharedClock;
use crate::config::Config;
use crate::limits::CERTIFICATE_WARNING;
use crate::tasks::Executor;
use crate::tls::{ClientTls, ClientTlsFiles};
use crate::types::WallMillis;

use super::{Error, Inner};

/// How often the clock is compared with the end of the certificate.
const LOOK_INTERVAL: Duration = Duration::from_hours(1);

/// What the TLS ports need; `None` where the settings name no such port.
pub(super) fn client_tls(config: &Config, clock: &SharedClock) -> Result<Option<ClientTls>, Error> {
    let client = &config.client;
    if client.tls_listen.is_empty() && client.cluster_tls_listen.is_empty() {
        return Ok(None);
    }
    let (Some(certificate), Some(key)) = (&client.tls_cert_file, &client.tls_key_file) else {
        return Err(Error::Settings("TLS needs a certificate and its key".to_owned()));
    };
    let authority = client.tls_client_ca_file.as_deref();
    let tls = ClientTls::read(ClientTlsFiles { certificate, key, authority }, clock)?;
    warn_of_end(tls.not_after(), clock.wall());
    Ok(Some(tls))
}

/// Writes a warning if a certificate has ended or soon will; whether it did.
fn warn_of_end(end: WallMillis, now: WallMillis) -> bool {
    let left = Duration::from_millis(end.0.saturating_sub(now.0));
    if left > CERTIFICATE_WARNING.0 {
        return false;
    }
    let ends = jiff::Timestamp::from_millisecond(i64::try_from(end.0).unwrap_or(i64::MAX));
    let ends = ends.map(|at| at.to_string()).unwrap_or_default();
    if left.is_zero() {
        tracing::warn!(%ends, "the certificate for clients has expired: they will refuse it");
    } else {
        tracing::warn!(%ends, "the certificate for clients ends soon: put a new one in its place and reload");
    }
    true
}

impl Inner {
    /// Warns of the end of the certificate as long as the node runs, if it has one.
    pub(super) fn watch_certificate(self: &Arc<Self>, control: &Executor) {
        if self.server.certificate_end().is_none() {
            return;
        }
        let (inner, mut stop) = (Arc::clone(self), self.tasks.stop_signal());
        self.tasks.spawn_on(control, "certificate", async move {
            // It was looked at when it was read.
            let mut next = inner.clock.now() + CERTIFICATE_WARNING.1;
            loop {
                tokio::select! {
                    biased;
                    () = stop.stopped() => return,
                    () = tokio::time::sleep(LOOK_INTERVAL) => {}
                }
                let (now, wall) = (inner.clock.now(), inner.clock.wall());
                let end = inner.server.certificate_end();
                if now >= next && end.is_some_and(|end| warn_of_end(end, wall)) {
                    next = now + CERTIFICATE_WARNING.1;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_told_a_week_before() {
        let day = 86_400_000;
        assert!(!warn_of_end(WallMillis(30 * day), WallMillis(22 * day)));
        assert!(warn_of_end(WallMillis(30 * day), WallMillis(23 * day)));
        assert!(warn_of_end(WallMillis(30 * day), WallMillis(31 * day)));
    }
}
