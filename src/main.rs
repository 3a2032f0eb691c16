//! The command line: wiring only, one file per command under `cmd/`.
//!
//! ```text
//!   argv, environment ──clap──► cmd::Command ──► libraries ──► Exit
//! ```
//!
//! Results go to standard output, everything else to standard error. `anyhow` stops here: libraries have typed errors.

mod cmd;
mod exit;
mod interrupt;
mod open;
mod output;
mod progress;

use std::process::ExitCode;

use clap::Parser;

use crate::{exit::FAILED, progress::say};

/// Keeps what CLIP knew: an anchor index server for robust finetuning.
#[derive(Parser, Debug)]
#[command(version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: cmd::Command,
    /// What is logged to standard error: error, warn, info, debug, trace, or a filter such as `anchorite_api=debug`.
    #[arg(long, global = true, env = "ANCHORITE_LOG", default_value = "warn")]
    log: String,
    /// Log lines as JSON.
    #[arg(long, global = true, env = "ANCHORITE_LOG_JSON")]
    log_json: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = start_log(&cli.log, cli.log_json).and_then(|()| cli.command.run());
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::from(FAILED)
        }
    }
}

fn start_log(filter: &str, json: bool) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(filter)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json {
        builder.json().init()
    } else {
        builder.init()
    }
    Ok(())
}
