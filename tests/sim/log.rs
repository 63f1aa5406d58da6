//! What the nodes log, with the simulated time, for whoever looks into a seed.

use std::fmt;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// Milliseconds since the simulation began.
struct Simulated;

impl FormatTime for Simulated {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let elapsed = turmoil::in_simulation().then(turmoil::sim_elapsed).flatten();
        write!(writer, "{:>7}", elapsed.unwrap_or_default().as_millis())
    }
}

/// Logs what `CHICKADEE_LOG` asks for; nothing where it is not set.
pub(crate) fn start() {
    let Ok(filter) = std::env::var("CHICKADEE_LOG") else { return };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_timer(Simulated)
        .with_writer(std::io::stderr);
    // A logger that is there already serves as well.
    let _already_set = subscriber.try_init();
}
