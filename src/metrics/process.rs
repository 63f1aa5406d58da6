//! What is of the process and not of one of its nodes.

use std::sync::Arc;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

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
        self.recorder.handle().render()
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
