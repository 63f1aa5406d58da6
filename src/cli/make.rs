//! Verbs that need no node: secrets, settings, the version.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::cli::args::ConfigVerb;
use crate::cli::failure::Failure;
use crate::cli::output::{self, Format, Output, Page};
use crate::cli::sources;
use crate::config::describe::{Example, Shown};
use crate::config::setting::Setting;
use crate::config::settings::SETTINGS;
use crate::rng::Randomness;

/// 64-bit words of randomness in a secret.
const SECRET_WORDS: usize = 4;

/// A new secret: 256 random bits as 64 hex digits, and a newline.
fn new_secret() -> String {
    let random = Randomness::from_system();
    let words = std::iter::repeat_with(|| format!("{:016x}", random.next_u64()));
    words.take(SECRET_WORDS).collect::<String>() + "\n"
}

/// `keygen`: never overwrites a file, because a lost secret is a lost cluster.
pub(super) fn keygen(out: Option<&Path>) -> Result<(), Failure> {
    let Some(path) = out else {
        return output::write(new_secret().as_bytes());
    };
    write_secret(path)?;
    output::note(&format!("wrote a secret to {}; give every node the same", path.display()));
    Ok(())
}

/// Writes a new secret to a file that does not exist yet.
pub(super) fn write_secret(path: &Path) -> Result<(), Failure> {
    let fault = |error| Failure::Failed(format!("cannot write {}: {error}", path.display()));
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path).map_err(fault)?;
    file.write_all(new_secret().as_bytes()).and_then(|()| file.sync_all()).map_err(fault)
}

/// `config check|show|example`.
pub(super) fn config(verb: &ConfigVerb, output: Output) -> Result<(), Failure> {
    match verb {
        ConfigVerb::Check { file } => {
            sources::settings(file.as_deref(), &[], false)?;
            output::note("settings are good");
            Ok(())
        }
        ConfigVerb::Show { config, origin, settings } => {
            let loaded = sources::settings(config.as_deref(), &settings.0, false)?;
            if output.format == Format::Table {
                let shown = Shown { loaded: &loaded, origins: *origin };
                return output::write(shown.to_string().as_bytes());
            }
            let cells = |row: &Setting| {
                let mut cells = vec![row.key.to_owned(), row.show(&loaded.config)];
                cells.extend(origin.then(|| loaded.origin(row.key).to_string()));
                cells
            };
            let entry = |row: &Setting| {
                let origin = origin.then(|| loaded.origin(row.key).to_string());
                let entry = serde_json::json!({
                    "value": row.show(&loaded.config),
                    "origin": origin,
                });
                (row.key.to_owned(), entry)
            };
            let json = SETTINGS.iter().map(entry).collect::<serde_json::Map<_, _>>().into();
            output.page(&Page { json, head: &[], rows: SETTINGS.iter().map(cells).collect() })
        }
        ConfigVerb::Example => output::write(Example.to_string().as_bytes()),
    }
}

/// `version`.
pub(super) fn version(output: Output) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let json = serde_json::json!({ "version": version });
    output.page(&Page { json, head: &[], rows: vec![vec![format!("chickadee {version}")]] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_64_hex_digits_and_never_the_same() {
        let (one, other) = (new_secret(), new_secret());
        assert_ne!(one, other);
        assert_eq!(one.len(), 65);
        assert!(one.trim_end().chars().all(|c| c.is_ascii_hexdigit()));
    }
}
