//! Defaults < credentials < file < environment < flags, to a [`Config`] or to an error that says where.
//!
//! No file and no variable is read here: texts come in as arguments, and so does what depends on
//! the machine.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use thiserror::Error;
use toml::de::{DeTable, DeValue};

use crate::config::setting::Setting;
use crate::config::settings::{SETTINGS, find};
use crate::config::value::{Raw, Value};
use crate::config::{Acks, AcksShortfall};
use crate::config::{
    AdminConfig, ClientConfig, ClusterConfig, Config, GossipConfig, GossipProfile, LogConfig,
    LogFormat, MemoryConfig, MemoryPolicy, NodeConfig, PeerConfig, SecurityConfig, SnapshotConfig,
    relations,
};
use crate::types::{ByteSize, Weight};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The table.
    Default,
    /// The settings file.
    File {
        /// The file as it was named.
        path: String,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
    },
    /// An environment variable.
    Variable(String),
    /// A flag, as it was written.
    Flag(String),
    /// A credential that the service manager handed over, by its name.
    Credential(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line, column } => write!(f, "{path}:{line}:{column}"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Credential(name) => write!(f, "credential {name}"),
        }
    }
}

/// Why settings were refused. No port was bound and no file written; correct them and start again.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file is not TOML.
    #[error("{origin}: {message}")]
    Syntax {
        /// Where.
        origin: Origin,
        /// What the parser says.
        message: String,
    },
    /// No setting has this name.
    #[error("{origin}: unknown setting {name:?}{}", suggestion(.nearest.as_deref()))]
    Unknown {
        /// Where.
        origin: Origin,
        /// The name as written.
        name: String,
        /// The known name that it may have meant.
        nearest: Option<String>,
    },
    /// The value does not fit the setting.
    #[error("{origin}: {key}: {message}")]
    Value {
        /// Where.
        origin: Origin,
        /// The setting.
        key: &'static str,
        /// What is wrong with the value.
        message: String,
    },
    /// Two settings do not go together.
    #[error("{origin}: {key} = {value}: {message}")]
    Relation {
        /// Where the first of them was set.
        origin: Origin,
        /// The first of them.
        key: &'static str,
        /// Its value.
        value: String,
        /// What must hold, and how to mend it.
        message: String,
    },
}

fn suggestion(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; did you mean {name:?}?")).unwrap_or_default()
}

/// A settings file, read.
#[derive(Clone, Copy, Debug)]
pub struct FileText<'a> {
    /// Its name, for messages.
    pub path: &'a str,
    /// What it holds.
    pub text: &'a str,
}

/// A setting given by a flag.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The setting's key; it may be unknown.
    pub key: String,
    /// Its value; several where the flag was repeated.
    pub values: Vec<String>,
    /// The flag as written, for messages.
    pub written: String,
}

/// What defaults depend on.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The host's name; the default of `node.name` as far as it can be one.
    pub host_name: String,
    /// The memory that shares are of.
    pub total_memory: ByteSize,
    /// The default of `node.data_dir`.
    pub data_dir: PathBuf,
    /// Where sockets go, if that is not beside the data.
    pub runtime_dir: Option<PathBuf>,
    /// The credentials that the service manager handed over: files by their names.
    pub credentials: BTreeMap<&'static str, PathBuf>,
}

/// Everything that settings come from.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// The settings file, if there is one.
    pub file: Option<FileText<'a>>,
    /// The environment; what does not begin with `CHICKADEE_` is passed over.
    pub environment: &'a BTreeMap<String, String>,
    /// The flags.
    pub flags: &'a [Flag],
    /// `serve --form`.
    pub form: bool,
    /// The machine.
    pub machine: &'a Machine,
}

/// Settings, and where each came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Where each came from, by key; what is missing is a default.
    pub origins: BTreeMap<&'static str, Origin>,
}

impl Loaded {
    /// Where the setting of `key` came from.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }
}

/// How every variable of ours begins.
pub const VARIABLE_PREFIX: &str = "CHICKADEE_";

/// Variables that begin like a setting's and belong to other parts of the program.
pub const OTHER_VARIABLES: &[&str] = &[PASSWORD_VARIABLE, USER_VARIABLE];

/// The password with which `get` and its kin log in.
pub const PASSWORD_VARIABLE: &str = "CHICKADEE_PASSWORD";

/// The user as whom they do; `default` where it is not set.
pub const USER_VARIABLE: &str = "CHICKADEE_USER";

/// Loads settings; the first fault found is the error.
pub fn load(sources: &Sources<'_>) -> Result<Loaded, ConfigError> {
    let machine = sources.machine;
    let total = machine.total_memory;
    let mut loaded = Loaded { config: blank(machine, sources.form), origins: BTreeMap::new() };
    for row in SETTINGS.iter().filter(|row| !row.default.is_empty()) {
        let raw = Raw(vec![row.default.to_owned()]);
        put(&mut loaded, row, &raw, total, Origin::Default)?;
    }
    for row in SETTINGS {
        let found = row.credential.and_then(|name| machine.credentials.get_key_value(name));
        if let Some((name, path)) = found {
            let raw = Raw(vec![path.display().to_string()]);
            put(&mut loaded, row, &raw, total, Origin::Credential((*name).to_owned()))?;
        }
    }
    if let Some(file) = sources.file {
        for (row, raw, origin) in read_file(file)? {
            put(&mut loaded, row, &raw, total, origin)?;
        }
    }
    for (row, raw, origin) in read_environment(sources.environment)? {
        put(&mut loaded, row, &raw, total, origin)?;
    }
    for flag in sources.flags {
        let origin = Origin::Flag(flag.written.clone());
        let row = find(&flag.key).ok_or_else(|| unknown(&flag.key, &origin))?;
        put(&mut loaded, row, &Raw(flag.values.clone()), total, origin)?;
    }
    if loaded.config.admin.socket.as_os_str().is_empty() {
        let folder = sources.machine.runtime_dir.as_ref();
        let folder = folder.unwrap_or(&loaded.config.node.data_dir);
        loaded.config.admin.socket = folder.join("admin.sock");
    }
    relations::check(&loaded)?;
    Ok(loaded)
}

/// The tree before the table's defaults, and those that the machine gives, are put in.
fn blank(machine: &Machine, form: bool) -> Config {
    let none = || std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let zero = std::time::Duration::ZERO;
    let fallback_name = || "node".parse().expect("a plain word is a name");
    Config {
        node: NodeConfig {
            name: machine.host_name.parse().unwrap_or_else(|_| fallback_name()),
            zone: None,
            weight: Weight::DEFAULT,
            threads: 0,
            data_dir: machine.data_dir.clone(),
        },
        cluster: ClusterConfig {
            name: fallback_name().as_str().parse().expect("a plain word is a name"),
            join: Vec::new(),
            form,
            replicas: 1,
            acks: Acks::Quorum,
            acks_shortfall: AcksShortfall::Accept,
            virtual_nodes: 1,
            ring_grace: zero,
            tombstone_grace: zero,
            leave_timeout: zero,
        },
        security: SecurityConfig::default(),
        gossip: GossipConfig {
            listen: none(),
            advertise: None,
            profile: GossipProfile::Lan,
            probe_interval: None,
        },
        peer: PeerConfig {
            listen: none(),
            advertise: None,
            call_timeout: zero,
            lanes: 0,
            max_mtu: 0,
            disable_gso: false,
            sync_rate: ByteSize(0),
        },
        client: ClientConfig {
            listen: Vec::new(),
            cluster_listen: Vec::new(),
            advertise: None,
            cluster_advertise: None,
            tls_listen: Vec::new(),
            cluster_tls_listen: Vec::new(),
            tls_cert_file: None,
            tls_key_file: None,
            tls_client_ca_file: None,
            op_timeout: zero,
            password_file: None,
            acl_file: None,
            max_clients: 1,
            idle_timeout: zero,
            output_buffer_limit: ByteSize(0),
            max_value_size: ByteSize(0),
            danger_allow_anonymous: false,
        },
        admin: AdminConfig { listen: Vec::new(), socket: PathBuf::new() },
        memory: MemoryConfig { limit: ByteSize(0), policy: MemoryPolicy::Evict },
        snapshot: SnapshotConfig { enabled: true, interval: zero },
        log: LogConfig { level: String::new(), format: LogFormat::Auto },
    }
}

fn put(
    loaded: &mut Loaded,
    row: &'static Setting,
    raw: &Raw,
    total: ByteSize,
    origin: Origin,
) -> Result<(), ConfigError> {
    let wrong = |message| ConfigError::Value { origin: origin.clone(), key: row.key, message };
    let value = row.kind.parse(raw, total).map_err(wrong)?;
    if value == Value::Nothing && !row.default.is_empty() && !row.kind.is_list() {
        return Err(wrong("must not be empty".to_owned()));
    }
    (row.put)(&mut loaded.config, value);
    if origin != Origin::Default {
        loaded.origins.insert(row.key, origin);
    }
    Ok(())
}

type Given = (&'static Setting, Raw, Origin);

fn read_file(file: FileText<'_>) -> Result<Vec<Given>, ConfigError> {
    let at = |offset: usize| place(file, offset);
    let document = DeTable::parse(file.text).map_err(|error| ConfigError::Syntax {
        origin: at(error.span().map_or(0, |span| span.start)),
        message: error.message().trim().replace('\n', ", "),
    })?;
    let mut given = Vec::new();
    for (section, value) in document.get_ref() {
        let origin = at(section.span().start);
        let DeValue::Table(table) = value.get_ref() else {
            return Err(unknown(section.get_ref(), &origin));
        };
        if !SETTINGS.iter().any(|row| row.parts().0 == section.get_ref().as_ref()) {
            return Err(unknown(section.get_ref(), &origin));
        }
        for (name, value) in table {
            let origin = at(name.span().start);
            let key = format!("{}.{}", section.get_ref(), name.get_ref());
            let row = find(&key).ok_or_else(|| unknown(&key, &origin))?;
            let origin = at(value.span().start);
            let raw = texts(value.get_ref()).ok_or_else(|| ConfigError::Value {
                origin: origin.clone(),
                key: row.key,
                message: "takes a text, a number, a truth value or a list of them".to_owned(),
            })?;
            given.push((row, raw, origin));
        }
    }
    given.sort_by(|(_, _, a), (_, _, b)| a.cmp(b));
    Ok(given)
}

/// The texts of a value; `None` for what no setting takes.
fn texts(value: &DeValue<'_>) -> Option<Raw> {
    let one = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(on) => Some(on.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    };
    match value {
        DeValue::Array(list) => {
            list.iter().map(|value| one(value.get_ref())).collect::<Option<_>>().map(Raw)
        }
        single => one(single).map(|text| Raw(vec![text])),
    }
}

fn place(file: FileText<'_>, offset: usize) -> Origin {
    let before = file.text.get(..offset).unwrap_or(file.text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Origin::File {
        path: file.path.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
    }
}

fn read_environment(environment: &BTreeMap<String, String>) -> Result<Vec<Given>, ConfigError> {
    let mut given = Vec::new();
    let ours = environment.iter().filter(|(name, _)| name.starts_with(VARIABLE_PREFIX));
    for (name, text) in ours.filter(|(name, _)| !OTHER_VARIABLES.contains(&name.as_str())) {
        let origin = Origin::Variable(name.clone());
        let Some(row) = SETTINGS.iter().find(|row| row.variable() == *name) else {
            let known = SETTINGS.iter().map(Setting::variable);
            let nearest = nearest(name, known);
            return Err(ConfigError::Unknown { origin, name: name.clone(), nearest });
        };
        given.push((row, Raw(vec![text.clone()]), origin));
    }
    Ok(given)
}

fn unknown(name: &str, origin: &Origin) -> ConfigError {
    let keys = SETTINGS.iter().map(|row| row.key.to_owned());
    let sections = SETTINGS.iter().map(|row| row.parts().0.to_owned());
    let nearest = if name.contains('.') {
        nearest(name, keys)
    } else {
        let alone = SETTINGS.iter().find(|row| row.parts().1 == name);
        alone.map(|row| row.key.to_owned()).or_else(|| nearest(name, sections))
    };
    ConfigError::Unknown { origin: origin.clone(), name: name.to_owned(), nearest }
}

/// The candidate that differs least from `name`, if it differs by at most a third of it.
fn nearest(name: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    let worst = name.chars().count() / 3 + 1;
    candidates
        .map(|candidate| (edits(name, &candidate), candidate))
        .filter(|(edits, _)| *edits <= worst)
        .min()
        .map(|(_, candidate)| candidate)
}

/// How many letters must be put in, taken out or changed to make `b` of `a` (Levenshtein).
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let changed = row.get(j).copied().unwrap_or(0) + usize::from(from != *to);
            let taken = row.get(j + 1).copied().unwrap_or(0) + 1;
            let put = next.get(j).copied().unwrap_or(0) + 1;
            next.push(changed.min(taken).min(put));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests;
