//! Which addresses a node tells the others.

use std::net::{IpAddr, SocketAddr, UdpSocket};

/// The address to tell the others for a socket that is bound to `bound`: what the settings say, with
/// the real port where they say 0; else the bound address, with `route` in the place of an
/// unspecified one.
pub(super) fn advertised(
    configured: Option<SocketAddr>,
    bound: SocketAddr,
    route: Option<IpAddr>,
) -> SocketAddr {
    let wanted = configured.unwrap_or(bound);
    let ip = if wanted.ip().is_unspecified() { route.unwrap_or(wanted.ip()) } else { wanted.ip() };
    let port = if wanted.port() == 0 { bound.port() } else { wanted.port() };
    SocketAddr::new(ip, port)
}

/// The address from which this host reaches `target`, by its routing table; no packet is sent.
pub(super) fn route_to(target: SocketAddr) -> Option<IpAddr> {
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
}
