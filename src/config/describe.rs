//! The table of settings as people read it: the example file, the manual's page and chickadee.toml(5).

use std::fmt;

use roff::{Inline, Roff, bold, italic, roman};

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
";

const HOW_TO_SET: &str = "\
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
        write!(f, "{MANUAL_HEAD}\n{HOW_TO_SET}")?;
        for (section, rows) in sections() {
            writeln!(f, "\n## {section}")?;
            rows.iter().try_for_each(|row| paragraph(f, row))?;
        }
        Ok(())
    }
}

fn paragraph(f: &mut fmt::Formatter<'_>, row: &Setting) -> fmt::Result {
    let mark = mark(row).map(|mark| format!(" · {mark}")).unwrap_or_default();
    writeln!(f, "\n### `{}`{mark}\n\n{}", row.key, row.doc)?;
    if !row.more.is_empty() {
        writeln!(f, "{}", row.more)?;
    }
    writeln!(f, "\n{}", range_and_names(row))
}

/// When a change takes effect, if not only at the next start.
const fn mark(row: &Setting) -> Option<&'static str> {
    match row.change {
        Change::Reload => Some("*reloads*"),
        Change::Restart => None,
        Change::Forming => Some("*cluster fact*"),
    }
}

fn range_and_names(row: &Setting) -> String {
    let default = match row.default {
        "" => row.fallback.to_owned(),
        default => format!("`{default}`"),
    };
    let short = row.flag.map(|short| format!("`--{short}`, ")).unwrap_or_default();
    format!(
        "Takes {}. Default: {default}. `{}` · {short}`--{}`",
        row.kind.describe(),
        row.variable(),
        row.long_flag()
    )
}

/// The date of a page that has none: an empty one would let what follows it take its place.
pub const NO_DATE: &str = " ";

/// The page chickadee.toml(5), in roff.
#[derive(Clone, Copy, Debug)]
pub struct ManPage;

impl fmt::Display for ManPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut page = Roff::new();
        let version = concat!("chickadee ", env!("CARGO_PKG_VERSION"));
        page.control("TH", ["chickadee.toml", "5", NO_DATE, version, "Chickadee"]);
        // Names are copied from here: none is broken in two.
        page.control("nh", []);
        page.control("SH", ["NAME"]).text([roman("chickadee.toml - settings of a Chickadee node")]);
        page.control("SH", ["DESCRIPTION"]).text(inlines(
            "The settings file of `chickadee serve`, in TOML: `/etc/chickadee/chickadee.toml`, or the \
             one that `--config` names. `chickadee config example` prints one with every setting.",
        ));
        page.control("PP", []).text(inlines(HOW_TO_SET));
        for (section, rows) in sections() {
            page.control("SH", [format!("[{section}]").as_str()]);
            for row in rows {
                entry(&mut page, row);
            }
        }
        page.control("SH", ["SEE ALSO"]).text(inlines("`chickadee`(1), `chickadee-serve`(1)"));
        f.write_str(&page.render())
    }
}

fn entry(page: &mut Roff, row: &Setting) {
    let mut head = vec![bold(row.key)];
    head.extend(mark(row).into_iter().flat_map(|mark| inlines(&format!(" · {mark}"))));
    page.control("TP", []).text(head).text(inlines(row.doc));
    if !row.more.is_empty() {
        page.text(inlines(row.more));
    }
    page.control("br", []).text(inlines(&range_and_names(row)));
}

/// What the table writes as `code` and *stress*, in bold and italics.
fn inlines(text: &str) -> Vec<Inline> {
    let mut found = Vec::new();
    for (at, part) in text.split('`').enumerate() {
        if at % 2 == 1 {
            found.push(bold(part));
            continue;
        }
        let parts = part.split('*').enumerate();
        found.extend(parts.map(|(at, part)| if at % 2 == 1 { italic(part) } else { roman(part) }));
    }
    found
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
    fn the_man_page_has_every_setting_and_no_markdown() {
        let page = ManPage.to_string();
        for row in SETTINGS {
            let entry = format!("\n.TP\n\\fB{}\\fR", row.key.replace('-', "\\-"));
            assert!(page.contains(&entry), "{}", row.key);
        }
        // An apostrophe of roff's.
        let text = page.replace("\\*(Aq", "'");
        assert!(!text.contains('`') && !text.contains('*'), "{text}");
        assert!(page.contains("\\fIcluster fact\\fR"), "{page}");
    }

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
