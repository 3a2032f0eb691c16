//! `anchorite serve`: pools over HTTP until Ctrl-C or SIGTERM.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use anchorite::{
    anchors::Retriever,
    api::{App, Options, Server},
};
use anyhow::{Context, Result, bail};

use crate::{
    exit::Exit,
    interrupt::signalled,
    open::{self, ModelArgs},
    output::line,
    progress::say,
};

/// What to serve, and where.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// A pool and its name. Give it again for several; the first is the default.
    #[arg(long = "pool", env = "ANCHORITE_POOLS", value_name = "NAME=DIR", required = true, value_delimiter = ',', value_parser = named)]
    pools: Vec<(String, PathBuf)>,
    /// Address and port. Port 0 takes a free one; the address is printed.
    #[arg(long, env = "ANCHORITE_LISTEN", default_value = "127.0.0.1:7801", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    #[command(flatten)]
    model: ModelArgs,
}

/// `NAME=DIR`; a folder alone is named after itself.
fn named(text: &str) -> Result<(String, PathBuf), String> {
    if let Some((name, dir)) = text.split_once('=') {
        return Ok((name.to_owned(), PathBuf::from(dir)));
    }
    let dir = PathBuf::from(text);
    let name = dir.file_stem().and_then(|n| n.to_str()).ok_or("say NAME=DIR")?;
    Ok((name.to_owned(), dir.clone()))
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    refuse_strangers(args.listen)?;
    let mut served: Vec<(String, Retriever)> = Vec::new();
    let mut encoder = None;
    for (name, dir) in &args.pools {
        let pool = open::pool(dir)?;
        let encoder = match (&encoder, args.model.model.is_some()) {
            (Some(open), true) => Arc::clone(open),
            _ => Arc::clone(encoder.insert(args.model.open_for(&pool)?)),
        };
        served.push((name.clone(), open::retriever(encoder, pool)?));
    }
    serve(served, args.listen, |address| line(&format!("listening on http://{address}/")))
}

/// There are no keys yet, so that only this machine may ask.
fn refuse_strangers(listen: SocketAddr) -> Result<()> {
    if !listen.ip().is_loopback() {
        bail!(
            "{listen} can be reached from other machines, and this server has no keys yet; listen on 127.0.0.1 and put a proxy with authentication before it"
        );
    }
    Ok(())
}

/// Serves `pools` until a signal; `ready` is told the address once the socket listens.
pub(crate) fn serve(pools: Vec<(String, Retriever)>, listen: SocketAddr, ready: impl FnOnce(SocketAddr)) -> Result<Exit> {
    let app = Arc::new(App::new(pools, Options::default())?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the async runtime")?;
    runtime.block_on(async {
        let server = Server::bind(listen).await?;
        ready(server.local_addr());
        let drained = server.serve(app, signalled()).await;
        say(&format!("stopped: {drained:?}"));
        anyhow::Ok(())
    })?;
    Ok(Exit::Done)
}
