//! QUIC as nodes speak it: settings, endpoints, and dialling up to the acknowledged hello.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig, IdleTimeout,
    MtuDiscoveryConfig, RecvStream, SendStream, ServerConfig, TimeSource, TokioRuntime,
    TransportConfig, ValidationTokenConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;

use super::connections::{Direction, Registered};
use super::stream::{self, ReadError};
use super::{Context, TransportError, TransportOptions};
use crate::clock::SharedClock;
use crate::limits::{
    CONNECTION_WINDOW, HANDSHAKES_MAX, INCOMING_BUFFER_TOTAL, STREAM_WINDOW, TRANSPORT_STREAMS,
    UDP_BUFFER,
};
use crate::net::outgoing_address;
use crate::peers::{CallError, Caller};
use crate::rng::Randomness;
use crate::tls::{self, Credentials, describe_alert, seed_server_name};
use crate::types::NodeId;
use crate::wire::hello::{self, Hello, HelloAck, Purpose};

/// The largest path MTU that is ever used. Ten segments go out in one system call; above 65,507
/// bytes in all the system refuses them, and every packet of the call is silently lost.
pub(super) const MTU_MAX: u16 = 6500;

/// The smallest MTU that QUIC allows.
const MTU_MIN: u16 = 1200;

/// A connection without a sign of life for this long is gone. Membership is faster; this bounds
/// what membership does not see.
const IDLE_TIMEOUT_MILLIS: u32 = 5_000;

/// Both sides give a sign of life this often.
const KEEP_ALIVE: Duration = Duration::from_millis(1_500);

/// What a round trip is taken for before the first one is measured.
const INITIAL_RTT: Duration = Duration::from_millis(50);

/// How long dialling may take, up to the acknowledged hello.
pub(super) const DIAL_TIMEOUT: Duration = Duration::from_millis(1_500);

/// The wire's codes for closing a connection.
pub(super) mod close {
    use quinn::VarInt;

    /// It is not needed any more.
    pub(in crate::transport) const DONE: VarInt = VarInt::from_u32(0);
    /// The node stops.
    pub(in crate::transport) const STOPPING: VarInt = VarInt::from_u32(1);
    /// Membership says that the peer is dead.
    pub(in crate::transport) const DEAD: VarInt = VarInt::from_u32(2);
    /// The peer does not belong here; the reason says why.
    pub(in crate::transport) const REFUSED: VarInt = VarInt::from_u32(3);
    /// The peer broke the protocol; the reason says how.
    pub(in crate::transport) const PROTOCOL: VarInt = VarInt::from_u32(4);
}

/// Gives quinn the node's wall clock.
struct NodeTime(SharedClock);

impl TimeSource for NodeTime {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0.wall().0)
    }
}

/// The settings of every connection, both directions.
pub(super) fn transport_config(max_mtu: u16, gso: bool) -> Result<TransportConfig, TransportError> {
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MILLIS))))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .initial_rtt(INITIAL_RTT)
        .max_concurrent_bidi_streams(VarInt::from_u32(TRANSPORT_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(TRANSPORT_STREAMS))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(u64::from(CONNECTION_WINDOW))
        .datagram_receive_buffer_size(None)
        .enable_segmentation_offload(gso);
    match max_mtu {
        0 => {
            let mut discovery = MtuDiscoveryConfig::default();
            discovery.upper_bound(MTU_MAX);
            config.mtu_discovery_config(Some(discovery));
        }
        // Discovery is off with a fixed MTU: it takes lost frames for a path that shrank.
        MTU_MIN..=MTU_MAX => {
            config.initial_mtu(max_mtu).min_mtu(max_mtu).mtu_discovery_config(None);
        }
        _ => return Err(TransportError::Mtu(max_mtu)),
    }
    Ok(config)
}

fn endpoint_config(
    reset_key: &[u8],
    connection_id_key: u64,
    simulated: Option<&Randomness>,
) -> EndpointConfig {
    let reset_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, reset_key);
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    config
        .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(connection_id_key)))
        .max_udp_payload_size(MTU_MAX)
        .expect("the largest MTU is above the smallest that QUIC allows");
    if let Some(rng) = simulated {
        let mut seed = [0; 32];
        for word in seed.chunks_exact_mut(8) {
            word.copy_from_slice(&rng.next_u64().to_le_bytes());
        }
        config.rng_seed(Some(seed));
    }
    config
}

/// An endpoint and the size of its socket's receive buffer.
pub(super) struct Bound {
    pub(super) endpoint: Endpoint,
    pub(super) receive_buffer: usize,
}

/// How peers are dialled.
pub(super) fn client_config(
    credentials: &Credentials,
    clock: &SharedClock,
    settings: &Arc<TransportConfig>,
) -> Result<ClientConfig, TransportError> {
    let mut config = ClientConfig::new(Arc::new(tls::quic_client(credentials, clock)?));
    config.transport_config(Arc::clone(settings));
    Ok(config)
}

/// How peers are received.
pub(super) fn server_config(
    options: &TransportOptions,
    credentials: &Credentials,
    settings: &Arc<TransportConfig>,
) -> Result<ServerConfig, TransportError> {
    let crypto = tls::quic_server(credentials, &options.clock)?;
    let token_key = options.secret.derive("quic-token", &[&options.own.node.0.to_be_bytes()]);
    let token_key =
        ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, &[]).extract(token_key.as_slice());
    let mut tokens = ValidationTokenConfig::default();
    tokens.sent(0);
    let mut server = ServerConfig::new(Arc::new(crypto), Arc::new(token_key));
    server
        .transport_config(Arc::clone(settings))
        .validation_token_config(tokens)
        .time_source(Arc::new(NodeTime(Arc::clone(&options.clock))))
        .max_incoming(HANDSHAKES_MAX)
        .incoming_buffer_size_total(INCOMING_BUFFER_TOTAL);
    Ok(server)
}

/// Binds the node's port. Its reset and connection-id keys come from the secret, so that they
/// outlive a restart and peers learn in milliseconds that their connections are gone.
pub(super) fn bind_server(
    options: &TransportOptions,
    server: ServerConfig,
) -> Result<Bound, TransportError> {
    let failed = |source| TransportError::Bind { address: options.listen, source };
    let config = endpoint_config(
        options.secret.reset_key(options.own.node).as_slice(),
        options.secret.connection_id_key(options.own.node),
        options.net.is_simulated().then_some(&options.rng),
    );
    let socket = options.net.bind_quic(options.listen, UDP_BUFFER).map_err(failed)?;
    let receive_buffer = socket.receive_buffer;
    let runtime = Arc::new(TokioRuntime);
    let endpoint = Endpoint::new_with_abstract_socket(config, Some(server), socket.socket, runtime)
        .map_err(failed)?;
    Ok(Bound { endpoint, receive_buffer })
}

/// Whom to expect at an address.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// This node and no other.
    Node(NodeId),
    /// Any node of the cluster.
    Anyone,
}

/// A connection that is up: the hello is acknowledged.
pub(super) struct Dialled {
    /// Keeps the connection listed; dropped with it.
    pub(super) registered: Registered,
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
    /// Who answered, by its certificate.
    pub(super) peer: Caller,
}

impl Dialled {
    pub(super) fn connection(&self) -> &Connection {
        self.registered.connection()
    }
}

/// Dials from an endpoint of its own, on the thread that made it.
pub(super) struct Dialer {
    endpoint: Endpoint,
    context: Arc<Context>,
}

impl Dialer {
    /// Makes the endpoint on the current runtime.
    pub(super) fn new(context: Arc<Context>) -> std::io::Result<Self> {
        let rng = &context.rng;
        let config = endpoint_config(
            &rng.next_u64().to_le_bytes(),
            rng.next_u64(),
            context.net.is_simulated().then_some(rng),
        );
        let address = outgoing_address(context.listen);
        let socket = context.net.bind_quic(address, UDP_BUFFER)?.socket;
        let runtime = Arc::new(TokioRuntime);
        let endpoint = Endpoint::new_with_abstract_socket(config, None, socket, runtime)?;
        Ok(Self { endpoint, context })
    }

    /// Closes every connection of this endpoint.
    pub(super) fn close(&self) {
        self.endpoint.close(close::STOPPING, b"node stops");
    }

    /// Dials until the hello is acknowledged, at most for `patience`.
    pub(super) async fn dial(
        &self,
        address: SocketAddr,
        target: Target,
        purpose: Purpose,
        patience: Duration,
    ) -> Result<Dialled, CallError> {
        let metrics = &self.context.metrics;
        let patience = patience.min(DIAL_TIMEOUT);
        match tokio::time::timeout(patience, self.handshake(address, target, purpose)).await {
            Ok(Ok(dialled)) => {
                metrics.handshakes_ok.increment(1);
                Ok(dialled)
            }
            Ok(Err(error)) => {
                match error {
                    CallError::Refused(_) => metrics.handshakes_refused.increment(1),
                    _ => metrics.handshakes_timeout.increment(1),
                }
                Err(error)
            }
            Err(_) => {
                metrics.handshakes_timeout.increment(1);
                Err(CallError::Unreachable(format!("{address} does not answer")))
            }
        }
    }

    async fn handshake(
        &self,
        address: SocketAddr,
        target: Target,
        purpose: Purpose,
    ) -> Result<Dialled, CallError> {
        let own = self.context.own;
        let cluster = &self.context.cluster;
        let name = match target {
            Target::Node(node) => self.context.proof.server_name(cluster, node),
            Target::Anyone => seed_server_name(cluster),
        };
        let config = ClientConfig::clone(&self.context.client.load());
        let connecting = self
            .endpoint
            .connect_with(config, address, &name)
            .map_err(|error| CallError::Unreachable(error.to_string()))?;
        let connection = connecting.await.map_err(|error| unconnected(&error))?;
        let (mut send, mut recv) =
            connection.open_bi().await.map_err(|error| unconnected(&error))?;
        let hello = Hello {
            protocols: self.context.protocols,
            cluster: cluster.clone(),
            node: own.node,
            generation: own.generation,
            purpose,
        };
        let lost = |error| match error {
            ReadError::Connection(error) => unconnected(&error),
            other => CallError::Unreachable(other.to_string()),
        };
        stream::write(&mut send, hello::encode(&hello).into()).await.map_err(lost)?;
        let bytes = stream::read_hello(&mut recv).await.map_err(lost)?;
        let ack: HelloAck =
            hello::decode(&bytes).map_err(|error| CallError::Refused(error.to_string()))?;
        if !self.context.protocols.speak(ack.protocol) {
            let error = format!("peer answers in protocol {} that was not offered", ack.protocol);
            return Err(CallError::Refused(error));
        }
        if self.context.proved_node(&connection, ack.node) != Some(ack.node) {
            return Err(CallError::Refused("peer is not the node of its certificate".to_owned()));
        }
        // Where certificates prove no node, its own word must do.
        if matches!(target, Target::Node(node) if node != ack.node) {
            return Err(CallError::Refused("another node answers at this address".to_owned()));
        }
        let peer = Caller { node: ack.node, generation: ack.generation };
        let registered = self.context.connections.register(peer.node, Direction::Out, connection);
        Ok(Dialled { registered, send, recv, peer })
    }
}

impl Context {
    /// The node that a peer has proved to be, who says to be `claimed`; `None` if it is none of this
    /// cluster.
    pub(super) fn proved_node(&self, connection: &Connection, claimed: NodeId) -> Option<NodeId> {
        let identity = connection.peer_identity()?;
        let chain = identity.downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().ok()?;
        self.proof.node(chain.first()?, &self.cluster, claimed)
    }
}

/// What a connection that did not come up means to a caller: nothing was executed.
pub(super) fn unconnected(error: &ConnectionError) -> CallError {
    match refusal(error) {
        Some(reason) => CallError::Refused(reason),
        None => CallError::Unreachable(error.to_string()),
    }
}

/// Why the peer refused the connection for good; `None` if it is merely lost.
pub(super) fn refusal(error: &ConnectionError) -> Option<String> {
    let code = match error {
        ConnectionError::TransportError(error) => error.code,
        ConnectionError::ConnectionClosed(frame) => frame.error_code,
        ConnectionError::ApplicationClosed(frame) if frame.error_code == close::REFUSED => {
            return Some(String::from_utf8_lossy(&frame.reason).into_owned());
        }
        _ => return None,
    };
    // QUIC carries a TLS alert as 0x100 plus its number.
    let alert = u64::from(code).checked_sub(0x100).and_then(|alert| u8::try_from(alert).ok())?;
    describe_alert(alert).map(str::to_owned)
}
