//! Asks the node, and through it the other members, what they say of themselves.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::admin::stats::samples;
use crate::admin::status::{Member, Status};
use crate::cli::args::Common;
use crate::cli::ask::Ask;
use crate::cli::failure::Failure;
use crate::clock::within;
use crate::config::Config;
use crate::types::MemberState;

use super::facts::NodeFacts;

/// How long another member may take to answer: its admin address need not be reachable from here.
const MEMBER_PATIENCE: Duration = Duration::from_secs(1);
/// Other members that are asked at most.
const MEMBERS_ASKED: usize = 64;

/// The node to look at: as told, and then it must answer; else where the settings say that this
/// machine's node is asked, if one answers there.
pub(super) async fn node(common: &Common, config: &Config) -> Result<Option<NodeFacts>, Failure> {
    if common.names_a_node() {
        return facts(&Ask::looking(common)?).await.map(Some);
    }
    for ask in of_settings(config) {
        match facts(&ask).await {
            Err(Failure::Unreachable(_)) => {}
            answered => return answered.map(Some),
        }
    }
    Ok(None)
}

/// Where a node with these settings is asked on its own machine.
fn of_settings(config: &Config) -> Vec<Ask> {
    let here = |address: SocketAddr| match address.ip() {
        ip if ip.is_unspecified() => SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())),
        _ => address,
    };
    let listens = config.admin.listen.iter().filter(|address| address.port() != 0);
    let tcp = listens.map(|address| Ask::Tcp(here(*address).to_string()));
    [Ask::Unix(config.admin.socket.clone())].into_iter().chain(tcp).collect()
}

/// Whether it is this machine that is asked.
fn is_here(ask: &Ask) -> bool {
    match ask {
        Ask::Unix(_) => true,
        Ask::Tcp(_) => {
            let host = ask.host().trim_matches(['[', ']']);
            host == "localhost" || host.parse().is_ok_and(is_own_address)
        }
    }
}

/// Whether an address is one of this machine's: only such a one can be bound.
fn is_own_address(ip: IpAddr) -> bool {
    std::net::UdpSocket::bind((ip, 0)).is_ok()
}

async fn facts(ask: &Ask) -> Result<NodeFacts, Failure> {
    let members: Vec<Member> = ask.get("/v1/members").await?;
    Ok(NodeFacts {
        asked: ask.to_string(),
        is_here: is_here(ask),
        status: ask.get("/v1/status").await?,
        reasons: ask.reasons().await?,
        peers: ask.get("/v1/peers").await?,
        ring: ask.get("/v1/ring").await?,
        figures: figures(&ask.text("/metrics").await?),
        others: others(&members).await,
        members,
    })
}

/// Metrics by their name without its first word, the series of one added up.
fn figures(text: &str) -> BTreeMap<String, f64> {
    let mut figures = BTreeMap::new();
    for sample in samples(text) {
        let (_, name) = sample.name.split_once('_').unwrap_or(("", sample.name));
        *figures.entry(name.to_owned()).or_insert(0.0) += sample.value;
    }
    figures
}

/// What the other members say that are alive and answer here.
async fn others(members: &[Member]) -> BTreeMap<String, Status> {
    let alive =
        members.iter().filter(|member| !member.is_self && member.state == MemberState::Alive);
    let mut others = BTreeMap::new();
    for member in alive.take(MEMBERS_ASKED) {
        let Some(address) = member.admin else { continue };
        let ask = Ask::Tcp(address.to_string());
        if let Some(Ok(status)) = within(MEMBER_PATIENCE, ask.get::<Status>("/v1/status")).await
            && status.node.id == member.id
        {
            others.insert(member.id.clone(), status);
        }
    }
    others
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known_by_its_addresses() {
        for (address, here) in [
            ("127.0.0.1:9400", true),
            ("localhost:9400", true),
            ("192.0.2.1:9400", false),
            ("node7:9400", false),
        ] {
            assert_eq!(is_here(&Ask::tcp(address).unwrap()), here, "{address}");
        }
        assert!(is_here(&Ask::Unix("/run/admin.sock".into())));
    }

    #[test]
    fn figures_are_added_up_by_name() {
        let text = "chickadee_slots_sharing_zone 3\nprocess_max_fds 1024\nchickadee_clients{kind=\"a\"} 1\n\
                    chickadee_clients{kind=\"b\"} 2\n";
        let figures = figures(text);
        assert_eq!(figures["clients"].to_string(), "3");
        assert_eq!(figures["max_fds"].to_string(), "1024");
        assert_eq!(figures["slots_sharing_zone"].to_string(), "3");
    }

    #[test]
    fn a_node_is_asked_where_its_settings_say() {
        let mut config = Config::on_loopback("n1".parse().unwrap(), "/data");
        assert_eq!(of_settings(&config).len(), 1, "port 0 could be any");
        config.admin.listen = vec!["0.0.0.0:9400".parse().unwrap()];
        let asked: Vec<String> = of_settings(&config).iter().map(ToString::to_string).collect();
        assert_eq!(asked, ["/data/admin.sock", "127.0.0.1:9400"]);
    }
}
