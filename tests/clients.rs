//! Client libraries as their users have them, against a cluster of real processes. A library that
//! is not installed is passed over, and the test says so.

mod support;

use std::process::Command;

use support::Cluster;

/// Writes keys of all sizes through one client of redis-py, reads them through the others, and
/// counts them in every way that the library offers.
const REDIS_PY: &str = r#"
import random, sys
import redis
from redis.cluster import RedisCluster

clients, clusters = sys.argv[1].split(","), sys.argv[2].split(",")
def split(address):
    host, port = address.rsplit(":", 1)
    return {"host": host, "port": int(port)}

plain = [redis.Redis(**split(address)) for address in clients]
plain.append(redis.Redis(**split(clients[0]), protocol=2))
cluster = RedisCluster(**split(clusters[1]))
rng = random.Random(1)
sizes = [1, 2, 100, 4096, 32768, 32769, 1 << 20] + [rng.randrange(1, 200) for _ in range(500)]
values = {b"k:%d:" % n + rng.randbytes(9): rng.randbytes(size) for n, size in enumerate(sizes)}

def check(writer, readers):
    for key, value in values.items():
        assert writer.set(key, value), key
    for reader in readers:
        for key, value in values.items():
            assert reader.get(key) == value, (reader, key)

check(plain[0], [plain[1], plain[3], cluster])
for client in plain:
    assert client.dbsize() == len(values), client.dbsize()
    assert set(client.scan_iter(count=50)) == values.keys()
    assert set(client.keys("*")) == values.keys()
held = [client.info("keyspace").get("db0", {}).get("keys", 0) for client in plain[:3]]
assert sum(held) == len(values), held
assert all(node.server_type == "primary" for node in cluster.get_nodes()), cluster.get_nodes()
assert cluster.dbsize(target_nodes=RedisCluster.PRIMARIES) == len(values)
assert set(cluster.scan_iter(count=50)) == values.keys()
assert cluster.flushall()
assert plain[2].dbsize() == 0, plain[2].dbsize()
check(cluster, [plain[2], redis.Redis(**split(clusters[0]))])
names = list(values)
assert plain[1].mget(names) == list(values.values())
assert cluster.delete(*names[:100]) == 100
assert plain[0].exists(*names) == len(names) - 100
with plain[2].pipeline(transaction=False) as batch:
    for name in names[100:]:
        batch.get(name)
    assert batch.execute() == [values[name] for name in names[100:]]
"#;

fn has(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
}

#[test]
fn redis_py_sees_one_cache() {
    if !has("python3", &["-c", "import redis.cluster"]) {
        eprintln!("skipped: python3 has no package redis");
        return;
    }
    let cluster = Cluster::started(3, &[]);
    let addresses = |which: &str| {
        let addresses = cluster.nodes.iter().map(|node| node.address(which).to_string());
        addresses.collect::<Vec<_>>().join(",")
    };
    let run = Command::new("python3")
        .args(["-c", REDIS_PY, &addresses("client"), &addresses("cluster")])
        .output()
        .expect("python3 runs");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}
