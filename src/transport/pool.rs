//! The lanes that one thread dials, and its way to call peers.
//!
//! Lanes are made on first use. Bulk streams and calls to addresses dial a connection each; bulk
//! from an endpoint of its own, so that its packets never wait in front of a lane's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::endpoint::{Dialer, Target, close};
use super::freshness::stamp;
use super::lane::{Lane, Load};
use super::{Context, bulk, stream};
use crate::limits::CALL_PAYLOAD_MAX;
use crate::peers::{BulkStream, Call, CallError, Caller, Peers};
use crate::tasks::BoxFuture;
use crate::types::NodeId;
use crate::wire::hello::Purpose;

/// One thread's lanes. Its endpoints live on the runtime that made it.
pub(super) struct Pool {
    context: Arc<Context>,
    dialer: Arc<Dialer>,
    bulk: Arc<Dialer>,
    lanes: Mutex<BTreeMap<NodeId, Arc<Lane>>>,
}

impl Pool {
    pub(super) fn new(context: Arc<Context>) -> std::io::Result<Self> {
        let dialer = Arc::new(Dialer::new(Arc::clone(&context))?);
        let bulk = Arc::new(Dialer::new(Arc::clone(&context))?);
        Ok(Self { context, dialer, bulk, lanes: Mutex::default() })
    }

    /// Ends the calls to a dead node and forgets its lane.
    pub(super) fn abandon(&self, node: NodeId) {
        let lane = self.lock().get(&node).cloned();
        if let Some(lane) = lane {
            lane.abandon();
            if lane.is_idle() {
                self.lock().remove(&node);
            }
        }
    }

    /// What the lanes hold, peer by peer.
    pub(super) fn loads(&self) -> BTreeMap<NodeId, Load> {
        self.lock().iter().map(|(node, lane)| (*node, lane.load())).collect()
    }

    /// Closes every connection of this pool.
    pub(super) fn close(&self) {
        self.dialer.close();
        self.bulk.close();
    }

    fn lane(&self, to: NodeId) -> Arc<Lane> {
        let new = || Arc::new(Lane::new(to, Arc::clone(&self.context), Arc::clone(&self.dialer)));
        Arc::clone(self.lock().entry(to).or_insert_with(new))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Arc<Lane>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peers for Pool {
    fn call(&self, to: NodeId, request: Bytes, budget: Duration) -> Call {
        self.lane(to).call(request, budget)
    }

    fn call_address(
        &self,
        to: SocketAddr,
        request: Bytes,
        budget: Duration,
    ) -> BoxFuture<'static, Result<(Caller, Bytes), CallError>> {
        let (context, dialer) = (Arc::clone(&self.context), Arc::clone(&self.dialer));
        Box::pin(async move {
            if request.len() > CALL_PAYLOAD_MAX {
                return Err(CallError::TooLarge);
            }
            let deadline = context.clock.now() + budget;
            let dialled = dialer.dial(to, Target::Anyone, Purpose::Address, budget).await?;
            let connection = dialled.connection().clone();
            let (mut send, mut recv, peer) = (dialled.send, dialled.recv, dialled.peer);
            let now = context.clock.now();
            let (left, sent) = (deadline.saturating_since(now), stamp(now));
            let exchange = stream::exchange((&mut send, &mut recv), (left, sent), request).await;
            connection.close(close::DONE, b"");
            Ok((peer, exchange?))
        })
    }

    fn open_bulk(
        &self,
        to: NodeId,
        budget: Duration,
    ) -> BoxFuture<'static, Result<BulkStream, CallError>> {
        Box::pin(bulk::open(Arc::clone(&self.context), Arc::clone(&self.bulk), to, budget))
    }
}
