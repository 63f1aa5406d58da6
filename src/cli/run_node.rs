//! The one place where the command line starts a node.

use crate::cli::reload::Reload;
use crate::cli::service::Manager;
use crate::config::Config;
use crate::node::{Error, Node};
use crate::tasks::{BoxFuture, Latch};

/// Why a node did not run to its end.
#[derive(Debug)]
pub(super) enum NodeFailure {
    /// Something that the settings name is wrong: a secret, a password file.
    Settings(String),
    /// Something else: a port is taken, the cluster refused it.
    Failed(String),
}

impl From<Error> for NodeFailure {
    fn from(error: Error) -> Self {
        match error {
            Error::Settings(_) | Error::Secret(_) => Self::Settings(error.to_string()),
            other => Self::Failed(other.to_string()),
        }
    }
}

/// Runs a node until `stop` opens (it then pauses) or it was told to leave; meanwhile its settings are
/// read again when that is asked for.
pub(super) fn run_node(
    config: Config,
    stop: Latch,
    reload: Reload,
) -> BoxFuture<'static, Result<(), NodeFailure>> {
    Box::pin(async move {
        let (manager, patience) = (Manager::default(), config.cluster.leave_timeout);
        let node = Node::start(config).await?;
        let life = async {
            tokio::select! {
                biased;
                () = node.stopped() => {}
                () = stop.opened() => node.shutdown().await,
                () = reload.follow(&node, &manager) => {}
            }
        };
        manager.tell(&node, patience, life).await;
        Ok(())
    })
}
