//! `chickadee serve`: settings, logging, the node, signals.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::cli::args::ServeArgs;
use crate::cli::failure::Failure;
use crate::cli::reload::Reload;
use crate::cli::run_node::{NodeFailure, run_node};
use crate::cli::{logging, sources};
use crate::tasks::Latch;

/// The runtime of the main thread.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    let built = Builder::new_current_thread().enable_all().build();
    built.map_err(|error| Failure::Failed(format!("cannot start the runtime: {error}")))
}

/// Runs a node until it is told to stop.
pub(super) fn serve(args: &ServeArgs) -> Result<(), Failure> {
    let loaded = sources::settings(args.config.as_deref(), &args.settings.0, args.form)?;
    let level = logging::start(&loaded.config.log)?;
    let runtime = runtime()?;
    let done = runtime.block_on(async {
        let stop = Latch::new();
        let mut signals = Signals::new()?;
        let reload = Reload::new(args, loaded.config.clone(), level)?;
        let node = run_node(loaded.config, stop.clone(), reload);
        tokio::select! {
            biased;
            done = node => done.map_err(|failure| match failure {
                NodeFailure::Settings(why) => Failure::Usage(why),
                NodeFailure::Failed(why) => Failure::Failed(why),
            }),
            number = signals.twice(&stop) => Err(Failure::Signal(number)),
            folder = orphaned(args.throwaway.as_deref()) => {
                // Only now: a node of a cluster that goes on must not take its folder away.
                remove_throwaway(folder);
                Err(Failure::Unhealthy)
            }
        }
    });
    runtime.shutdown_background();
    done
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let fault = |error| Failure::Failed(format!("cannot receive signals: {error}"));
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(fault)?,
            interrupt: signal(SignalKind::interrupt()).map_err(fault)?,
        })
    }

    async fn next(&mut self) -> u8 {
        let kind = tokio::select! {
            biased;
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        };
        u8::try_from(kind.as_raw_value()).unwrap_or(0)
    }

    /// The first signal stops the node in order; the second one ends this, with its number.
    async fn twice(&mut self, stop: &Latch) -> u8 {
        let number = self.next().await;
        info!(signal = number, "signal received, pausing; a second one ends at once");
        stop.open();
        let number = self.next().await;
        warn!(signal = number, "second signal received, ending at once");
        number
    }
}

/// Waits for one signal: what ends `dev`.
pub(super) async fn one_signal() -> Result<u8, Failure> {
    Ok(Signals::new()?.next().await)
}

/// Ends when the process that started a throwaway node has ended, which closes its stdin; never, if
/// the node is not a throwaway one or stdin is no pipe.
async fn orphaned(throwaway: Option<&Path>) -> &Path {
    let Some(folder) = throwaway else {
        return std::future::pending().await;
    };
    let stdin = std::io::stdin().as_fd().try_clone_to_owned();
    let Ok(mut pipe) = stdin.and_then(Receiver::from_owned_fd) else {
        return std::future::pending().await;
    };
    let mut bytes = [0; 64];
    while let Ok(1..) = pipe.read(&mut bytes).await {}
    folder
}

/// Stands in a folder that `dev` made; only such a folder is ever removed.
pub(super) const THROWAWAY_MARK: &str = ".chickadee-dev";

/// Removes the folder of a throwaway cluster, if it is one. Its other nodes may be at it too.
pub(super) fn remove_throwaway(folder: &Path) {
    if folder.join(THROWAWAY_MARK).exists() {
        let _another_node_was_faster = fs::remove_dir_all(folder);
    }
}
