//! The cache as a program uses it that embeds a node.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cluster::{self, CommandCall, Port, Started};
use crate::command::{self, Runs};
use crate::resp::{Proto, Reply};
use crate::tasks::Executor;
use crate::types::Db;

use super::Error;

/// A handle to the cluster's keys. Clones share the node; each call is one command.
///
/// Keys and values are bytes of any kind; `*_value` methods encode values with postcard.
#[derive(Clone)]
pub struct Cache {
    shards: Arc<[ShardHandle]>,
    next: Arc<AtomicUsize>,
    db: Db,
}

/// A shard thread and the cache as it uses it.
#[derive(Clone)]
pub(super) struct ShardHandle {
    pub(super) executor: Executor,
    pub(super) cache: cluster::Cache,
}

impl Cache {
    pub(super) fn new(shards: Arc<[ShardHandle]>) -> Self {
        Self { shards, next: Arc::default(), db: Db::default() }
    }

    /// The same cache in another database, 0 to 15.
    #[must_use]
    pub fn in_database(&self, db: Db) -> Self {
        Self { db, ..self.clone() }
    }

    /// The value of a key.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>, Error> {
        bytes_or_none(self.command(&[b"GET", key.as_ref()]).await?)
    }

    /// Sets a key, without an expiry.
    pub async fn set(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<(), Error> {
        done(self.command(&[b"SET", key.as_ref(), value.as_ref()]).await?)
    }

    /// Sets a key that expires `ttl` from now, at least a millisecond.
    pub async fn set_for(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl: Duration,
    ) -> Result<(), Error> {
        let millis = ttl.as_millis().max(1).to_string();
        let args: [&[u8]; 5] = [b"SET", key.as_ref(), value.as_ref(), b"PX", millis.as_bytes()];
        done(self.command(&args).await?)
    }

    /// Sets a key that does not exist; whether it did.
    pub async fn set_if_absent(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<bool, Error> {
        let reply = self.command(&[b"SET", key.as_ref(), value.as_ref(), b"NX"]).await?;
        Ok(reply != Reply::Null)
    }

    /// Deletes a key; whether it existed.
    pub async fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        Ok(number(self.command(&[b"DEL", key.as_ref()]).await?)? > 0)
    }

    /// Whether a key exists.
    pub async fn exists(&self, key: impl AsRef<[u8]>) -> Result<bool, Error> {
        Ok(number(self.command(&[b"EXISTS", key.as_ref()]).await?)? > 0)
    }

    /// Adds to the integer at a key, which begins at 0; the new value.
    pub async fn increment(&self, key: impl AsRef<[u8]>, by: i64) -> Result<i64, Error> {
        number(self.command(&[b"INCRBY", key.as_ref(), by.to_string().as_bytes()]).await?)
    }

    /// Time until a key expires; `None` if it does not exist or does not expire.
    pub async fn ttl(&self, key: impl AsRef<[u8]>) -> Result<Option<Duration>, Error> {
        let millis = number(self.command(&[b"PTTL", key.as_ref()]).await?)?;
        Ok(u64::try_from(millis).ok().map(Duration::from_millis))
    }

    /// The value of a key that [`Cache::set_value`] set.
    pub async fn get_value<T: DeserializeOwned>(
        &self,
        key: impl AsRef<[u8]>,
    ) -> Result<Option<T>, Error> {
        let Some(bytes) = self.get(key).await? else { return Ok(None) };
        postcard::from_bytes(&bytes).map(Some).map_err(Error::Value)
    }

    /// Sets a key to a value that serde knows; `ttl` as in [`Cache::set_for`].
    pub async fn set_value<T: Serialize + Sync>(
        &self,
        key: impl AsRef<[u8]>,
        value: &T,
        ttl: Option<Duration>,
    ) -> Result<(), Error> {
        let bytes = postcard::to_stdvec(value).map_err(Error::Value)?;
        match ttl {
            Some(ttl) => self.set_for(key, bytes, ttl).await,
            None => self.set(key, bytes).await,
        }
    }

    /// Runs any command on keys; an error reply becomes [`Error::Command`].
    pub async fn command(&self, args: &[&[u8]]) -> Result<Reply, Error> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.shards.len();
        let shard = &self.shards[turn];
        let owned: Vec<Bytes> = args.iter().map(|arg| Bytes::copy_from_slice(arg)).collect();
        let (cache, db) = (shard.cache.clone(), self.db);
        let run = async move { run(&cache, db, &owned).await };
        let encoded = match &shard.executor {
            // Already on the node's runtime: no need to change tasks.
            Executor::Caller => run.await,
            there @ Executor::Thread(_) => {
                there.run("embedded command", run).await.ok_or(Error::Stopped)?
            }
        }?;
        match Reply::decode(&encoded) {
            Ok(Some((reply, _))) => match reply.as_error() {
                Some(text) => Err(Error::Command(text.into_owned())),
                None => Ok(reply),
            },
            Ok(None) | Err(_) => Err(Error::Command("the reply was not understood".to_owned())),
        }
    }
}

async fn run(cache: &cluster::Cache, db: Db, args: &[Bytes]) -> Result<Bytes, Error> {
    let args: Vec<&[u8]> = args.iter().map(|arg| &**arg).collect();
    let row = command::parse::resolve(&args).map_err(|error| Error::Command(error.to_string()))?;
    if matches!(row.runs, Runs::Connection | Runs::Node) {
        return Err(Error::Command(format!("{} does not run on keys", row.name)));
    }
    let (proto, port, now) = (Proto::Resp3, Port::Client, cache.shared().wall());
    let call = CommandCall { row, args: &args, db, proto, port, now };
    let mut out = Vec::new();
    match cache.start(&call, &mut out) {
        Started::Done => Ok(out.into()),
        Started::Waiting(future) => Ok(future.await),
    }
}

fn bytes_or_none(reply: Reply) -> Result<Option<Bytes>, Error> {
    match reply {
        Reply::Null => Ok(None),
        Reply::Bulk(value) => Ok(Some(value.into())),
        other => Err(unexpected(&other)),
    }
}

fn number(reply: Reply) -> Result<i64, Error> {
    match reply {
        Reply::Integer(number) => Ok(number),
        other => Err(unexpected(&other)),
    }
}

fn done(reply: Reply) -> Result<(), Error> {
    match reply {
        Reply::Simple(_) => Ok(()),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(reply: &Reply) -> Error {
    Error::Command(format!("unexpected reply {reply:?}"))
}
