//! The figures of `chickadee stats`, read off a node's metrics.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::metrics::Metrics;

/// Totals since the node's start, and levels of this moment. Every counter and gauge of the catalog
/// is there once, its series added up, under its name without the prefix.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Stats(pub BTreeMap<String, f64>);

impl Stats {
    /// Reads a node's metrics; series of one metric with distinct labels stand under
    /// `name_labelvalue`.
    pub fn from_metrics(text: &str) -> Self {
        let names: BTreeSet<&str> = Metrics::rows().map(|row| row.name).collect();
        let mut stats = BTreeMap::new();
        for sample in samples(text).filter(|sample| names.contains(sample.name)) {
            let (_, short) = sample.name.split_once('_').unwrap_or(("", sample.name));
            let labels: Vec<&str> = sample.labels.iter().map(|(_, value)| *value).collect();
            let name = std::iter::once(short).chain(labels).collect::<Vec<_>>().join("_");
            *stats.entry(name).or_insert(0.0) += sample.value;
        }
        Self(stats)
    }
}

/// A line of Prometheus text.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample<'a> {
    /// The metric.
    pub name: &'a str,
    /// Its labels in their order, values as they are escaped.
    pub labels: Vec<(&'a str, &'a str)>,
    /// Its value.
    pub value: f64,
}

/// The samples of a Prometheus text; lines that are none are passed over.
pub fn samples(text: &str) -> impl Iterator<Item = Sample<'_>> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample)
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, quoted) = rest.trim_start_matches(',').split_once("=\"")?;
            let close = closing_quote(quoted)?;
            labels.push((label, &quoted[..close]));
            rest = &quoted[close + 1..];
        }
        rest = &rest[1..];
    }
    let value = rest.trim().parse().ok()?;
    let named = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    named.then_some(Sample { name, labels, value })
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let closes = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        closes.then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_read_with_its_labels() {
        let text = "# HELP a b\na{x=\"1\\\"}\",y=\"\"} 2.5\nb 1\nc{x=\"1 3\nd{} x\n e\n";
        let read: Vec<_> = samples(text).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].name, read[0].value.to_string().as_str()), ("a", "2.5"));
        assert_eq!(read[0].labels, [("x", "1\\\"}"), ("y", "")]);
        assert_eq!((read[1].name, read[1].value.to_string().as_str()), ("b", "1"));
    }

    #[test]
    fn stats_follow_what_the_node_counted() {
        let (metrics, handle) = Metrics::new();
        metrics.store.hits.increment(3);
        metrics.store.keys.set(7.0);
        let stats = Stats::from_metrics(&handle.render()).0;
        let shown = |name: &str| stats[name].to_string();
        assert_eq!(
            [shown("reads_total_hit"), shown("reads_total_miss"), shown("keys")],
            ["3", "0", "7"]
        );
    }
}
