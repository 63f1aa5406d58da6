//! `get`, `set`, `del`, `ttl`, `scan`: a small client of the node's client port.

use std::io::Read;
use std::net::SocketAddr;
use std::time::Duration;

use crate::admin::status::Status;
use crate::cli::args::Data;
use crate::cli::ask::Ask;
use crate::cli::failure::Failure;
use crate::cli::output::{self, Format, Output, Page, printable, span};
use crate::cli::resp_client::{Reply, RespClient};
use crate::config::load::{PASSWORD_VARIABLE, USER_VARIABLE};
use crate::types::Db;

/// How many keys one SCAN asks for.
const SCAN_COUNT: &[u8] = b"1000";

/// The largest value that `set` takes from stdin.
const VALUE_MAX: u64 = 512 << 20;

/// Runs one of the verbs.
pub(super) async fn data(ask: &Ask, data: &Data, output: Output) -> Result<(), Failure> {
    match data {
        Data::Get { key, db } => get(&mut connect(ask, db.db).await?, key, output).await,
        Data::Set { key, value, ttl, db } => {
            let value = value_of(value)?;
            set(&mut connect(ask, db.db).await?, key, &value, *ttl, output).await
        }
        Data::Del { keys, db } => del(&mut connect(ask, db.db).await?, keys, output).await,
        Data::Ttl { key, db } => ttl(&mut connect(ask, db.db).await?, key, output).await,
        Data::Scan { pattern, db } => scan(&mut connect(ask, db.db).await?, pattern, output).await,
    }
}

/// Asks the node for its client address, connects there, logs in, and selects the database.
async fn connect(ask: &Ask, db: Db) -> Result<RespClient, Failure> {
    let status: Status = ask.get("/v1/status").await?;
    let address = reachable(status.addresses.client, ask.host());
    let mut client = RespClient::connect(&address).await?;
    if let Some(password) = std::env::var_os(PASSWORD_VARIABLE) {
        let user = std::env::var_os(USER_VARIABLE);
        let user = user.as_ref().map(|user| user.as_encoded_bytes());
        let words = [Some(b"AUTH".as_slice()), user, Some(password.as_encoded_bytes())];
        client.run(&words.into_iter().flatten().collect::<Vec<_>>()).await?;
    }
    if db.get() != 0 {
        client.run(&[b"SELECT", db.get().to_string().as_bytes()]).await?;
    }
    Ok(client)
}

/// A node that listens everywhere is reached where it was asked.
fn reachable(client: SocketAddr, host: &str) -> String {
    if client.ip().is_unspecified() {
        format!("{host}:{}", client.port())
    } else {
        client.to_string()
    }
}

fn value_of(argument: &str) -> Result<Vec<u8>, Failure> {
    if argument != "-" {
        return Ok(argument.as_bytes().to_vec());
    }
    let mut value = Vec::new();
    let read = std::io::stdin().lock().take(VALUE_MAX).read_to_end(&mut value);
    read.map_err(|error| Failure::Failed(format!("cannot read stdin: {error}")))?;
    Ok(value)
}

fn unexpected(reply: &Reply) -> Failure {
    Failure::Failed(format!("the node answered something else: {reply:?}"))
}

fn no_such_key() -> Failure {
    Failure::Failed("no such key".to_owned())
}

async fn get(client: &mut RespClient, key: &str, output: Output) -> Result<(), Failure> {
    let value = match client.run(&[b"GET", key.as_bytes()]).await? {
        Reply::Bulk(value) => value,
        other => return Err(unexpected(&other)),
    };
    if output.format == Format::Json {
        let text = value.as_deref().map(String::from_utf8_lossy);
        let json = serde_json::json!({ "key": key, "value": text });
        output.page(&Page { json, head: &[], rows: Vec::new() })?;
    }
    let Some(mut value) = value else { return Err(no_such_key()) };
    match output.format {
        Format::Json => Ok(()),
        Format::Plain => output::write(&value),
        Format::Table => {
            value.push(b'\n');
            output::write(&value)
        }
    }
}

async fn set(
    client: &mut RespClient,
    key: &str,
    value: &[u8],
    ttl: Option<Duration>,
    output: Output,
) -> Result<(), Failure> {
    let millis = ttl.map(|ttl| ttl.as_millis().to_string());
    let mut parts: Vec<&[u8]> = vec![b"SET", key.as_bytes(), value];
    if let Some(millis) = &millis {
        parts.extend([b"PX".as_slice(), millis.as_bytes()]);
    }
    match client.run(&parts).await? {
        Reply::Simple(said) => {
            let json = serde_json::json!({ "key": key, "set": true });
            output.page(&Page { json, head: &[], rows: vec![vec![said]] })
        }
        other => Err(unexpected(&other)),
    }
}

async fn del(client: &mut RespClient, keys: &[String], output: Output) -> Result<(), Failure> {
    let names = keys.iter().map(String::as_bytes);
    let parts: Vec<&[u8]> = std::iter::once(b"DEL".as_slice()).chain(names).collect();
    match client.run(&parts).await? {
        Reply::Integer(deleted) => {
            let json = serde_json::json!({ "deleted": deleted });
            output.page(&Page { json, head: &[], rows: vec![vec![deleted.to_string()]] })
        }
        other => Err(unexpected(&other)),
    }
}

async fn ttl(client: &mut RespClient, key: &str, output: Output) -> Result<(), Failure> {
    let millis = match client.run(&[b"PTTL", key.as_bytes()]).await? {
        Reply::Integer(-2) => return Err(no_such_key()),
        Reply::Integer(millis) => u64::try_from(millis).ok(),
        other => return Err(unexpected(&other)),
    };
    let seconds = millis.map(|millis| Duration::from_millis(millis).as_secs_f64());
    let json = serde_json::json!({ "key": key, "ttl_seconds": seconds });
    let said = seconds.map_or_else(|| "no expiry".to_owned(), span);
    output.page(&Page { json, head: &[], rows: vec![vec![said]] })
}

/// Keys page by page, each a line (JSON: a JSON string); a key may come twice while slots move.
async fn scan(client: &mut RespClient, pattern: &str, output: Output) -> Result<(), Failure> {
    let mut cursor = b"0".to_vec();
    loop {
        let parts: [&[u8]; 6] =
            [b"SCAN", &cursor, b"MATCH", pattern.as_bytes(), b"COUNT", SCAN_COUNT];
        let reply = client.run(&parts).await?;
        let Reply::Array(mut items) = reply else { return Err(unexpected(&reply)) };
        let (Some(Reply::Array(keys)), Some(Reply::Bulk(Some(next)))) = (items.pop(), items.pop())
        else {
            return Err(Failure::Failed("the node answered SCAN with something else".to_owned()));
        };
        let mut lines = Vec::new();
        for key in keys {
            let Reply::Bulk(Some(key)) = key else { return Err(unexpected(&key)) };
            lines.extend(line_of(key, output));
        }
        output::write(&lines)?;
        if next == b"0" {
            return Ok(());
        }
        cursor = next;
    }
}

fn line_of(key: Vec<u8>, output: Output) -> Vec<u8> {
    let mut line = match output.format {
        Format::Json => serde_json::json!(String::from_utf8_lossy(&key)).to_string().into_bytes(),
        Format::Table => printable(&key).into_bytes(),
        Format::Plain => key,
    };
    line.push(b'\n');
    line
}
