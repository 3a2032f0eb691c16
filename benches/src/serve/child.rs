//! A server in a process of its own: this program again, so that nothing but loopback lies between it and who asks.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use anchorite_anchors::Retriever;
use anchorite_api::{App, Options, Server};
use anchorite_encoder::{
    Encode, EncoderOptions,
    fake::FakeEncoder,
    model::ModelOptions,
    runtime::{self, Provider, RuntimeOptions},
};
use anchorite_index::pool::{OpenOptions, Pool};
use anyhow::{Context, Result};

use crate::clip_like::DIM;

/// What the pool is called on the server.
pub(crate) const POOL: &str = "bench";

/// The encoder of the ready vectors, or the model in this folder.
pub(crate) fn encoder(model: Option<&Path>) -> Result<Arc<dyn Encode>> {
    let Some(folder) = model else { return Ok(Arc::new(FakeEncoder::new(DIM))) };
    let runtime = runtime::init(&RuntimeOptions::from_env(), &|_| ())?;
    Ok(Arc::new(anchorite_encoder::open(runtime, Provider::Cpu, folder, &ModelOptions::default(), EncoderOptions::default())?))
}

/// Serves the pool until standard input ends. Prints the address.
pub(crate) fn serve(dir: &Path, model: Option<&Path>) -> Result<()> {
    let store = Arc::new(Pool::open(dir, &OpenOptions::default())?);
    let retriever = Retriever::new(encoder(model)?, store)?;
    let app = Arc::new(App::new(vec![(POOL.to_owned(), retriever)], Options::default())?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async move {
        let server = Server::bind("127.0.0.1:0".parse()?).await?;
        let mut out = std::io::stdout();
        writeln!(out, "{}", server.local_addr())?;
        out.flush()?;
        let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        server.serve(app, async { drop(ended.await) }).await;
        Ok(())
    })
}

/// A server that is there as long as this is.
pub(crate) struct Running {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Running {
    /// This program as a server of `dir`, with the model in `model` where one is named.
    pub(crate) fn of(dir: &Path, model: Option<&Path>) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", "--serve-child"]).arg(dir);
        if let Some(model) = model {
            command.arg("--serve-model").arg(model);
        }
        Self::saying(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("start the server")?)
    }

    /// A process that prints the address it listens on as its first line.
    pub(crate) fn saying(mut child: Child) -> Result<Self> {
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("a pipe")?).read_line(&mut line)?;
        let address = line.trim().parse().with_context(|| format!("{line:?} is no address: the server did not start"))?;
        Ok(Self { child, address })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It has nothing to keep; a peer may not notice the end of its input.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
