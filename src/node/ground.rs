//! What the parts of a node are made from: its settings, the world around it, its secret and its
//! node file. What is wrong with any of these shows here, before a port is bound.

use std::sync::Arc;

use bytes::Bytes;

use crate::clock::SharedClock;
use crate::cluster::{ClusterOptions, ClusterParts};
use crate::config::{Config, MemoryPolicy, seed_address};
use crate::hlc::{self, Hlc};
use crate::limits::STORE_SHARDS_MAX;
use crate::members::{MemberCodec, MemberTable, MembersOptions, VersionedKeys};
use crate::metrics::Metrics;
use crate::peers::{Caller, Directory};
use crate::persist::NodeFile;
use crate::server::{Admission, Users};
use crate::store::{Policy, Store, StoreOptions};
use crate::tasks::TaskGroup;
use crate::tls::{Credentials, Secret};
use crate::transport::TransportOptions;
use crate::types::{ClusterFacts, Identity, NodeId, NodeMeta, Phase, Zone};
use crate::wire::member::{MemberAnswer, MemberRequest};
use crate::wire::message::{Request, Response};

use super::certificates::{client_tls, peer_credentials};
use super::keeper::FileKeeper;
use super::key_file::KeyFile;
use super::{Addresses, Error, Seams};

/// What the parts of a node are made from.
pub(super) struct Ground {
    pub(super) config: Config,
    pub(super) seams: Seams,
    /// The node file, written with the generation of this start.
    pub(super) file: NodeFile,
    /// Which clients may come in, and how.
    pub(super) admission: Admission,
    /// The key ring of gossip as it was kept.
    keys: VersionedKeys,
    /// An operator's certificates for peers.
    credentials: Option<Credentials>,
    secret: Secret,
}

impl Ground {
    /// Reads what the settings name, and begins a new generation in the node file.
    pub(super) fn lay(config: Config, seams: Seams) -> Result<Self, Error> {
        let secret = match &config.security.secret_file {
            Some(path) => Secret::read(path)?,
            None => Secret::development(),
        };
        let admission = admission(&config, &seams.clock)?;
        let rng = &seams.rng;
        let new_id = || NodeId(u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64()));
        let file = NodeFile::begin(&*seams.storage, seams.clock.wall(), new_id)?;
        let keys = key_file(&config, &seams, &secret).read(&secret)?;
        let credentials = peer_credentials(&config, seams.clock.wall())?;
        Ok(Self { config, seams, file, admission, keys, credentials, secret })
    }

    /// The keeper of the node file.
    pub(super) fn keeper(&self) -> Arc<FileKeeper> {
        Arc::new(FileKeeper::new(self.file.clone(), Arc::clone(&self.seams.storage)))
    }

    /// This node as its peers know it.
    fn me(&self) -> Caller {
        Caller { node: self.file.node, generation: self.file.generation }
    }

    /// What the transport is made from.
    pub(super) fn transport(
        &mut self,
        directory: Arc<dyn Directory>,
        metrics: &Metrics,
        tasks: &TaskGroup,
    ) -> TransportOptions {
        let (config, seams) = (&self.config, &self.seams);
        TransportOptions {
            net: seams.net,
            listen: config.peer.listen,
            own: self.me(),
            protocols: seams.protocols,
            cluster: config.cluster.name.clone(),
            secret: self.secret.clone(),
            credentials: self.credentials.take(),
            directory,
            clock: Arc::clone(&seams.clock),
            rng: seams.rng.clone(),
            metrics: metrics.transport.clone(),
            tasks: tasks.clone(),
            lanes: config.peer.lanes,
            max_mtu: config.peer.max_mtu,
            disable_gso: config.peer.disable_gso,
        }
    }

    /// What the membership service is made from.
    pub(super) fn members(&self, addresses: Addresses, keeper: &Arc<FileKeeper>) -> MembersOptions {
        let (config, file) = (&self.config, &self.file);
        let cluster = &config.cluster;
        let kept = file.facts.clone().filter(|facts| facts.name == cluster.name);
        let keeper = Arc::clone(keeper);
        let key_file = key_file(config, &self.seams, &self.secret);
        MembersOptions {
            identity: self.identity(addresses),
            meta: self.meta(addresses),
            profile: config.gossip.profile,
            probe_interval: config.gossip.probe_interval,
            keys: self.keys.clone(),
            facts: kept.unwrap_or_else(|| self.wished_facts()),
            seeds: cluster.join.iter().map(|seed| seed_address(seed)).collect(),
            last_known: file.members.iter().map(|seed| seed.peer).collect(),
            form: cluster.form,
            codec: MemberCodec { encode: encode_member, decode: decode_member },
            // A renewed generation must be on disk before its first packet.
            on_identity: Box::new(move |identity| keeper.note_generation(identity.generation)),
            on_keys: Box::new(move |record| key_file.write(record)),
        }
    }

    fn identity(&self, addresses: Addresses) -> Identity {
        let was_member = self.file.facts.is_some();
        Identity {
            node: self.file.node,
            gossip: addresses.gossip,
            generation: self.file.generation,
            revision: 0,
            phase: if was_member { Phase::Returning } else { Phase::Joining },
            weight: self.config.node.weight,
            zone: self.config.node.zone.as_ref().map_or(0, Zone::tag),
        }
    }

    fn meta(&self, addresses: Addresses) -> NodeMeta {
        NodeMeta {
            node: self.file.node,
            generation: self.file.generation,
            revision: 0,
            name: self.config.node.name.clone(),
            zone: self.config.node.zone.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            peer: addresses.peer,
            client: addresses.client,
            cluster: addresses.cluster,
            admin: addresses.admin,
            cluster_tls: addresses.cluster_tls,
        }
    }

    /// The cluster facts as the settings have them: they count only if this node forms the cluster.
    fn wished_facts(&self) -> ClusterFacts {
        let cluster = &self.config.cluster;
        ClusterFacts {
            name: cluster.name.clone(),
            replicas: cluster.replicas,
            virtual_nodes: cluster.virtual_nodes,
            ring_grace: cluster.ring_grace,
            tombstone_grace: cluster.tombstone_grace,
            revision: 0,
            origin: self.file.node.tag(),
        }
    }

    /// What the cluster layer is told.
    pub(super) fn cluster_options(&self) -> ClusterOptions {
        let config = &self.config;
        ClusterOptions {
            me: self.file.node,
            generation: self.file.generation,
            former: self.file.members.iter().map(|seed| seed.node).collect(),
            acks: config.cluster.acks,
            acks_shortfall: config.cluster.acks_shortfall,
            call_timeout: config.peer.call_timeout,
            op_timeout: config.client.op_timeout,
            sync_rate: config.peer.sync_rate,
            max_value: config.client.max_value_size,
        }
    }

    /// What the cluster layer works with; `table` is of this moment.
    pub(super) fn cluster_parts(&self, metrics: &Metrics, table: Arc<MemberTable>) -> ClusterParts {
        ClusterParts {
            store: Arc::new(self.store()),
            clock: Arc::clone(&self.seams.clock),
            rng: self.seams.rng.clone(),
            metrics: metrics.clone(),
            table,
        }
    }

    fn store(&self) -> Store {
        let seed = self.secret.digest_seed(&self.config.cluster.name);
        let policy = match self.config.memory.policy {
            MemoryPolicy::Evict => Policy::Evict,
            MemoryPolicy::Refuse => Policy::Refuse,
        };
        let store = Store::new(StoreOptions {
            shards: STORE_SHARDS_MAX,
            limit: self.config.memory.limit,
            policy,
            digest_seed: seed,
            hash_seed: seed.rotate_left(32),
            slot_of: crate::ring::slot_of,
        });
        // Above every stamp of an earlier start, even if the wall clock was set back meanwhile.
        let floor = self.file.clock_high.max(hlc::reading_at(self.seams.clock.wall()));
        for index in 0..store.shards() {
            *store.lock_shard(index).clock_mut() = Hlc::starting_above(floor);
        }
        store
    }
}

fn key_file(config: &Config, seams: &Seams, secret: &Secret) -> KeyFile {
    KeyFile::new(secret, &config.cluster.name, Arc::clone(&seams.storage), seams.rng.clone())
}

/// Reads what the settings name for clients: users and certificate.
pub(super) fn admission(config: &Config, clock: &SharedClock) -> Result<Admission, Error> {
    Ok(Admission { users: Users::read(&config.client)?, tls: client_tls(config, clock)? })
}

fn encode_member(request: MemberRequest) -> Bytes {
    Request::Member(request).encode()
}

fn decode_member(bytes: &[u8]) -> Option<MemberAnswer> {
    match Response::decode(bytes)? {
        Response::Member(answer) => Some(answer),
        _ => None,
    }
}
