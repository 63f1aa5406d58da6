//! Replies of one batch in the order of the requests, some of them still under way.
//!
//! What is answered at once is appended to one buffer. What is under way is a future with its
//! place in that buffer; [`Replies::settle`] polls those which were woken, and only those, until
//! all are there, so that a retry of one never waits for another.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::limits;
use crate::tasks::BoxFuture;

/// The replies of one batch.
#[derive(Default)]
pub(super) struct Replies {
    /// What was answered at once, end to end.
    pub(super) ready: Vec<u8>,
    waiting: Vec<Waiting>,
    parent: Arc<Parent>,
}

/// A reply under way.
struct Waiting {
    /// Its place: before this byte of `ready`.
    at: usize,
    /// Whether the client wants to see it.
    wanted: bool,
    state: State,
    alarm: Arc<Alarm>,
}

enum State {
    Pending(BoxFuture<'static, Bytes>),
    Done(Bytes),
}

/// The waker of the connection's task.
#[derive(Default)]
struct Parent(Mutex<Option<Waker>>);

/// The waker of one future: notes which one it is and wakes the task.
struct Alarm {
    woken: AtomicBool,
    parent: Arc<Parent>,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        let waker = self.parent.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Replies {
    /// Adds a reply that is under way behind all others.
    pub(super) fn wait_for(&mut self, reply: BoxFuture<'static, Bytes>, wanted: bool) {
        let alarm =
            Arc::new(Alarm { woken: AtomicBool::new(true), parent: Arc::clone(&self.parent) });
        let state = State::Pending(reply);
        self.waiting.push(Waiting { at: self.ready.len(), wanted, state, alarm });
    }

    /// Whether nothing was answered and nothing is under way.
    pub(super) const fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.waiting.is_empty()
    }

    /// Whether no reply had to be waited for.
    pub(super) const fn all_at_once(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Waits until every reply is there; `false` as soon as those that are there exceed `max`
    /// bytes together.
    #[must_use]
    pub(super) async fn settle(&mut self, max: u64) -> bool {
        if !self.waiting.is_empty() {
            return poll_fn(|context| self.poll_settle(context, max)).await;
        }
        self.ready.len() as u64 <= max
    }

    fn poll_settle(&mut self, context: &Context<'_>, max: u64) -> Poll<bool> {
        *self.parent.0.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(context.waker().clone());
        let mut pending = false;
        for waiting in &mut self.waiting {
            let State::Pending(future) = &mut waiting.state else { continue };
            if waiting.alarm.woken.swap(false, Ordering::AcqRel) {
                let waker = Waker::from(Arc::clone(&waiting.alarm));
                if let Poll::Ready(reply) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    let reply = if waiting.wanted { reply } else { Bytes::new() };
                    waiting.state = State::Done(reply);
                    continue;
                }
            }
            pending = true;
        }
        if self.len() as u64 > max {
            Poll::Ready(false)
        } else if pending {
            Poll::Pending
        } else {
            Poll::Ready(true)
        }
    }

    /// Replies that had to be waited for and are there.
    pub(super) fn late(&self) -> impl Iterator<Item = &Bytes> {
        self.waiting.iter().filter_map(|waiting| match &waiting.state {
            State::Done(reply) => Some(reply),
            State::Pending(_) => None,
        })
    }

    /// Bytes that are there.
    pub(super) fn len(&self) -> usize {
        self.ready.len() + self.late().map(Bytes::len).sum::<usize>()
    }

    /// Writes the settled replies, in one write unless some are large, and forgets them.
    pub(super) async fn write(&mut self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        if self.waiting.is_empty() {
            stream.write_all(&self.ready).await?;
        } else {
            self.write_joined(stream).await?;
        }
        // TLS keeps what the socket did not take.
        stream.flush().await?;
        self.clear();
        Ok(())
    }

    async fn write_joined(&mut self, stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let mut joined = Vec::with_capacity(self.len().min(limits::BUFFER_KEPT_MAX));
        let mut from = 0;
        // By value: a future of another reply must not be shared with the threads of the runtime.
        for waiting in std::mem::take(&mut self.waiting) {
            joined.extend_from_slice(self.ready.get(from..waiting.at).unwrap_or_default());
            from = waiting.at;
            let State::Done(reply) = waiting.state else { continue };
            if joined.len() + reply.len() > limits::BUFFER_KEPT_MAX {
                stream.write_all(&joined).await?;
                stream.write_all(&reply).await?;
                joined.clear();
            } else {
                joined.extend_from_slice(&reply);
            }
        }
        joined.extend_from_slice(self.ready.get(from..).unwrap_or_default());
        stream.write_all(&joined).await
    }

    /// Forgets all replies; what is under way goes on without anyone waiting for it.
    pub(super) fn clear(&mut self) {
        self.ready.clear();
        self.ready.shrink_to(limits::BUFFER_KEPT_MAX);
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn reply(from: oneshot::Receiver<&'static str>) -> BoxFuture<'static, Bytes> {
        Box::pin(async move { Bytes::from(from.await.unwrap_or("lost")) })
    }

    #[tokio::test]
    async fn replies_leave_in_order_whatever_comes_first() {
        let mut replies = Replies::default();
        let (first, first_reply) = oneshot::channel();
        let (second, second_reply) = oneshot::channel();
        let (hidden, hidden_reply) = oneshot::channel();
        replies.ready.extend_from_slice(b"a");
        replies.wait_for(reply(first_reply), true);
        replies.ready.extend_from_slice(b"b");
        replies.wait_for(reply(hidden_reply), false);
        replies.wait_for(reply(second_reply), true);
        replies.ready.extend_from_slice(b"c");
        second.send("2").unwrap();
        let late = async {
            tokio::task::yield_now().await;
            hidden.send("x").unwrap();
            tokio::task::yield_now().await;
            first.send("1").unwrap();
        };
        let (within, ()) = tokio::join!(replies.settle(5), late);
        assert!(within);
        let mut out = Vec::new();
        assert_eq!(replies.len(), 5);
        replies.write(&mut out).await.unwrap();
        assert_eq!(out, b"a1b2c");
        assert!(replies.is_empty());
    }

    #[tokio::test]
    async fn replies_beyond_the_bound_are_not_waited_for() {
        let mut replies = Replies::default();
        let (large, large_reply) = oneshot::channel();
        let (_never, never_reply) = oneshot::channel();
        replies.wait_for(reply(large_reply), true);
        replies.wait_for(reply(never_reply), true);
        large.send("more than that").unwrap();
        assert!(!replies.settle(5).await);
    }
}
