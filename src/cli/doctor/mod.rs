//! `chickadee doctor`: what is wrong with this machine, the settings, and the node that runs here.
//!
//! ```text
//!   probes (probe, asked) ──► Facts ──► checks (host, trust, certificates, reach, cluster) ──► findings ──► a page
//! ```
//!
//! Probes only look: nothing is written, no port stays bound, no node is told anything. A check is a
//! function of the facts; what cannot be known it leaves out. Of a node on another machine only what it
//! says of itself and its cluster is judged together with it.

mod asked;
mod certificates;
mod cluster;
mod facts;
mod host;
mod probe;
mod reach;
mod trust;

use serde::Serialize;

use crate::cli::args::{Common, DoctorArgs};
use crate::cli::failure::Failure;
use crate::cli::output::{Output, Page};
use crate::cli::sources;

use facts::Facts;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    /// As it should be.
    Ok,
    /// It works, but not as well or as safely as it could.
    Warn,
    /// It does not work, or will not.
    Fail,
}

impl Level {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "FAIL",
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    level: Level,
    found: String,
    /// What to do about it; `None` if nothing.
    fix: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, level: Level::Ok, found: found.into(), fix: None }
    }

    fn warn(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, level: Level::Warn, found: found.into(), fix: Some(fix.into()) }
    }

    fn fail(check: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, level: Level::Fail, found: found.into(), fix: Some(fix.into()) }
    }
}

/// Every check, in the order in which they are shown.
const CHECKS: &[fn(&Facts) -> Vec<Finding>] = &[
    host::receive_buffer,
    host::open_files,
    host::memory,
    host::huge_pages,
    host::data_folder,
    trust::secret,
    trust::password,
    certificates::certificates,
    reach::ports,
    reach::seeds,
    cluster::node,
    cluster::members,
    cluster::facts,
    cluster::clocks,
    cluster::zones,
    cluster::memory_per_weight,
    cluster::versions,
];

/// `doctor`: exit 1 if a check fails.
pub(super) async fn doctor(
    args: &DoctorArgs,
    common: &Common,
    output: Output,
) -> Result<(), Failure> {
    let loaded = sources::service_settings(args.config.as_deref(), &args.settings.0)?;
    let node = asked::node(common, &loaded.config).await?;
    let facts = probe::facts(loaded, node).await;
    let findings: Vec<Finding> = CHECKS.iter().flat_map(|check| check(&facts)).collect();
    output.page(&page(&findings))?;
    if is_healthy(&findings) { Ok(()) } else { Err(Failure::Unhealthy) }
}

fn is_healthy(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.level < Level::Fail)
}

fn page(findings: &[Finding]) -> Page {
    let row = |finding: &Finding| {
        vec![
            finding.level.as_str().to_owned(),
            finding.check.to_owned(),
            finding.found.clone(),
            finding.fix.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    };
    let json = serde_json::json!({ "healthy": is_healthy(findings), "findings": findings });
    Page { json, head: &["", "CHECK", "FOUND", "FIX"], rows: findings.iter().map(row).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_tells_what_was_found_and_what_to_do() {
        let findings = [
            Finding::ok("ports", "free"),
            Finding::warn("clock", "n2 is 2 s ahead", "set it"),
            Finding::fail("secret", "open to others", "chmod 600"),
        ];
        assert!(is_healthy(&findings[..2]) && !is_healthy(&findings));
        let page = page(&findings);
        assert_eq!(page.json["healthy"], false);
        assert_eq!(page.json["findings"][1]["level"], "warn");
        assert_eq!(page.json["findings"][0]["fix"], serde_json::Value::Null);
        assert_eq!(page.rows[0], ["ok", "ports", "free", "-"]);
        assert_eq!(page.rows[2], ["FAIL", "secret", "open to others", "chmod 600"]);
    }

    /// A machine on which nothing is wrong, without a node.
    #[test]
    fn every_check_is_content_with_a_good_machine() {
        let facts = facts::good();
        let findings: Vec<Finding> = CHECKS.iter().flat_map(|check| check(&facts)).collect();
        let bad: Vec<&Finding> =
            findings.iter().filter(|finding| finding.level > Level::Ok).collect();
        assert!(bad.is_empty(), "{bad:?}");
        let facts = Facts { node: Some(facts::good_node()), ..facts };
        let with_node: Vec<Finding> = CHECKS.iter().flat_map(|check| check(&facts)).collect();
        assert!(with_node.len() > findings.len());
        assert!(with_node.iter().all(|finding| finding.level == Level::Ok), "{with_node:?}");
    }
}
