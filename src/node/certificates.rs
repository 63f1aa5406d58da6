//! The certificates for clients and for peers: read before any port is bound, read again on demand, and
//! watched, so that their end surprises nobody.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::SharedClock;
use crate::config::Config;
use crate::limits::CERTIFICATE_WARNING;
use crate::tasks::Executor;
use crate::tls::{ClientTls, ClientTlsFiles, Credentials, PeerFiles};
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
    warn_of_end("client", tls.not_after(), clock.wall());
    Ok(Some(tls))
}

/// An operator's certificates for peers; `None` where they follow from the secret.
pub(super) fn peer_credentials(
    config: &Config,
    now: WallMillis,
) -> Result<Option<Credentials>, Error> {
    let security = &config.security;
    let (Some(certificate), Some(key), Some(authority)) =
        (&security.cert_file, &security.key_file, &security.ca_file)
    else {
        return Ok(None);
    };
    let files = PeerFiles { certificate, key, authority };
    let credentials = Credentials::read(files, &config.cluster.name, now)?;
    if let Some(end) = credentials.end() {
        warn_of_end("peer", end, now);
    }
    Ok(Some(credentials))
}

/// Writes a warning if a certificate has ended or soon will; whether it did.
fn warn_of_end(used_for: &'static str, end: WallMillis, now: WallMillis) -> bool {
    let left = Duration::from_millis(end.0.saturating_sub(now.0));
    if left > CERTIFICATE_WARNING.0 {
        return false;
    }
    let ends = jiff::Timestamp::from_millisecond(i64::try_from(end.0).unwrap_or(i64::MAX));
    let ends = ends.map(|at| at.to_string()).unwrap_or_default();
    if left.is_zero() {
        tracing::warn!(%ends, used_for, "certificate has expired: it will be refused");
    } else {
        tracing::warn!(
            %ends,
            used_for,
            "certificate ends soon: put a new one in its place and reload"
        );
    }
    true
}

impl Inner {
    /// When the certificates end that an operator made, by their use: `client` or `peer`.
    pub(super) fn certificate_ends(&self) -> impl Iterator<Item = (&'static str, WallMillis)> {
        let clients = self.server.certificate_end().map(|end| ("client", end));
        let peers = self.transport.certificate_end().map(|end| ("peer", end));
        clients.into_iter().chain(peers)
    }

    /// Reads the certificates for peers again, where an operator made them.
    pub(super) fn renew_peer_credentials(&self) -> Result<(), Error> {
        if let Some(credentials) = peer_credentials(&self.config, self.clock.wall())? {
            self.transport.renew(&credentials)?;
        }
        Ok(())
    }

    /// Warns of the end of the certificate as long as the node runs, if it has one.
    pub(super) fn watch_certificate(self: &Arc<Self>, control: &Executor) {
        if self.certificate_ends().next().is_none() {
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
                if now < next {
                    continue;
                }
                for (used_for, end) in inner.certificate_ends() {
                    if warn_of_end(used_for, end, wall) {
                        next = now + CERTIFICATE_WARNING.1;
                    }
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
        assert!(!warn_of_end("peer", WallMillis(30 * day), WallMillis(22 * day)));
        assert!(warn_of_end("peer", WallMillis(30 * day), WallMillis(23 * day)));
        assert!(warn_of_end("peer", WallMillis(30 * day), WallMillis(31 * day)));
    }
}
