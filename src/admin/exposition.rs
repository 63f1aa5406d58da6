//! Metrics as Prometheus text: the recorder's, the process's, and series named after members.

use std::fmt::{self, Write};
use std::time::Duration;

use crate::admin::Source;
use crate::admin::status::{Peer, Status};
use crate::metrics::{ProcessMetrics, Row, rendered};
use crate::types::MemberState;

/// Stands for no zone. An empty label is none to Prometheus, which would leave that of the scrape.
const NO_ZONE: &str = "none";

/// Everything that `GET /metrics` answers.
pub fn exposition(source: &dyn Source, process: &ProcessMetrics) -> String {
    let mut out = source.metrics();
    if !out.is_empty() && !out.ends_with('\n') {
        out.push('\n');
    }
    let (status, peers) = (source.status(), source.peers());
    let certificates = source.certificate_ends();
    let rendered = Rendered { status: &status, peers: &peers, certificates: &certificates };
    write!(out, "{rendered}").expect("writing to a string succeeds");
    out.push_str(&process.render());
    out
}

/// The series of `metrics::rendered`.
struct Rendered<'a> {
    status: &'a Status,
    peers: &'a [Peer],
    certificates: &'a [(&'static str, f64)],
}

impl fmt::Display for Rendered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.status.node.version.as_str();
        let revision = option_env!("GIT_REVISION").unwrap_or("unknown");
        family(f, &rendered::BUILD_INFO, [(&[version, revision], 1.0)])?;
        self.node(f)?;
        let placement = self.status.ring.placement_id.as_str();
        family(f, &rendered::PLACEMENT_INFO, [(&[placement], 1.0)])?;
        let fence = match &self.status.fenced {
            Some(reason) => (&[reason.as_str()], 1.0),
            None => (&["none"], 0.0),
        };
        family(f, &rendered::FENCED, [fence])?;
        self.peer_info(f)?;
        self.states(f)?;
        let ends: Vec<([&str; 1], f64)> =
            self.certificates.iter().map(|(used_for, end)| ([*used_for], *end)).collect();
        family(f, &rendered::CERTIFICATE_END, ends.iter().map(|(used_for, end)| (used_for, *end)))?;
        let of = |value: fn(&Peer) -> Option<f64>| {
            let series = move |peer| Some((label(peer), value(peer)?));
            self.peers.iter().filter_map(series).collect::<Vec<_>>()
        };
        let up = of(|peer| Some(if peer.connected { 1.0 } else { 0.0 }));
        family(f, &rendered::PEER_UP, up.iter().map(|(name, v)| (name, *v)))?;
        let rtt = of(|peer| peer.rtt_seconds);
        family(f, &rendered::PEER_RTT, rtt.iter().map(|(name, v)| (name, *v)))?;
        #[expect(clippy::cast_precision_loss, reason = "a queue is far below 2^53 bytes")]
        let queue = of(|peer| Some(peer.queue_bytes as f64));
        family(f, &rendered::QUEUE_BYTES, queue.iter().map(|(name, v)| (name, *v)))?;
        let dirty = of(|peer| Some(f64::from(peer.dirty_slots)));
        family(f, &rendered::DIRTY_SLOTS, dirty.iter().map(|(name, v)| (name, *v)))?;
        let seen = of(|peer| Some(Duration::from_millis(peer.last_seen?.0.0).as_secs_f64()));
        family(f, &rendered::LAST_SEEN, seen.iter().map(|(name, v)| (name, *v)))?;
        let offset = of(|peer| peer.clock_offset_seconds);
        family(f, &rendered::CLOCK_OFFSET, offset.iter().map(|(name, v)| (name, *v)))
    }
}

impl Rendered<'_> {
    fn node(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = &self.status.node;
        let zone = node.zone.as_deref().unwrap_or(NO_ZONE);
        let protocol = node.protocol.to_string();
        let info = [node.name.as_str(), zone, protocol.as_str()];
        family(f, &rendered::NODE_INFO, [(&info, 1.0)])
    }

    fn peer_info(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let infos: Vec<[String; 4]> = self
            .peers
            .iter()
            .map(|peer| {
                let address = peer.address.map(|address| address.to_string());
                let zone = peer.zone.clone().unwrap_or_else(|| NO_ZONE.to_owned());
                [peer.name.clone(), text(&address), zone, text(&peer.version)]
            })
            .collect();
        let infos: Vec<[&str; 4]> =
            infos.iter().map(|info| info.each_ref().map(String::as_str)).collect();
        family(f, &rendered::PEER_INFO, infos.iter().map(|info| (info, 1.0)))
    }

    fn states(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let series: Vec<([&str; 2], f64)> = self
            .peers
            .iter()
            .flat_map(|peer| {
                MemberState::ALL.map(|state| {
                    let value = if peer.state == state { 1.0 } else { 0.0 };
                    ([peer.name.as_str(), state.as_str()], value)
                })
            })
            .collect();
        family(f, &rendered::PEER_STATE, series.iter().map(|(labels, v)| (labels, *v)))
    }
}

fn label(peer: &Peer) -> [&str; 1] {
    [peer.name.as_str()]
}

/// One metric: its help, its type and its series.
fn family<'a, const N: usize>(
    f: &mut fmt::Formatter<'_>,
    row: &Row,
    series: impl IntoIterator<Item = (&'a [&'a str; N], f64)>,
) -> fmt::Result {
    let mut series = series.into_iter().peekable();
    if series.peek().is_none() {
        return Ok(());
    }
    writeln!(f, "# HELP {} {}\n# TYPE {0} gauge", row.name, row.help)?;
    for (values, value) in series {
        f.write_str(row.name)?;
        for (place, ((name, _), text)) in row.labels.iter().zip(values).enumerate() {
            let open = if place == 0 { '{' } else { ',' };
            write!(f, "{open}{name}=\"{}\"", Escaped(text))?;
        }
        writeln!(f, "}} {value}")?;
    }
    writeln!(f)
}

/// A label's value with `\`, `"` and newlines escaped.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::admin::routes::tests::{FakeNode, peer};
    use crate::admin::stats::samples;

    #[test]
    fn every_metric_is_described_once_and_every_line_is_read() {
        let text = exposition(&FakeNode::default(), &ProcessMetrics::new());
        let mut described = BTreeSet::new();
        for line in text.lines().filter(|line| line.starts_with("# TYPE ")) {
            let name = line.split(' ').nth(2).unwrap();
            assert!(described.insert(name.to_owned()), "{name} is described twice");
        }
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
        let read: Vec<_> = samples(&text).collect();
        assert_eq!(read.len(), lines);
        for sample in &read {
            let family = sample.name.trim_end_matches("_bucket").trim_end_matches("_sum");
            assert!(described.contains(family), "{} is not described", sample.name);
        }
        for row in rendered::ROWS {
            assert!(described.contains(row.name), "{} is missing", row.name);
        }
        assert!(described.contains("process_resident_memory_bytes"), "{text}");
    }

    #[test]
    fn a_peer_has_one_state_and_strange_names_are_escaped() {
        let status = FakeNode::default().status();
        let peers = [peer("a\"b\\c\nd")];
        let text = Rendered { status: &status, peers: &peers, certificates: &[] }.to_string();
        let ones: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("chickadee_peer_state") && line.ends_with(" 1"))
            .collect();
        assert_eq!(ones, [r#"chickadee_peer_state{peer="a\"b\\c\nd",state="alive"} 1"#]);
    }

    #[test]
    fn without_peers_there_is_no_empty_family() {
        let status = FakeNode::default().status();
        let text = Rendered { status: &status, peers: &[], certificates: &[] }.to_string();
        assert!(!text.contains("chickadee_peer"), "{text}");
    }
}
