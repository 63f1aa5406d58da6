//! The ports of a node: all are bound before anything is told to anyone, and then it is settled
//! which addresses the others are told.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use crate::admin;
use crate::admin::status::Addresses;
use crate::config::keys;
use crate::config::{Config, seed_address};
use crate::gossip::GossipSocket;
use crate::limits::UDP_BUFFER;
use crate::net::{Net, TcpListener};
use crate::server::{Entrance, Port};

use super::Error;

/// Ports that are bound and not served yet. The peer port belongs to the transport.
pub(super) struct Ports {
    /// Where clients come in.
    pub(super) entrances: Vec<(TcpListener, Entrance)>,
    pub(super) gossip: GossipSocket,
    /// `None` in a simulation, where there is no HTTP.
    pub(super) admin: Option<admin::Bound>,
    net: Net,
}

impl Ports {
    /// Binds every port that the settings name.
    pub(super) async fn bind(config: &Config, net: Net) -> Result<Self, Error> {
        let tcp = |what: &'static str, address: SocketAddr| {
            net.bind_tcp(address).map_err(|source| Error::Bind { what, address, source })
        };
        let mut client = Vec::new();
        for address in &config.client.listen {
            client.push(tcp(keys::CLIENT_LISTEN, *address)?);
        }
        let cluster = cluster_listen(config, &client)?;
        let plain = Entrance::plain(Port::Client);
        let mut entrances: Vec<_> = client.into_iter().map(|listener| (listener, plain)).collect();
        let settings = &config.client;
        for (addresses, what, entrance) in [
            (&cluster, keys::CLUSTER_LISTEN, Entrance::plain(Port::Cluster)),
            (&settings.tls_listen, keys::TLS_LISTEN, Entrance::tls(Port::Client)),
            (&settings.cluster_tls_listen, keys::CLUSTER_TLS_LISTEN, Entrance::tls(Port::Cluster)),
        ] {
            for address in addresses {
                entrances.push((tcp(what, *address)?, entrance));
            }
        }
        let (what, address) = (keys::GOSSIP_LISTEN, config.gossip.listen);
        let gossip = net.bind_udp(address, UDP_BUFFER).map_err(|source| Error::Bind {
            what,
            address,
            source,
        })?;
        let admin =
            if net.is_simulated() { None } else { Some(admin::Bound::bind(&config.admin).await?) };
        Ok(Self { entrances, gossip: GossipSocket::new(gossip), admin, net })
    }

    /// The addresses to tell the others; `peer` is where the transport is bound.
    pub(super) async fn addresses(
        &self,
        config: &Config,
        peer: SocketAddr,
    ) -> Result<Addresses, Error> {
        let route = self.route(config).await;
        let first = |entrance: Entrance, what: &'static str| {
            let found = self.entrances.iter().find(|(_, which)| *which == entrance);
            let found = found.map(|(listener, _)| listener.local_addr());
            found.map(|address| bound(address, what, config.gossip.listen)).transpose()
        };
        let missing = |what: &str| Error::Settings(format!("{what} names no address"));
        let client = first(Entrance::plain(Port::Client), keys::CLIENT_LISTEN)?
            .ok_or_else(|| missing(keys::CLIENT_LISTEN))?;
        let cluster = first(Entrance::plain(Port::Cluster), keys::CLUSTER_LISTEN)?
            .ok_or_else(|| missing(keys::CLUSTER_LISTEN))?;
        let client_tls = first(Entrance::tls(Port::Client), keys::TLS_LISTEN)?;
        let cluster_tls = first(Entrance::tls(Port::Cluster), keys::CLUSTER_TLS_LISTEN)?;
        // Reached at the same host as without TLS, by the port that was bound.
        let beside = |plain: Option<SocketAddr>, tls: Option<SocketAddr>| {
            let host = plain.map(|plain| SocketAddr::new(plain.ip(), 0));
            tls.map(|tls| advertised(host, tls, route))
        };
        let gossip = bound(self.gossip.local_addr(), keys::GOSSIP_LISTEN, config.gossip.listen)?;
        let admin = self.admin.as_ref().and_then(|admin| admin.addresses().first().copied());
        let told = Addresses {
            client: advertised(config.client.advertise, client, route),
            cluster: advertised(config.client.cluster_advertise, cluster, route),
            client_tls: beside(config.client.advertise, client_tls),
            cluster_tls: beside(config.client.cluster_advertise, cluster_tls),
            gossip: advertised(config.gossip.advertise, gossip, route),
            peer: advertised(config.peer.advertise, peer, route),
            admin: admin.map(|admin| advertised(None, admin, route)),
        };
        let missing = unspecified(&told);
        if !missing.is_empty() {
            tracing::warn!(
                settings = missing.join(", "),
                "no address to advertise was found, an unspecified one is told: set these settings"
            );
        }
        Ok(told)
    }

    /// This host's address on the way to the first seed that resolves.
    async fn route(&self, config: &Config) -> Option<IpAddr> {
        for seed in &config.cluster.join {
            let resolved = self.net.resolve(&seed_address(seed)).await;
            if let Some(target) = resolved.ok().and_then(|found| found.first().copied()) {
                return if self.net.is_simulated() { None } else { route_to(target) };
            }
        }
        None
    }
}

/// Where cluster clients are served: as set, else the client port + 10000, else any port.
fn cluster_listen(config: &Config, client: &[TcpListener]) -> Result<Vec<SocketAddr>, Error> {
    if !config.client.cluster_listen.is_empty() {
        return Ok(config.client.cluster_listen.clone());
    }
    config
        .client
        .listen
        .iter()
        .zip(client)
        .map(|(wanted, listener)| {
            let mut address = bound(listener.local_addr(), keys::CLIENT_LISTEN, *wanted)?;
            let beside = if wanted.port() == 0 { None } else { wanted.port().checked_add(10_000) };
            address.set_port(beside.unwrap_or(0));
            Ok(address)
        })
        .collect()
}

fn bound(
    address: io::Result<SocketAddr>,
    what: &'static str,
    wanted: SocketAddr,
) -> Result<SocketAddr, Error> {
    address.map_err(|source| Error::Bind { what, address: wanted, source })
}

/// The address to tell the others for a socket that is bound to `bound`: what the settings say, with
/// the real port where they say 0; else the bound address, with `route` in the place of an
/// unspecified one.
fn advertised(
    configured: Option<SocketAddr>,
    bound: SocketAddr,
    route: Option<IpAddr>,
) -> SocketAddr {
    let wanted = configured.unwrap_or(bound);
    let replaced = route.filter(|_| wanted.ip().is_unspecified());
    let port = if wanted.port() == 0 { bound.port() } else { wanted.port() };
    SocketAddr::new(replaced.unwrap_or_else(|| wanted.ip()), port)
}

/// The settings that would name an address where the others are told one that leads nowhere.
fn unspecified(told: &Addresses) -> Vec<&'static str> {
    let settings = [
        (keys::CLIENT_ADVERTISE, told.client),
        (keys::CLUSTER_ADVERTISE, told.cluster),
        (keys::GOSSIP_ADVERTISE, told.gossip),
        (keys::PEER_ADVERTISE, told.peer),
    ];
    let missing = settings.into_iter().filter(|(_, address)| address.ip().is_unspecified());
    missing.map(|(key, _)| key).collect()
}

/// The address from which this host reaches `target`, by its routing table; no packet is sent.
fn route_to(target: SocketAddr) -> Option<IpAddr> {
    let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(target).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_address_is_never_told() {
        let bound: SocketAddr = "0.0.0.0:7401".parse().unwrap();
        let route = Some("10.0.0.3".parse().unwrap());
        assert_eq!(advertised(None, bound, route), "10.0.0.3:7401".parse().unwrap());
        let set = Some("192.0.2.1:0".parse().unwrap());
        assert_eq!(advertised(set, bound, route), "192.0.2.1:7401".parse().unwrap());
        assert_eq!(route_to("127.0.0.1:9".parse().unwrap()), Some("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn settings_are_named_for_the_addresses_that_lead_nowhere() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let mut told = Addresses {
            client: at("0.0.0.0:6379"),
            cluster: at("10.0.0.3:16379"),
            client_tls: None,
            cluster_tls: None,
            gossip: at("127.0.0.1:7400"),
            peer: at("[::]:7401"),
            admin: None,
        };
        assert_eq!(unspecified(&told), [keys::CLIENT_ADVERTISE, keys::PEER_ADVERTISE]);
        (told.cluster, told.gossip) = (told.client, told.peer);
        assert_eq!(unspecified(&told).len(), 4);
    }
}
