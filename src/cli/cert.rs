//! `cert`: an authority of one's own, and certificates that it signs.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::admin::status::Stamp;
use crate::cli::args::{CertVerb, IssueArgs};
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output, Page, span};
use crate::clock::{Clock, SystemClock};
use crate::tls::authority::{Authority, Pair, Validity};
use crate::tls::pem::{self, Described};
use crate::types::WallMillis;

/// The authority's files within their folder.
const CA: &str = "ca";

/// The verbs.
pub(super) fn cert(verb: &CertVerb, output: Output) -> Result<(), Failure> {
    match verb {
        CertVerb::Ca { cluster, out, valid } => {
            let pair = Authority::make(cluster, validity(*valid)).map_err(failed)?;
            let [certificate, key] = write(out, CA, &pair)?;
            output::note(&format!(
                "wrote {} and {}; the key signs nodes: keep it where no node runs",
                certificate.display(),
                key.display()
            ));
            Ok(())
        }
        CertVerb::Issue(args) => issue(args),
        CertVerb::Show { file } => show(file, output),
    }
}

fn validity(lasts: Duration) -> Validity {
    Validity { now: SystemClock::new().wall(), lasts }
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::Failed(error.to_string())
}

fn issue(args: &IssueArgs) -> Result<(), Failure> {
    let text = |end: &str| {
        let path = args.ca.join(format!("{CA}.{end}"));
        fs::read_to_string(&path).map(zeroize::Zeroizing::new).map_err(|error| {
            Failure::Failed(format!(
                "cannot read {}: {error}: make an authority with `chickadee cert ca`",
                path.display()
            ))
        })
    };
    let authority = Authority::load(&text("pem")?, &text("key")?).map_err(failed)?;
    let name = args.name.as_str();
    let pair = authority.issue(&args.cluster, name, &args.hosts, validity(args.valid));
    let [certificate, key] = write(&args.out, name, &pair.map_err(failed)?)?;
    output::note(&format!("wrote {} and {}", certificate.display(), key.display()));
    Ok(())
}

/// Writes both files, neither over one that is there: who depends on a key would be shut out.
fn write(folder: &Path, name: &str, pair: &Pair) -> Result<[PathBuf; 2], Failure> {
    let fault = |path: &Path| {
        let path = path.display().to_string();
        move |error| Failure::Failed(format!("cannot write {path}: {error}"))
    };
    fs::create_dir_all(folder).map_err(fault(folder))?;
    let paths = ["pem", "key"].map(|end| folder.join(format!("{name}.{end}")));
    let contents = [pair.certificate.as_bytes(), pair.key.as_bytes()];
    for (path, mode, bytes) in [(&paths[1], 0o600, contents[1]), (&paths[0], 0o644, contents[0])] {
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create_new(true).mode(mode).open(path).map_err(fault(path))?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(fault(path))?;
    }
    Ok(paths)
}

/// Exit 1 if one of the certificates is not valid now.
fn show(file: &Path, output: Output) -> Result<(), Failure> {
    let certificates = pem::describe(file).map_err(failed)?;
    let now = SystemClock::new().wall();
    let json = certificates.iter().map(entry).collect();
    let rows = certificates.iter().map(|certificate| row(certificate, now)).collect();
    output.page(&Page { json, head: &["SUBJECT", "ISSUER", "NAMES", "ENDS", "LEFT"], rows })?;
    let is_valid = |one: &Described| one.not_before <= now && now < one.not_after;
    if certificates.iter().all(is_valid) { Ok(()) } else { Err(Failure::Unhealthy) }
}

fn entry(certificate: &Described) -> serde_json::Value {
    serde_json::json!({
        "subject": certificate.subject,
        "issuer": certificate.issuer,
        "names": certificate.names,
        "not_before": Stamp(certificate.not_before),
        "not_after": Stamp(certificate.not_after),
    })
}

fn row(certificate: &Described, now: WallMillis) -> Vec<String> {
    let left = Duration::from_millis(certificate.not_after.saturating_since(now));
    let left = if left.is_zero() { "ended".to_owned() } else { span(left.as_secs_f64()) };
    let text = |text: &str| output::printable(text.as_bytes());
    vec![
        text(&certificate.subject),
        text(&certificate.issuer),
        text(&certificate.names.join(" ")),
        Stamp(certificate.not_after).to_string(),
        left,
    ]
}
