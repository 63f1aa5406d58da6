//! What the front end counts in arrays of its own, because a handle for each would cost too much on
//! the command path; rendered as text at each scrape.

use std::fmt::Write;
use std::time::Duration;

use crate::metrics::{Kind, Row};

const CALLS: Row = Row {
    name: "chickadee_commands_total",
    kind: Kind::Counter,
    labels: &[("command", "")],
    help: "Commands by name.",
};
const ERRORS: Row = Row {
    name: "chickadee_command_errors_total",
    kind: Kind::Counter,
    labels: &[("reason", "")],
    help: "Error replies by their first word.",
};
const DURATION: Row = Row {
    name: "chickadee_command_duration_seconds",
    kind: Kind::Histogram,
    labels: &[("class", ""), ("route", "")],
    help: "Time from reading a command to its reply, by what it does and where it ran.",
};

/// Every row of this section.
pub const ROWS: &[Row] = &[CALLS, ERRORS, DURATION];

/// Durations of one kind of command.
#[derive(Clone, Debug)]
pub struct Durations {
    /// `read`, `write` or `other`.
    pub class: &'static str,
    /// `local` or `proxied`.
    pub route: &'static str,
    /// Upper bound of each bucket in microseconds, and how many fell into it; the last bucket
    /// has no bound.
    pub buckets: Vec<(Option<u64>, u64)>,
    /// All of them together.
    pub total: Duration,
}

/// The counts as Prometheus text.
pub fn render(
    calls: impl Iterator<Item = (&'static str, u64)>,
    errors: impl Iterator<Item = (&'static str, u64)>,
    durations: impl Iterator<Item = Durations>,
) -> String {
    let mut out = String::new();
    head(&mut out, &CALLS, "counter");
    for (command, count) in calls.filter(|(_, count)| *count > 0) {
        line(&mut out, format_args!("{}{{command=\"{command}\"}} {count}", CALLS.name));
    }
    head(&mut out, &ERRORS, "counter");
    for (reason, count) in errors {
        line(&mut out, format_args!("{}{{reason=\"{reason}\"}} {count}", ERRORS.name));
    }
    head(&mut out, &DURATION, "histogram");
    for kind in durations {
        histogram(&mut out, &kind);
    }
    out
}

fn histogram(out: &mut String, kind: &Durations) {
    let labels = format!("class=\"{}\",route=\"{}\"", kind.class, kind.route);
    let mut below = 0;
    for (bound, count) in &kind.buckets {
        below += count;
        let bound = match bound {
            Some(micros) => Duration::from_micros(*micros).as_secs_f64().to_string(),
            None => "+Inf".to_owned(),
        };
        let name = DURATION.name;
        line(out, format_args!("{name}_bucket{{{labels},le=\"{bound}\"}} {below}"));
    }
    let total = kind.total.as_secs_f64();
    line(out, format_args!("{}_sum{{{labels}}} {total}", DURATION.name));
    line(out, format_args!("{}_count{{{labels}}} {below}", DURATION.name));
}

fn head(out: &mut String, row: &Row, kind: &str) {
    line(out, format_args!("# HELP {} {}", row.name, row.help));
    line(out, format_args!("# TYPE {} {kind}", row.name));
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("writing to a string succeeds");
}
