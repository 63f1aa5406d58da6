//! Nodes of two releases in one cluster: they work together where there is a protocol that both know.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chickadee::clock::SystemClock;
use chickadee::net::Net;
use chickadee::persist::DirectoryStorage;
use chickadee::rng::Randomness;
use chickadee::wire::hello::Protocols;
use chickadee::{Config, Node, Seams};

const KEYS: usize = 200;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_mins(1);

const OLD: Protocols = Protocols { oldest: 1, newest: 1 };
const BOTH: Protocols = Protocols { oldest: 1, newest: 2 };
const NEW: Protocols = Protocols { oldest: 2, newest: 2 };
const OTHER: Protocols = Protocols { oldest: 3, newest: 3 };

/// A node of a release that speaks these protocols.
async fn started(
    name: &str,
    folder: &Path,
    protocols: Protocols,
    seeds: Vec<String>,
) -> Result<Node, Box<dyn Error>> {
    let mut config = Config::on_loopback(name.parse()?, folder.join(name));
    config.cluster.join = seeds;
    let seams = Seams {
        net: Net::Os,
        clock: Arc::new(SystemClock::new()),
        rng: Randomness::from_system(),
        storage: Arc::new(DirectoryStorage::open(&config.node.data_dir)?),
        protocols,
    };
    Ok(Node::start_in(config, seams).await?)
}

fn seed(node: &Node) -> Vec<String> {
    vec![node.addresses().peer.to_string()]
}

async fn ready(nodes: &[Node]) -> Result<(), Box<dyn Error>> {
    for node in nodes {
        tokio::time::timeout(PATIENCE, node.ready()).await??;
    }
    Ok(())
}

/// Every node finds every key, and counts what all have counted.
async fn serve(nodes: &[Node], counted: &mut i64) -> Result<(), Box<dyn Error>> {
    for node in nodes {
        for key in 0..KEYS {
            let found = node.cache().get(format!("key:{key}")).await?;
            assert_eq!(found.as_deref(), Some(key.to_string().as_bytes()));
        }
        *counted += 1;
        assert_eq!(node.cache().increment("count", 1).await?, *counted);
    }
    Ok(())
}

#[tokio::test]
async fn a_cluster_goes_from_one_protocol_to_the_next_node_by_node() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let mut nodes = vec![started("ada", folder.path(), OLD, Vec::new()).await?];
    for name in ["bob", "cyd"] {
        nodes.push(started(name, folder.path(), OLD, seed(&nodes[0])).await?);
    }
    ready(&nodes).await?;
    let (cache, mut counted) = (nodes[0].cache(), 0);
    for key in 0..KEYS {
        cache.set(format!("key:{key}"), key.to_string()).await?;
    }
    serve(&nodes, &mut counted).await?;

    // Each is stopped, and comes back as one of the next release.
    for name in ["ada", "bob", "cyd"] {
        nodes.remove(0).shutdown().await;
        nodes.push(started(name, folder.path(), BOTH, seed(&nodes[0])).await?);
        ready(&nodes).await?;
        serve(&nodes, &mut counted).await?;
    }
    assert!(nodes.iter().all(|node| node.status().node.protocol == 2));

    // Once all know the next one, a node that does not know the first any more is one of them.
    nodes.push(started("dee", folder.path(), NEW, seed(&nodes[0])).await?);
    ready(&nodes).await?;
    serve(&nodes, &mut counted).await?;
    for node in nodes {
        node.shutdown().await;
    }
    Ok(())
}

#[tokio::test]
async fn a_node_without_a_common_protocol_stays_out_and_harms_nobody() -> Result<(), Box<dyn Error>>
{
    let folder = tempfile::tempdir()?;
    let mut nodes = vec![started("ada", folder.path(), BOTH, Vec::new()).await?];
    nodes.push(started("bob", folder.path(), OLD, seed(&nodes[0])).await?);
    ready(&nodes).await?;
    let stranger = started("eve", folder.path(), OTHER, seed(&nodes[0])).await?;
    let refused = |node: &Node| {
        let metrics = node.metrics();
        let line =
            metrics.lines().find(|line| line.contains("handshakes_total{result=\"refused\"}"));
        line.is_some_and(|line| !line.ends_with(" 0"))
    };
    tokio::time::timeout(PATIENCE, async {
        while !refused(&nodes[0]) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await?;
    assert!(!stranger.status().ready);
    assert!(nodes.iter().all(|node| node.members().len() == 2 && node.status().ready));
    stranger.shutdown().await;
    for node in nodes {
        node.shutdown().await;
    }
    Ok(())
}
