//! SIGHUP: the settings are read again, and what can change in a running node changes. Where they
//! are wrong, or another file that they name is, all stays as it was.

use std::path::PathBuf;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use crate::cli::args::ServeArgs;
use crate::cli::failure::Failure;
use crate::cli::logging::Level;
use crate::cli::service::Manager;
use crate::cli::sources;
use crate::config::Config;
use crate::config::keys;
use crate::config::load::{Flag, Origin};
use crate::node::Node;

/// What settings are read from, and what came of them last.
pub(super) struct Reload {
    file: Option<PathBuf>,
    flags: Vec<Flag>,
    form: bool,
    /// The settings as they are.
    config: Config,
    level: Level,
    hangups: Signal,
}

impl Reload {
    /// Reads what `args` name, where settings are `config` and `level` is what is logged now.
    pub(super) fn new(args: &ServeArgs, config: Config, level: Level) -> Result<Self, Failure> {
        let fault = |error| Failure::Failed(format!("cannot receive signals: {error}"));
        Ok(Self {
            file: args.config.clone(),
            flags: args.settings.0.clone(),
            form: args.form,
            config,
            level,
            hangups: signal(SignalKind::hangup()).map_err(fault)?,
        })
    }

    /// Reads the settings again at each SIGHUP, for ever.
    pub(super) async fn follow(mut self, node: &Node, manager: &Manager) {
        while self.hangups.recv().await.is_some() {
            manager.reloading(node);
            let reloaded = self.again(node);
            node.note_reload(reloaded.is_ok());
            if let Err(why) = reloaded {
                error!("the settings were not taken over, those before stay: {why}");
            }
            manager.reloaded(node);
        }
        // The stream of signals has no end.
        std::future::pending::<()>().await;
    }

    fn again(&mut self, node: &Node) -> Result<(), String> {
        let loaded = sources::settings(self.file.as_deref(), &self.flags, self.form)
            .map_err(|failure| failure.message().unwrap_or("failed").to_owned())?;
        let (config, reloaded) =
            self.config.reloaded(&loaded).map_err(|error| error.to_string())?;
        node.reload(&config).map_err(|error| error.to_string())?;
        self.level.set(&config.log);
        self.config = config;
        info!(changed = reloaded.changed.join(" "), "settings were read again");
        if !reloaded.waiting.is_empty() {
            warn!(
                settings = reloaded.waiting.join(" "),
                "settings that count from the next start on"
            );
        }
        if let Origin::Credential(name) = loaded.origin(keys::PASSWORD_FILE) {
            warn!(%name, "a credential is read when the service starts: the password is as it was then");
        }
        Ok(())
    }
}
