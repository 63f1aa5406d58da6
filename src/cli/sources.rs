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

/// Where the units find what they hand over as credentials, under the same names.
const UNIT_FILES: &str = "/etc/chickadee";

/// This machine, with the user's folders and the process's credentials.
pub(super) fn machine() -> Machine {
    machine_with(std::env::var_os(CREDENTIALS_VARIABLE).map(PathBuf::from))
}

fn machine_with(credentials: Option<PathBuf>) -> Machine {
    let folder = |name| std::env::var_os(name).map(PathBuf::from);
    this_machine(&Folders {
        state: folder("STATE_DIRECTORY"),
        runtime: folder("RUNTIME_DIRECTORY"),
        state_home: folder("XDG_STATE_HOME"),
        home: folder("HOME"),
        credentials,
    })
}

/// Loads settings as `serve` does.
pub(super) fn settings(file: Option<&Path>, flags: &[Flag], form: bool) -> Result<Loaded, Failure> {
    load_on(&machine(), file, flags, form)
}

/// Loads settings as `serve` does where the service manager starts it: with the files that the units
/// hand over, if this process was handed none.
pub(super) fn service_settings(file: Option<&Path>, flags: &[Flag]) -> Result<Loaded, Failure> {
    let handed = std::env::var_os(CREDENTIALS_VARIABLE).map(PathBuf::from);
    let credentials = handed.unwrap_or_else(|| PathBuf::from(UNIT_FILES));
    load_on(&machine_with(Some(credentials)), file, flags, false)
}

fn load_on(
    machine: &Machine,
    file: Option<&Path>,
    flags: &[Flag],
    form: bool,
) -> Result<Loaded, Failure> {
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
        machine,
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
