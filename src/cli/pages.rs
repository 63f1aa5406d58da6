//! What is made from the tree of verbs and the table of settings to be installed beside the
//! program: completions for shells and manual pages.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use roff::{Roff, bold, roman};

use crate::cli::args::Args;
use crate::cli::failure::Failure;
use crate::cli::output;
use crate::config::describe::{ManPage, NO_DATE};

/// The program, as shells know it.
const PROGRAM: &str = "chickadee";

/// What each ending means; the codes are those of [`Failure::code`].
const EXIT_STATUS: &[(&str, &str)] = &[
    ("0", "Done."),
    ("1", "It did not work, or what was looked at is unhealthy."),
    ("2", "Wrong arguments or settings."),
    ("3", "No node answers there."),
    ("4", "It did not happen in time."),
];

/// `completions`.
pub(super) fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), PROGRAM, &mut script);
    output::write(&script)
}

/// `man`.
pub(super) fn man(folder: &Path) -> Result<(), Failure> {
    write_pages(folder).map_err(|error| {
        Failure::Failed(format!("cannot write manual pages to {}: {error}", folder.display()))
    })?;
    output::note(&format!("wrote manual pages to {}", folder.display()));
    Ok(())
}

fn write_pages(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut tree = Args::command().disable_help_subcommand(true);
    tree.build();
    write_page(folder, &tree, &endings())?;
    write_pages_below(folder, &tree)?;
    fs::write(folder.join("chickadee.toml.5"), ManPage.to_string())
}

fn write_pages_below(folder: &Path, parent: &Command) -> io::Result<()> {
    for verb in parent.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        write_page(folder, verb, &see_also(&["chickadee(1)", "chickadee.toml(5)"]))?;
        write_pages_below(folder, verb)?;
    }
    Ok(())
}

fn write_page(folder: &Path, verb: &Command, end: &Roff) -> io::Result<()> {
    let man = Man::new(verb.clone())
        .date(NO_DATE)
        .source(format!("{PROGRAM} {}", env!("CARGO_PKG_VERSION")))
        .manual("Chickadee");
    let mut page = Vec::new();
    man.render(&mut page)?;
    page.extend_from_slice(end.to_roff().as_bytes());
    fs::write(folder.join(man.get_filename()), page)
}

/// The last sections of the program's own page.
fn endings() -> Roff {
    let mut page = Roff::new();
    page.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in EXIT_STATUS {
        page.control("TP", []).text([bold(*code)]).text([roman(*meaning)]);
    }
    page.extend([see_also(&["chickadee-serve(1)", "chickadee.toml(5)"])]);
    page
}

fn see_also(pages: &[&str]) -> Roff {
    let mut section = Roff::new();
    section.control("SH", ["SEE ALSO"]).text([roman(pages.join(", "))]);
    section
}
