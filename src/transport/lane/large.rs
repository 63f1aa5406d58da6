//! What is too large for a lane: its calls and answers have streams of their own.

use std::sync::Arc;

use quinn::{Connection, RecvStream};

use crate::peers::CallError;
use crate::transport::stream::{self, ReadError};
use crate::wire::frame::FrameHeader;

use super::{Lane, Waiting, unsent};
use crate::transport::freshness::stamp;

impl Lane {
    /// A call on a stream of its own.
    pub(super) async fn large_call(self: Arc<Self>, connection: Connection, call: Waiting) {
        let budget = call.deadline.saturating_since(self.context.clock.now());
        let sent = stamp(self.context.clock.now());
        let exchange = async {
            let streams = tokio::time::timeout(budget, connection.open_bi());
            let (mut send, mut recv) = match streams.await {
                Ok(opened) => opened.map_err(|_| CallError::Lost)?,
                Err(_) => return Err(unsent()),
            };
            stream::exchange((&mut send, &mut recv), (budget, sent), call.payload).await
        };
        let outcome = exchange.await;
        self.lock().large -= 1;
        match outcome {
            Err(late @ (CallError::TimedOut | CallError::Unreachable(_))) => {
                self.expired([call.waiter], &late);
            }
            outcome => {
                let _caller_may_have_gone = call.waiter.send(outcome);
            }
        }
    }

    /// Takes answers that come on streams of their own.
    pub(super) async fn take_large_answers(self: &Arc<Self>, connection: &Connection) -> ReadError {
        loop {
            let mut recv = match connection.accept_uni().await {
                Ok(recv) => recv,
                Err(error) => return error.into(),
            };
            let lane = Arc::clone(self);
            self.context.tasks.spawn("large answer", async move {
                if let Ok(header) = stream::read_header(&mut recv).await {
                    lane.take_large_answer(header, recv).await;
                }
            });
        }
    }

    /// An answer has begun to come on a stream of its own: its call has no deadline any more.
    async fn take_large_answer(&self, header: FrameHeader, mut recv: RecvStream) {
        let waiter = {
            let mut state = self.lock();
            let waiter = state.in_flight.remove(header.id);
            state.arriving += usize::from(waiter.is_some());
            waiter
        };
        // The caller has given up: the stream is stopped by dropping it.
        let Some(waiter) = waiter else { return };
        let outcome = stream::read_payload(&mut recv, header.payload_len).await;
        self.lock().arriving -= 1;
        let _caller_may_have_gone = waiter.send(outcome.map_err(CallError::from));
    }
}
