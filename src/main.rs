//! The `chickadee` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    chickadee::cli::run(std::env::args_os())
}
