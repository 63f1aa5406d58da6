//! The one place where the command line starts a node.

use crate::config::Config;
use crate::tasks::{BoxFuture, Latch};

/// Why a node did not run to its end.
#[derive(Debug)]
#[expect(dead_code, reason = "a node that cannot start yet cannot fail later")]
pub(super) enum NodeFailure {
    /// Something that the settings name is wrong: a secret, a password file.
    Settings(String),
    /// Something else: a port is taken, the cluster refused it.
    Failed(String),
}

/// Runs a node until `stop` opens (it then pauses) or it was told to leave.
pub(super) fn run_node(
    _config: Config,
    _stop: Latch,
) -> BoxFuture<'static, Result<(), NodeFailure>> {
    Box::pin(async { Err(NodeFailure::Failed("this build holds no node yet".to_owned())) })
}
