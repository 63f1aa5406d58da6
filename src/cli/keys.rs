//! `keys`: the key ring of gossip, rotated over a living cluster.

use std::io::{Read, stdin};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use zeroize::Zeroizing;

use crate::admin::status::{KeyChanged, KeyRow};
use crate::cli::args::KeysVerb;
use crate::cli::ask::Ask;
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output, Page};
use crate::tls::Secret;

/// How long a change may take: each member has a second to confirm.
const PATIENCE: Duration = Duration::from_secs(15);

/// The longest secret that is read from stdin.
const INPUT_MAX: u64 = 4096;

/// The verbs.
pub(super) async fn keys(ask: &Ask, verb: &KeysVerb, output: Output) -> Result<(), Failure> {
    match verb {
        KeysVerb::List => output.page(&listed(&ask.get::<Vec<KeyRow>>("/v1/keys").await?)),
        KeysVerb::Add { file } => {
            let secret = Bytes::from(secret(file)?.to_file_text().as_bytes().to_vec());
            let changed = ask.post_body("/v1/keys/add", secret, PATIENCE).await?;
            done("added", &changed, output)
        }
        KeysVerb::Use { id } => {
            let changed = ask.post(&format!("/v1/keys/use?id={id}"), PATIENCE).await?;
            done("in use", &changed, output)
        }
        KeysVerb::Remove { id } => {
            let changed = ask.post(&format!("/v1/keys/remove?id={id}"), PATIENCE).await?;
            done("removed", &changed, output)
        }
    }
}

/// Reads the file here, so that a secret that is open to others is refused before it is sent.
fn secret(file: &Path) -> Result<Secret, Failure> {
    let read = if file == Path::new("-") {
        let mut contents = Zeroizing::new(Vec::new());
        let fault = |error| Failure::Failed(format!("cannot read standard input: {error}"));
        stdin().lock().take(INPUT_MAX + 1).read_to_end(&mut contents).map_err(fault)?;
        Secret::parse(&contents)
    } else {
        Secret::read(file)
    };
    read.map_err(|error| Failure::Failed(error.to_string()))
}

fn listed(keys: &[KeyRow]) -> Page {
    let row = |key: &KeyRow| {
        let seals = if key.primary { "yes" } else { "no" };
        vec![key.id.to_string(), seals.to_owned(), key.fingerprint.clone()]
    };
    let json = serde_json::to_value(keys).expect("plain structs can be written as JSON");
    Page { json, head: &["ID", "SEALS", "FINGERPRINT"], rows: keys.iter().map(row).collect() }
}

fn done(what: &str, changed: &KeyChanged, output: Output) -> Result<(), Failure> {
    if !changed.late.is_empty() {
        output::note(&format!(
            "not confirmed yet by {}: they get it within a minute",
            changed.late.join(", ")
        ));
    }
    let json = serde_json::to_value(changed).expect("plain structs can be written as JSON");
    output.page(&Page { json, head: &[], rows: vec![vec![format!("key {} {what}", changed.id)]] })
}
