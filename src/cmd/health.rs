//! `anchorite health`: is a server ready? For containers without a shell: the exit code says it.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{exit::Exit, output::line};

/// How long an answer may take: less than orchestrators wait.
const PATIENCE: Duration = Duration::from_secs(4);

/// Which server.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// A server's address.
    #[arg(long, env = "ANCHORITE_SERVER", default_value = "http://127.0.0.1:7801", value_name = "URL")]
    server: String,
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let url = format!("{}/readyz", args.server.trim_end_matches('/'));
    let agent = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().new_agent();
    let mut response = agent.get(&url).call().with_context(|| format!("ask {url}"))?;
    let said = response.body_mut().read_to_string().with_context(|| format!("read the answer of {url}"))?;
    if !response.status().is_success() {
        bail!("{url} answered {}: {}", response.status(), said.trim());
    }
    line(said.trim());
    Ok(Exit::Done)
}
