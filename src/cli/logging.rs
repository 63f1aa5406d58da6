//! Log lines on stderr, in the shape that the settings ask for.

use std::io::{self, IsTerminal};

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::config::{LogConfig, LogFormat};

/// What is logged, to be changed in a running process.
pub(super) struct Level(reload::Handle<Targets, Registry>);

impl Level {
    /// Logs what the settings ask for from now on.
    pub(super) fn set(&self, config: &LogConfig) {
        let filter: Targets = config.level.parse().unwrap_or_default();
        if let Err(error) = self.0.reload(filter) {
            tracing::debug!(%error, "the log level stays");
        }
    }
}

/// Sends events to stderr for the rest of the process; a second call changes nothing.
pub(super) fn start(config: &LogConfig) -> Level {
    let filter: Targets = config.level.parse().unwrap_or_default();
    let (filter, handle) = reload::Layer::new(filter);
    let terminal = io::stderr().is_terminal();
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let journal = !terminal && std::env::var_os("JOURNAL_STREAM").is_some();
    let text = || fmt::layer().with_writer(io::stderr).with_ansi(colour);
    let layer = match config.format {
        LogFormat::Json => text().json().flatten_event(true).boxed(),
        LogFormat::Auto if journal => text().without_time().boxed(),
        LogFormat::Auto | LogFormat::Text => text().boxed(),
    };
    let started = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
    if let Err(error) = started {
        tracing::debug!(%error, "logging was started before");
    }
    Level(handle)
}
