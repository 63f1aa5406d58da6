//! What is of the process and not of one of its nodes.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use crate::metrics::{Kind, Row};

const MESSAGES: Row = Row {
    name: "chickadee_log_messages_total",
    kind: Kind::Counter,
    labels: &[("level", "")],
    help: "Log messages of the process by level, as far as they are logged.",
};

/// Every row of this section.
pub(super) const ROWS: &[Row] = &[MESSAGES];

/// Log messages of this process. Logging belongs to the process and begins before there is a node.
#[derive(Debug, Default)]
pub struct LogMessages {
    errors: AtomicU64,
    warnings: AtomicU64,
    infos: AtomicU64,
}

static LOG_MESSAGES: OnceLock<LogMessages> = OnceLock::new();

impl LogMessages {
    /// The counters; from now on they are among the metrics of the process.
    pub fn of_process() -> &'static Self {
        LOG_MESSAGES.get_or_init(Self::default)
    }

    /// The counter of a level; what is below `info` is not counted.
    pub const fn counter(&self, level: tracing::Level) -> Option<&AtomicU64> {
        match level {
            tracing::Level::ERROR => Some(&self.errors),
            tracing::Level::WARN => Some(&self.warnings),
            tracing::Level::INFO => Some(&self.infos),
            tracing::Level::DEBUG | tracing::Level::TRACE => None,
        }
    }

    fn render(&self) -> String {
        let mut out = String::new();
        let Row { name, help, .. } = MESSAGES;
        writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter")
            .expect("writing to a string succeeds");
        for (level, counter) in
            [("error", &self.errors), ("warn", &self.warnings), ("info", &self.infos)]
        {
            let count = counter.load(Ordering::Relaxed);
            writeln!(out, "{name}{{level=\"{level}\"}} {count}")
                .expect("writing to a string succeeds");
        }
        out
    }
}

/// The `process_*` metrics of the running process, gathered at each scrape.
#[derive(Clone)]
pub struct ProcessMetrics {
    recorder: Arc<PrometheusRecorder>,
    collector: metrics_process::Collector,
}

impl ProcessMetrics {
    /// A collector with a recorder of its own.
    pub fn new() -> Self {
        let recorder = Arc::new(PrometheusBuilder::new().build_recorder());
        let collector = metrics_process::Collector::default();
        metrics::with_local_recorder(&*recorder, || collector.describe());
        Self { recorder, collector }
    }

    /// The metrics as Prometheus text.
    pub fn render(&self) -> String {
        metrics::with_local_recorder(&*self.recorder, || self.collector.collect());
        let mut text = self.recorder.handle().render();
        if let Some(messages) = LOG_MESSAGES.get() {
            text.push_str(&messages.render());
        }
        text
    }
}

impl Default for ProcessMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for ProcessMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProcessMetrics").finish_non_exhaustive()
    }
}
