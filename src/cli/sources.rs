//! Where settings come from: the file, the environment, the flags and the machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::cli::failure::Failure;
use crate::config::load::{FileText, Flag, Loaded, Machine, Sources, load};
use crate::persist::machine::{Folders, this_machine};

/// The settings file that is read if it exists and no other is named.
const DEFAULT_FILE: &str = "/etc/chickadee/chickadee.toml";

/// The largest settings file.
const FILE_MAX: u64 = 1 << 20;

/// Where the service manager puts the credentials of the process.
pub(super) const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// This machine, with the user's folders and the process's credentials.
pub(super) fn machine() -> Machine {
    let folder = |name| std::env::var_os(name).map(PathBuf::from);
    this_machine(&Folders {
        state: folder("STATE_DIRECTORY"),
        runtime: folder("RUNTIME_DIRECTORY"),
        state_home: folder("XDG_STATE_HOME"),
        home: folder("HOME"),
        credentials: folder(CREDENTIALS_VARIABLE),
    })
}

/// Loads settings as `serve` does.
pub(super) fn settings(file: Option<&Path>, flags: &[Flag], form: bool) -> Result<Loaded, Failure> {
    let text = match file {
        Some(path) => Some((path.display().to_string(), read(path)?)),
        None if Path::new(DEFAULT_FILE).exists() => {
            Some((DEFAULT_FILE.to_owned(), read(Path::new(DEFAULT_FILE))?))
        }
        None => None,
    };
    let environment: BTreeMap<String, String> = std::env::vars_os()
        .map(|(name, value)| {
            (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
        })
        .collect();
    let sources = Sources {
        file: text.as_ref().map(|(path, text)| FileText { path, text }),
        environment: &environment,
        flags,
        form,
        machine: &machine(),
    };
    load(&sources).map_err(|error| Failure::Usage(error.to_string()))
}

fn read(path: &Path) -> Result<String, Failure> {
    let fault = |why: String| {
        Failure::Usage(format!("cannot read the settings file {}: {why}", path.display()))
    };
    let size = fs::metadata(path).map_err(|error| fault(error.to_string()))?.len();
    if size > FILE_MAX {
        return Err(fault("it is too large".to_owned()));
    }
    fs::read_to_string(path).map_err(|error| fault(error.to_string()))
}
