//! Log events in the shape that the settings ask for, counted by level.
//!
//! Where stderr leads to systemd's journal, text has no time, which the journal adds, and begins with
//! its priority (`<4>`), by which `journalctl -p warning` finds it. It keeps its fields in the line:
//! of an event that is sent to the journal in parts `journalctl` shows the message alone, so that is
//! left to those who ask for it.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering;

use tracing::{Event, Metadata, Subscriber};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::cli::failure::Failure;
use crate::config::keys;
use crate::config::{LogConfig, LogFormat};
use crate::metrics::LogMessages;

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

/// Logs events for the rest of the process; a second call changes nothing.
pub(super) fn start(config: &LogConfig) -> Result<Level, Failure> {
    let filter: Targets = config.level.parse().unwrap_or_default();
    let (filter, handle) = reload::Layer::new(filter);
    let counted = Counted(LogMessages::of_process());
    let layer = shape(config.format)?.and_then(counted).with_filter(filter);
    if let Err(error) = tracing_subscriber::registry().with(layer).try_init() {
        tracing::debug!(%error, "logging was started before");
    }
    Ok(Level(handle))
}

fn shape(format: LogFormat) -> Result<Box<dyn Layer<Registry> + Send + Sync>, Failure> {
    let terminal = io::stderr().is_terminal();
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let text = || fmt::layer().with_writer(io::stderr).with_ansi(colour);
    Ok(match format {
        LogFormat::Json => text().json().flatten_event(true).boxed(),
        LogFormat::Auto if leads_to_journal() => {
            let to_journal = Prioritized(io::stderr);
            fmt::layer().with_writer(to_journal).with_ansi(false).without_time().boxed()
        }
        LogFormat::Auto | LogFormat::Text => text().boxed(),
        LogFormat::Journald => journal()?.boxed(),
    })
}

/// Sends events to the journal with their fields as fields of its own: `CHICKADEE_NODE=…`.
fn journal() -> Result<tracing_journald::Layer, Failure> {
    let missing = |error: io::Error| {
        Failure::Usage(format!(
            "{} is journald, but no journal takes messages here: {error}; set it to auto",
            keys::LOG_FORMAT
        ))
    };
    let priorities = PriorityMappings {
        info: Priority::Informational,
        debug: Priority::Debug,
        trace: Priority::Debug,
        ..PriorityMappings::new()
    };
    let layer = tracing_journald::layer().map_err(missing)?;
    Ok(layer.with_field_prefix(Some("CHICKADEE".to_owned())).with_priority_mappings(priorities))
}

/// Whether stderr is the stream that the service manager says it connected to the journal. A program
/// that was started by a service and given another stderr has the variable all the same.
fn leads_to_journal() -> bool {
    let Ok(told) = std::env::var("JOURNAL_STREAM") else { return false };
    let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    let stream = stderr.and_then(|file| file.metadata());
    stream.is_ok_and(|stream| told == format!("{}:{}", stream.dev(), stream.ino()))
}

/// Writes each line with its priority as the journal reads it (`sd-daemon(3)`).
struct Prioritized<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Prioritized<W> {
    type Writer = Lines<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Lines { priority: priority(tracing::Level::INFO), to: self.0.make_writer() }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        Lines { priority: priority(*meta.level()), to: self.0.make_writer_for(meta) }
    }
}

const fn priority(level: tracing::Level) -> u8 {
    match level {
        tracing::Level::ERROR => 3,
        tracing::Level::WARN => 4,
        tracing::Level::INFO => 6,
        tracing::Level::DEBUG | tracing::Level::TRACE => 7,
    }
}

/// Lines of one event.
struct Lines<W> {
    priority: u8,
    to: W,
}

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // In one piece, so that lines of several threads do not mix.
        let mut whole = Vec::with_capacity(bytes.len() + 8);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            write!(whole, "<{}>", self.priority)?;
            whole.extend_from_slice(line);
        }
        self.to.write_all(&whole)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Counts what is logged.
struct Counted(&'static LogMessages);

impl<S: Subscriber> Layer<S> for Counted {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if let Some(counter) = self.0.counter(*event.metadata().level()) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Keeps what is written.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_for_the_journal_has_its_priority_and_every_event_is_counted() {
        static MESSAGES: std::sync::OnceLock<LogMessages> = std::sync::OnceLock::new();
        let messages = MESSAGES.get_or_init(LogMessages::default);
        let kept = Kept::default();
        let made = kept.clone();
        let text = fmt::layer().with_writer(Prioritized(move || made.clone()));
        let text = text.with_ansi(false).without_time().with_target(false);
        let layer = text
            .and_then(Counted(messages))
            .with_filter(Targets::new().with_default(tracing::Level::DEBUG));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::error!(node = "n1", "lost\nfor good");
            tracing::warn!("odd");
            tracing::warn!("odd again");
            tracing::info!("well");
            tracing::debug!("detail");
            tracing::trace!("not asked for");
        });
        let written = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        assert_eq!(
            written,
            "<3>ERROR lost\n<3>for good node=\"n1\"\n<4> WARN odd\n<4> WARN odd again\n<6> INFO well\n\
             <7>DEBUG detail\n"
        );
        let count = |level| messages.counter(level).map(|counter| counter.load(Ordering::Relaxed));
        let counts = [tracing::Level::ERROR, tracing::Level::WARN, tracing::Level::INFO].map(count);
        assert_eq!(counts, [Some(1), Some(2), Some(1)]);
        assert_eq!(count(tracing::Level::DEBUG), None);
    }
}
