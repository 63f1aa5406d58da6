//! The command line: one verb a call, data on stdout, everything else on stderr.
//!
//! `args` is the tree of verbs, its settings' flags made from the table of settings. Verbs that run
//! something are `serve` and `dev`; verbs that ask a node go through `ask` (admin HTTP) and, for
//! data, `resp_client`; `doctor` looks at this machine too. A verb ends in [`Failure`] or well; the exit code is made from that.

mod act;
mod args;
mod ask;
mod cert;
mod data;
mod dev;
mod dev_nodes;
mod doctor;
mod failure;
mod keys;
mod logging;
mod look;
mod make;
mod output;
mod pages;
mod reload;
mod resp_client;
mod run_node;
mod serve;
mod service;
mod sources;
mod wait;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::args::{Args, ClusterVerb, Verb};
use crate::cli::ask::Ask;
use crate::cli::failure::Failure;
use crate::cli::output::Output;

/// Runs the program with these arguments, the program's name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(arguments) {
        Ok(args) => args,
        Err(error) => {
            let _there_is_no_better_place = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(failure::USAGE));
        }
    };
    match dispatch(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(message) = failure.message() {
                output::note(&format!("chickadee: {message}"));
            }
            ExitCode::from(failure.code())
        }
    }
}

fn dispatch(args: Args) -> Result<(), Failure> {
    let Args { common, verb } = args;
    let output = Output::new(common.format());
    match verb {
        Verb::Serve(serve) => return serve::serve(&serve),
        Verb::Keygen { out } => return make::keygen(out.as_deref()),
        Verb::Cert { verb } => return cert::cert(&verb, output),
        Verb::Config { verb } => return make::config(&verb, output),
        Verb::Completions { shell } => return pages::completions(shell),
        Verb::Man { folder } => return pages::man(&folder),
        Verb::Version => return make::version(output),
        _ => {}
    }
    let runtime = serve::runtime()?;
    let done = runtime.block_on(async {
        match verb {
            Verb::Dev(dev) => dev::dev(dev, output).await,
            Verb::Status { wait, timeout } => match wait {
                Some(goal) => wait::wait(&Ask::looking(&common)?, goal, timeout, output).await,
                None => look::status(&Ask::looking(&common)?, output).await,
            },
            Verb::Look(look) => look::look(&Ask::looking(&common)?, &look, output).await,
            Verb::Data(data) => data::data(&Ask::looking(&common)?, &data, output).await,
            Verb::Leave { timeout } => act::leave(&Ask::acting(&common)?, timeout, output).await,
            Verb::Doctor(args) => doctor::doctor(&args, &common, output).await,
            Verb::Form => act::form(&Ask::acting(&common)?, output).await,
            Verb::Forget { member } => act::forget(&Ask::acting(&common)?, &member, output).await,
            Verb::Keys { verb } => keys::keys(&Ask::acting(&common)?, &verb, output).await,
            Verb::Cluster { verb: ClusterVerb::Show } => {
                look::cluster(&Ask::looking(&common)?, output).await
            }
            Verb::Cluster { verb: ClusterVerb::Set { key, value } } => {
                act::set_fact(&Ask::acting(&common)?, (&key, &value), output).await
            }
            Verb::Serve(_)
            | Verb::Keygen { .. }
            | Verb::Cert { .. }
            | Verb::Config { .. }
            | Verb::Completions { .. }
            | Verb::Man { .. }
            | Verb::Version => Ok(()),
        }
    });
    // What still blocks a thread (a read of standard input) must not hold the program back.
    runtime.shutdown_background();
    done
}
