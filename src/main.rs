//! The command line: wiring only, one file per command under `cmd/`.
//!
//! ```text
//!   argv, environment ──clap──► cmd::Command ──► libraries ──► Exit
//! ```
//!
//! Results go to standard output, everything else to standard error. `anyhow` stops here: libraries have typed errors.

mod cmd;
mod exit;
mod experiment;
mod interrupt;
mod open;
mod output;
mod progress;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, builder::FalseyValueParser};

use tracing_subscriber::{EnvFilter, filter::ParseError};

use crate::{exit::FAILED, progress::say};

/// Keeps what CLIP knew: an anchor index server for robust finetuning.
#[derive(Parser, Debug)]
#[command(version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: cmd::Command,
    /// What is logged to standard error: error, warn, info, debug, trace, or a filter such as `anchorite_api=debug`.
    #[arg(long, global = true, env = "ANCHORITE_LOG", default_value = "warn", value_name = "FILTER", help_heading = "Log", value_parser = filter)]
    log: String,
    /// Log lines as JSON.
    #[arg(long, global = true, env = "ANCHORITE_LOG_JSON", help_heading = "Log", value_parser = FalseyValueParser::new())]
    log_json: bool,
}

fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let mut cli = Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    if let Err(e) = cli.command.settle(&matches) {
        let mut whole = Cli::command();
        whole.build();
        let used = matches.subcommand_name().and_then(|name| whole.find_subcommand_mut(name));
        match used {
            Some(used) => e.format(used).exit(),
            None => e.exit(),
        }
    }
    let result = start_log(&cli.log, cli.log_json).and_then(|()| cli.command.run());
    match result {
        Ok(_) if output::lost() => ExitCode::from(FAILED),
        Ok(exit) => exit.into(),
        Err(error) => {
            say(&format!("error: {}", told(&error)));
            ExitCode::from(FAILED)
        }
    }
}

/// An error with its causes, each said once: some errors name their cause in their own sentence.
fn told(error: &anyhow::Error) -> String {
    let add = |said: String, cause: &(dyn std::error::Error + 'static)| match cause.to_string() {
        cause if said.contains(&cause) => said,
        cause => format!("{said}: {cause}"),
    };
    error.chain().skip(1).fold(error.to_string(), add)
}

/// `text`, if it is a filter, so that a wrong one is wrong usage.
fn filter(text: &str) -> Result<String, ParseError> {
    EnvFilter::try_new(text).map(|_| text.to_owned())
}

fn start_log(filter: &str, json: bool) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json {
        builder.json().init();
    } else {
        builder.init();
    }
    Ok(())
}
