//! The tree of verbs and their flags. The flags of settings are made from the table of settings.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::cli::output::Format;
use crate::config::load::Flag;
use crate::config::setting::Setting;
use crate::config::settings::SETTINGS;
use crate::config::value::Kind;
use crate::types::units::parse_span;
use crate::types::{ClusterName, Db, NodeName};

/// A distributed in-memory cache: any Redis client, any node.
#[derive(Debug, Parser)]
#[command(name = "chickadee", version, arg_required_else_help = true)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

/// Flags that every verb takes.
#[derive(Debug, clap::Args)]
pub(super) struct Common {
    /// The node to ask, by its admin address
    #[arg(long, global = true, value_name = "HOST:PORT", conflicts_with = "socket")]
    pub(super) addr: Option<String>,
    /// The node to ask, by its admin socket
    #[arg(long, global = true, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
    /// How data is printed
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// The same as --format json
    #[arg(long, global = true)]
    json: bool,
}

impl Common {
    /// Whether a flag names the node to ask.
    pub(super) const fn names_a_node(&self) -> bool {
        self.addr.is_some() || self.socket.is_some()
    }

    /// The format asked for.
    pub(super) const fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run a node
    Serve(ServeArgs),
    /// Run a throwaway cluster on loopback, one process per node
    Dev(DevArgs),
    /// Show a node's state; exit 1 if it is not ready
    Status {
        /// Wait until the node is ready, all members agree, or every slot has its copies
        #[arg(long, value_enum)]
        wait: Option<Goal>,
        /// How long to wait
        #[arg(long, default_value = "60s", value_parser = span)]
        timeout: Duration,
    },
    #[command(flatten)]
    Look(Look),
    #[command(flatten)]
    Data(Data),
    /// Leave the cluster for good; the node ends
    Leave {
        /// How long handing over may take
        #[arg(long, value_parser = span)]
        timeout: Option<Duration>,
    },
    /// Form a cluster now instead of waiting for a member
    Form,
    /// Take a dead member out of the cluster at once, so that its slots are placed anew
    Forget {
        /// Its name or id
        #[arg(value_name = "NODE")]
        member: String,
    },
    /// Show or change what the whole cluster agrees on
    Cluster {
        #[command(subcommand)]
        verb: ClusterVerb,
    },
    /// The keys under which gossip is sealed
    Keys {
        #[command(subcommand)]
        verb: KeysVerb,
    },
    /// Certificates made with an authority of one's own
    Cert {
        #[command(subcommand)]
        verb: CertVerb,
    },
    /// Make a secret for a cluster
    Keygen {
        /// The file to write, readable by its owner only; stdout if none is given
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Check or show settings
    Config {
        #[command(subcommand)]
        verb: ConfigVerb,
    },
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write manual pages, one for each verb and one for the settings
    Man {
        /// The folder; made if it is not there
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Look for what is wrong with this machine, the settings and the node; exit 1 if something is
    Doctor(DoctorArgs),
    /// Show the version
    Version,
}

/// Verbs that show what a node sees.
#[derive(Debug, Subcommand)]
pub(super) enum Look {
    /// Members and their states
    Members {
        #[command(flatten)]
        watch: Watch,
    },
    /// The placement, or who holds a key
    Ring {
        #[command(subcommand)]
        verb: Option<RingVerb>,
        #[command(flatten)]
        watch: Watch,
    },
    /// The slots that the node holds
    Slots {
        #[command(flatten)]
        watch: Watch,
    },
    /// The node's connections to the others
    Peers {
        #[command(flatten)]
        watch: Watch,
    },
    /// The node's counters and levels
    Stats {
        #[command(flatten)]
        watch: Watch,
    },
    /// What each holder has of a key
    Explain {
        /// The key
        key: String,
        /// Its database
        #[arg(long, default_value = "0", value_parser = database)]
        db: Db,
    },
}

/// Repeating a look.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Watch {
    /// Show it every second; off a terminal one line of JSON each
    #[arg(long)]
    pub(super) watch: bool,
}

/// Looking at the ring.
#[derive(Debug, Subcommand)]
pub(super) enum RingVerb {
    /// Who should hold a key
    Locate {
        /// The key
        key: String,
    },
}

/// Verbs about data. The password, if one is needed, comes from the environment.
#[derive(Debug, Subcommand)]
pub(super) enum Data {
    /// Print the value of a key; exit 1 if there is none
    Get {
        /// The key
        key: String,
        #[command(flatten)]
        db: InDatabase,
    },
    /// Set a key
    Set {
        /// The key
        key: String,
        /// The value; `-` reads it from stdin
        value: String,
        /// When it expires
        #[arg(long, value_parser = span)]
        ttl: Option<Duration>,
        #[command(flatten)]
        db: InDatabase,
    },
    /// Delete keys; prints how many there were
    Del {
        /// The keys
        #[arg(required = true)]
        keys: Vec<String>,
        #[command(flatten)]
        db: InDatabase,
    },
    /// Print when a key expires; exit 1 if it does not exist
    Ttl {
        /// The key
        key: String,
        #[command(flatten)]
        db: InDatabase,
    },
    /// Print the keys of the whole cluster
    Scan {
        /// A glob pattern
        #[arg(default_value = "*")]
        pattern: String,
        #[command(flatten)]
        db: InDatabase,
    },
}

/// The database of a key.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct InDatabase {
    /// The database
    #[arg(long, default_value = "0", value_parser = database)]
    pub(super) db: Db,
}

/// What `status --wait` waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Goal {
    /// The node is ready.
    Ready,
    /// Every alive member is ready and has the same placement.
    Converged,
    /// Converged, and no slot lacks a copy.
    Replicated,
}

/// What the cluster agrees on.
#[derive(Debug, Subcommand)]
pub(super) enum ClusterVerb {
    /// Show it
    Show,
    /// Change one fact on every node
    Set {
        /// The fact, as in the settings' section `cluster`
        key: String,
        /// Its value
        value: String,
    },
}

/// The gossip key ring. To rotate: add, use, remove; each counts for the whole cluster.
#[derive(Debug, Subcommand)]
pub(super) enum KeysVerb {
    /// Show the keys
    List,
    /// Add a key from a secret file (`keygen`), which every member then opens packets with
    Add {
        /// The file; `-` reads it from stdin
        file: PathBuf,
    },
    /// Make every member seal with a key that all have
    Use {
        /// Its id
        id: u8,
    },
    /// Remove a key that nobody seals with any more
    Remove {
        /// Its id
        id: u8,
    },
}

/// Certificates of an operator: for peers in the place of derived ones, and for clients over TLS.
#[derive(Debug, Subcommand)]
pub(super) enum CertVerb {
    /// Make an authority: ca.pem, and ca.key, which signs
    Ca {
        /// The cluster that it is for
        #[arg(long, value_name = "NAME", default_value = DEFAULT_CLUSTER)]
        cluster: ClusterName,
        /// The folder to write to
        #[arg(long, value_name = "FOLDER", default_value = ".")]
        out: PathBuf,
        /// How long it is valid
        #[arg(long, default_value = "3650d", value_parser = span)]
        valid: Duration,
    },
    /// Make a node's certificate NAME.pem and its key NAME.key
    Issue(IssueArgs),
    /// Show the certificates of a file; exit 1 if one is not valid now
    Show {
        /// The file (PEM)
        file: PathBuf,
    },
}

/// What a certificate is made from.
#[derive(Debug, clap::Args)]
pub(super) struct IssueArgs {
    /// The node's name
    pub(super) name: NodeName,
    /// A name or address by which clients reach the node; may be repeated
    #[arg(long = "host", value_name = "HOST")]
    pub(super) hosts: Vec<String>,
    /// The cluster that it belongs to
    #[arg(long, value_name = "NAME", default_value = DEFAULT_CLUSTER)]
    pub(super) cluster: ClusterName,
    /// The folder with ca.pem and ca.key
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub(super) ca: PathBuf,
    /// The folder to write to
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub(super) out: PathBuf,
    /// How long it is valid
    #[arg(long, default_value = "90d", value_parser = span)]
    pub(super) valid: Duration,
}

/// The name that a cluster has where the settings give none.
const DEFAULT_CLUSTER: &str = "chickadee";

/// Settings, checked or shown.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigVerb {
    /// Load settings as `serve` would; exit 2 with the fault
    Check {
        /// The file; as `serve` would choose if none is given
        file: Option<PathBuf>,
    },
    /// Print every setting
    Show {
        /// The file; as `serve` would choose if none is given
        #[arg(long)]
        config: Option<PathBuf>,
        /// And where each came from
        #[arg(long)]
        origin: bool,
        #[command(flatten)]
        settings: SettingFlags,
    },
    /// Print a settings file with every default
    Example,
}

/// Flags of `serve`.
#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// The settings file
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Form a cluster now if no member answers
    #[arg(long)]
    pub(super) form: bool,
    #[command(flatten)]
    pub(super) settings: SettingFlags,
    /// End at once when stdin closes, and remove this folder: how `dev` runs its nodes
    #[arg(long, hide = true, value_name = "FOLDER")]
    pub(super) throwaway: Option<PathBuf>,
}

/// Flags of `doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct DoctorArgs {
    /// The settings file; as `serve` would choose if none is given
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) settings: SettingFlags,
}

/// Flags of `dev`.
#[derive(Debug, clap::Args)]
pub(super) struct DevArgs {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(super) nodes: u16,
    /// The first node's client port; 0 takes any free ports for everything
    #[arg(long, default_value_t = 6379)]
    pub(super) base_port: u16,
    /// A setting for every node; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = pair)]
    pub(super) set: Vec<(String, String)>,
}

fn span(text: &str) -> Result<Duration, String> {
    parse_span(text).map_err(|error| error.to_string())
}

fn database(text: &str) -> Result<Db, String> {
    let db = text.parse().ok().and_then(Db::new);
    db.ok_or_else(|| format!("a database is 0 to {}", Db::COUNT - 1))
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write section.key=value")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

/// The flags of settings: one for each row of the table, and `--set`.
#[derive(Clone, Debug, Default)]
pub(super) struct SettingFlags(pub(super) Vec<Flag>);

const SET: &str = "set";

fn flag_of(row: &Setting) -> String {
    row.flag.map_or_else(|| row.long_flag(), str::to_owned)
}

fn argument(row: &'static Setting) -> Arg {
    let default = if row.default.is_empty() { row.fallback } else { row.default };
    let long =
        format!("{} {}\nTakes {}; default: {default}", row.doc, row.more, row.kind.describe());
    let mut argument = Arg::new(row.key)
        .long(flag_of(row))
        .value_name("VALUE")
        .help(row.doc.trim_end_matches('.'))
        .long_help(long)
        .action(if row.kind.is_list() { ArgAction::Append } else { ArgAction::Set });
    if row.flag.is_some() {
        argument = argument.alias(row.long_flag());
    } else {
        argument = argument.hide_short_help(true);
    }
    if matches!(row.kind, Kind::Switch) {
        argument = argument.num_args(0..=1).default_missing_value("true");
    }
    argument
}

impl clap::Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        let set = Arg::new(SET)
            .long(SET)
            .value_name("KEY=VALUE")
            .value_parser(pair)
            .action(ArgAction::Append)
            .help("Any setting, such as --set log.level=debug");
        SETTINGS.iter().fold(command.arg(set), |command, row| command.arg(argument(row)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Vec::new();
        for row in SETTINGS {
            if let Some(values) = matches.get_many::<String>(row.key) {
                let values = values.cloned().collect();
                let written = format!("--{}", flag_of(row));
                flags.push(Flag { key: row.key.to_owned(), values, written });
            }
        }
        for (key, value) in matches.get_many::<(String, String)>(SET).unwrap_or_default() {
            let (key, values) = (key.clone(), vec![value.clone()]);
            flags.push(Flag { written: format!("--set {key}"), key, values });
        }
        Ok(Self(flags))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_tree_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn settings_are_flags_under_both_names() {
        let parse = |line: &str| match Args::try_parse_from(line.split(' ')).unwrap().verb {
            Verb::Serve(serve) => serve.settings.0,
            verb => unreachable!("{verb:?}"),
        };
        let flags = parse("chickadee serve --join a --join b,c --replicas 3 --set log.level=debug");
        let shown: Vec<String> =
            flags.iter().map(|f| format!("{} {} {:?}", f.written, f.key, f.values)).collect();
        assert_eq!(
            shown,
            [
                "--join cluster.join [\"a\", \"b,c\"]",
                "--replicas cluster.replicas [\"3\"]",
                "--set log.level log.level [\"debug\"]",
            ]
        );
        assert_eq!(parse("chickadee serve --cluster-replicas 3")[0].key, "cluster.replicas");
        assert_eq!(parse("chickadee serve --peer-disable-gso")[0].values, ["true"]);
    }
}
