//! The handshake of a client that speaks TLS, before its connection is served like any other.

use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::clock::within;
use crate::limits;
use crate::net::TcpStream;
use crate::server::clients::Client;
use crate::server::connection::{Connection, Ended, Origin};
use crate::server::{Backend, Server};
use crate::tls::{ClientTls, lacks_certificate};
use crate::types::WallMillis;

impl Server {
    /// Serves a connection over TLS until it ends; `None` if there was no handshake.
    pub(super) async fn serve_tls<B: Backend>(
        &self,
        backend: &B,
        origin: Origin,
        stream: TcpStream,
    ) -> Option<Ended> {
        let mut stream = self.shake_hands(&origin.client, stream).await?;
        let ended = Connection::new(self, backend, origin, &mut stream).run().await;
        // Without a goodbye a client library takes the end for an attack. Whoever is gone misses none.
        let _said = within(limits::REFUSAL_TIMEOUT, stream.shutdown()).await;
        Some(ended)
    }

    async fn shake_hands(
        &self,
        client: &Client,
        stream: TcpStream,
    ) -> Option<TlsStream<TcpStream>> {
        let Ok(_place) = self.handshakes.try_acquire() else {
            self.metrics.rejected_handshakes.increment(1);
            return None;
        };
        let Some(config) = self.live().tls.as_ref().map(ClientTls::config) else {
            tracing::error!("BUG: a TLS port without a certificate");
            return None;
        };
        let accepted =
            within(limits::CLIENT_HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(stream));
        let accepted = tokio::select! {
            biased;
            () = client.closed() => return None,
            accepted = accepted => accepted,
        };
        let error = match accepted {
            Some(Ok(stream)) => return Some(stream),
            Some(Err(error)) => error,
            None => std::io::ErrorKind::TimedOut.into(),
        };
        if lacks_certificate(&error) {
            self.refuse_certificate(client, &error);
        } else {
            self.metrics.rejected_tls.increment(1);
            tracing::debug!(from = %client.from(), %error, "a TLS handshake failed");
        }
        None
    }

    /// When the certificate for clients ends, if there is one.
    pub fn certificate_end(&self) -> Option<WallMillis> {
        Some(self.live().tls.as_ref()?.not_after())
    }
}
