//! The library face of a node: one node in this process, every method of its cache.

use std::error::Error;
use std::time::Duration;

use chickadee::{Cache, Config, Db, Node, Reply};

async fn started(folder: &tempfile::TempDir) -> Result<Node, chickadee::Error> {
    let name = "lone".parse().expect("a name");
    let node = Node::start(Config::on_loopback(name, folder.path())).await?;
    node.ready().await?;
    Ok(node)
}

#[tokio::test]
async fn a_program_keeps_bytes_numbers_and_values() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let node = started(&folder).await?;
    let cache = node.cache();
    assert_eq!(cache.get("absent").await?, None);
    cache.set(b"\0binary\xff", b"\r\n\0").await?;
    assert_eq!(cache.get(b"\0binary\xff").await?.as_deref(), Some(&b"\r\n\0"[..]));

    assert!(cache.set_if_absent("once", "first").await?);
    assert!(!cache.set_if_absent("once", "second").await?);
    assert_eq!(cache.get("once").await?.as_deref(), Some(&b"first"[..]));

    assert_eq!(cache.increment("count", 5).await?, 5);
    assert_eq!(cache.increment("count", -7).await?, -2);

    assert_eq!(cache.ttl("once").await?, None);
    cache.set_for("soon", "gone", Duration::from_mins(1)).await?;
    let left = cache.ttl("soon").await?;
    assert!(left.is_some_and(|left| left > Duration::from_secs(50)), "{left:?}");

    let pair = ("Ada".to_owned(), vec![1_u32, 2, 3]);
    cache.set_value("pair", &pair, None).await?;
    assert_eq!(cache.get_value("pair").await?, Some(pair));
    assert_eq!(cache.get_value::<u32>("absent").await?, None);

    assert!(cache.exists("once").await? && cache.delete("once").await?);
    assert!(!cache.exists("once").await? && !cache.delete("once").await?);
    node.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn errors_say_what_happened() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let node = started(&folder).await?;
    let cache = node.cache();
    cache.set("text", "five").await?;
    let error = cache.increment("text", 1).await.expect_err("not a number");
    assert_eq!(error.to_string(), "ERR value is not an integer or out of range");
    let error = cache.get_value::<(u64, String)>("text").await.expect_err("not such a value");
    assert!(matches!(error, chickadee::Error::Value(_)), "{error}");
    assert!(matches!(cache.command(&[b"HELLO"]).await, Err(chickadee::Error::Command(_))));
    node.shutdown().await;
    node.stopped().await;
    Ok(())
}

#[tokio::test]
async fn databases_are_apart_and_figures_move() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let node = started(&folder).await?;
    let (zero, one): (Cache, Cache) =
        (node.cache(), node.cache().in_database(Db::new(1).ok_or("no database 1")?));
    zero.set("key", "zero").await?;
    one.set("key", "one").await?;
    assert_eq!(zero.get("key").await?.as_deref(), Some(&b"zero"[..]));
    assert_eq!(one.command(&[b"DBSIZE"]).await?, Reply::Integer(1));
    let before = node.stats();
    assert_eq!((before.keys, before.clients), (2, 0));
    zero.get("key").await?;
    zero.get("absent").await?;
    let after = node.stats();
    assert_eq!((after.hits - before.hits, after.misses - before.misses), (1, 1));
    assert!(after.used_bytes > 0 && after.limit_bytes == 64 << 20);
    assert_eq!(node.status().node.name, "lone");
    assert!(node.metrics().contains("chickadee_reads_total"));
    node.shutdown().await;
    Ok(())
}

/// The watchdog of a service rests on it: a part that hangs is found.
#[tokio::test]
async fn a_pulse_goes_through_every_lock() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let node = started(&folder).await?;
    assert_eq!(node.pulse(Duration::from_secs(20)).await, Ok(()));
    let (held, release) = (std::sync::mpsc::channel::<()>(), std::sync::mpsc::channel::<()>());
    let shared = std::sync::Arc::clone(node.cluster());
    let holder = std::thread::spawn(move || {
        let last = shared.store().shards() - 1;
        let lock = shared.store().lock_shard(last);
        held.0.send(()).expect("the test waits");
        let _released_or_over = release.1.recv();
        drop(lock);
    });
    held.1.recv()?;
    let stuck = node.pulse(Duration::from_millis(300)).await;
    assert!(stuck.is_err_and(|part| part.to_string().contains("lock of the store")));
    release.0.send(())?;
    holder.join().expect("it lets go");
    assert_eq!(node.pulse(Duration::from_secs(20)).await, Ok(()));
    node.shutdown().await;
    Ok(())
}
