//! The table of settings as people read it: the example file and the manual page.

use std::fmt;

use crate::config::load::Loaded;
use crate::config::setting::{Change, Setting};
use crate::config::settings::SETTINGS;
use crate::config::value::Kind;

/// A settings file with every setting at its default, commented out.
#[derive(Clone, Copy, Debug)]
pub struct Example;

impl fmt::Display for Example {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Settings of a Chickadee node. What is commented out shows its default.")?;
        writeln!(
            f,
            "# A variable (CHICKADEE_SECTION_KEY) goes before this file, a flag before both."
        )?;
        for (section, rows) in sections() {
            writeln!(f, "\n[{section}]")?;
            rows.iter().try_for_each(|row| commented(f, row))?;
        }
        Ok(())
    }
}

fn commented(f: &mut fmt::Formatter<'_>, row: &Setting) -> fmt::Result {
    let (_, name) = row.parts();
    writeln!(f, "# {}", row.doc)?;
    if !row.more.is_empty() {
        writeln!(f, "# {}", row.more)?;
    }
    let range = row.kind.describe();
    match row.kind {
        _ if row.default.is_empty() => {
            writeln!(f, "#{name} =  # {range}; default: {}", row.fallback)
        }
        Kind::Count { .. } | Kind::Switch => writeln!(f, "#{name} = {}  # {range}", row.default),
        _ => writeln!(f, "#{name} = {:?}  # {range}", row.default),
    }
}

/// The manual's page of settings, in Markdown.
#[derive(Clone, Copy, Debug)]
pub struct Manual;

const MANUAL_HEAD: &str = "# Settings

Made from the table in `src/config/settings.rs`; a test compares.

A setting stands in the file as `key` in its section, in the environment as the variable, on the
command line of `serve` as the flag or as `--set section.key=value`. Flags go before variables,
variables before the file, the file before the defaults. An unknown name is an error. Numbers and
truth values may stand bare or quoted; spans are written `250ms`, `5s`, `10m`, `1h`; sizes `512MiB`,
`4GiB`. All take effect when the node starts; those marked *reloads* also when it gets SIGHUP (`systemctl
reload chickadee`); those marked *cluster fact* only when a cluster is formed, later the cluster's own value
counts.
";

impl fmt::Display for Manual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MANUAL_HEAD)?;
        for (section, rows) in sections() {
            writeln!(f, "\n## {section}")?;
            rows.iter().try_for_each(|row| paragraph(f, row))?;
        }
        Ok(())
    }
}

fn paragraph(f: &mut fmt::Formatter<'_>, row: &Setting) -> fmt::Result {
    let when = match row.change {
        Change::Reload => " · *reloads*",
        Change::Restart => "",
        Change::Forming => " · *cluster fact*",
    };
    writeln!(f, "\n### `{}`{when}\n\n{}", row.key, row.doc)?;
    if !row.more.is_empty() {
        writeln!(f, "{}", row.more)?;
    }
    write!(f, "\nTakes {}. Default: ", row.kind.describe())?;
    match row.default {
        "" => write!(f, "{}", row.fallback)?,
        default => write!(f, "`{default}`")?,
    }
    write!(f, ". `{}` · ", row.variable())?;
    if let Some(short) = row.flag {
        write!(f, "`--{short}`, ")?;
    }
    writeln!(f, "`--{}`", row.long_flag())
}

fn sections() -> impl Iterator<Item = (&'static str, &'static [Setting])> {
    let section = |row: &Setting| row.parts().0;
    let groups = SETTINGS.chunk_by(move |a, b| section(a) == section(b));
    groups.filter_map(move |rows| Some((section(rows.first()?), rows)))
}

/// Every setting with its value, as TOML.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The settings.
    pub loaded: &'a Loaded,
    /// Whether each is followed by where it came from.
    pub origins: bool,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (section, rows) in sections() {
            writeln!(f, "[{section}]")?;
            for row in rows {
                self.line(f, row)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl Shown<'_> {
    fn line(&self, f: &mut fmt::Formatter<'_>, row: &Setting) -> fmt::Result {
        let (_, name) = row.parts();
        let value = row.show(&self.loaded.config);
        match row.kind {
            _ if value.is_empty() => write!(f, "# {name} is not set")?,
            Kind::Count { .. } | Kind::Switch => write!(f, "{name} = {value}")?,
            Kind::Addresses | Kind::Seeds => {
                let parts: Vec<String> = value.split(',').map(|v| format!("{v:?}")).collect();
                write!(f, "{name} = [{}]", parts.join(", "))?;
            }
            _ => write!(f, "{name} = {value:?}")?,
        }
        if self.origins {
            write!(f, "  # {}", self.loaded.origin(row.key))?;
        }
        writeln!(f)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_manual_page_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/manual/settings.md");
        let manual = Manual.to_string();
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &manual).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == manual, "run the tests with UPDATE=1 to write {}", path.display());
    }
}
