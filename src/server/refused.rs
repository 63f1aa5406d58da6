//! Clients that were not let in: counted, and named in the log once in a while.

use std::io;

use crate::audit;
use crate::server::Server;
use crate::server::clients::Client;
use crate::tasks::lock;

impl Server {
    /// A client named a user and a password that do not belong together. A name that no user has is not
    /// logged: it may be a password in the wrong place.
    pub(super) fn refuse_login(&self, client: &Client, user: &[u8]) {
        self.metrics.rejected_auth.increment(1);
        let may = lock(&self.refused_logins).may(self.clock.now());
        if let Some(others) = may {
            let live = self.live();
            let known = str::from_utf8(user).ok().and_then(|name| live.users.get(name));
            let user = known.map_or("(unknown)", |user| user.name());
            let from = client.from();
            tracing::warn!(target: audit::TARGET, %from, user, others, "login refused");
        }
    }

    /// An HTTP request came to a client port.
    pub(super) fn refuse_browser(&self, client: &Client) {
        let may = lock(&self.refused_browsers).may(self.clock.now());
        if let Some(others) = may {
            let from = client.from();
            tracing::warn!(target: audit::TARGET, %from, others, "an HTTP request came to a client port");
        }
    }

    /// A client has no certificate of the authority that they must have one of.
    pub(super) fn refuse_certificate(&self, client: &Client, error: &io::Error) {
        self.metrics.rejected_certificate.increment(1);
        let may = lock(&self.refused_certificates).may(self.clock.now());
        if let Some(others) = may {
            let from = client.from();
            tracing::warn!(target: audit::TARGET, %from, %error, others, "client without a trusted certificate refused");
        }
    }
}
