//! What can go wrong for a program that embeds a node, or for the command line that runs one.

use thiserror::Error;

use crate::admin::AdminError;
use crate::persist::{NodeFileError, StorageError};
use crate::server::UsersError;
use crate::tls::{PemError, SecretError};
use crate::transport::TransportError;

/// Why a node did not start, or a call on it failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The settings contradict each other. Nothing was started; correct them.
    #[error("{0}")]
    Settings(String),
    /// The secret file cannot be used. Nothing was started.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The files of users or passwords cannot be used. Nothing was started or changed; the text names the
    /// file and the line.
    #[error(transparent)]
    Users(#[from] UsersError),
    /// A certificate or its key cannot be used. Nothing was started or changed; the text names the file.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// The data directory cannot be used. Nothing was started.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The node file is damaged or of a later release. Nothing was started.
    #[error(transparent)]
    NodeFile(#[from] NodeFileError),
    /// A port cannot be bound. Nothing was started; choose another or stop who has it.
    #[error("cannot listen on {address} ({what}): {source}")]
    Bind {
        /// The setting that names the address.
        what: &'static str,
        /// The address.
        address: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The peer port cannot be used. Nothing was started.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The admin interfaces cannot be used. Nothing was started.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// The command was answered with an error; the text is the reply's.
    #[error("{0}")]
    Command(String),
    /// A value could not be encoded or decoded.
    #[error("the value cannot be read as that type: {0}")]
    Value(#[source] postcard::Error),
    /// The node was stopped.
    #[error("the node has stopped")]
    Stopped,
}
