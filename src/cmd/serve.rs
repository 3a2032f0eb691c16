//! `anchorite serve`: pools over HTTP until Ctrl-C or SIGTERM.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anchorite::{
    anchors::Retriever,
    api::{App, Filling, JobOptions, Keys, OpenExact, OpenWriter, Options, Refresh, Server, Tls},
    encoder::Encode,
    index::{
        PairStore,
        format::header::FileKind,
        pool::{Access, Memory, OpenOptions, Pool, PoolWriter, WriterOptions},
    },
};
use anyhow::{Context, Result, bail};

use super::ingest::{VECTORS_FROM, rejects_beside, summary_beside};
use crate::{
    exit::Exit,
    interrupt::Signals,
    open::{self, ModelArgs, Use},
    output::{bytes, line},
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
    /// A file of keys (`anchorite keys add` writes it): who asks must then show one. Without it, only this machine may ask.
    #[arg(long, env = "ANCHORITE_KEYS", value_name = "FILE")]
    keys: Option<PathBuf>,
    /// The server's certificate chain, PEM: HTTPS instead of HTTP. Needs --tls-key.
    #[arg(long, env = "ANCHORITE_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key, PEM.
    #[arg(long, env = "ANCHORITE_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// How the system is told that pools will be read: it may read ahead (system), which is best where they fit memory; must not (random), for
    /// pools beyond memory; or must not, but reads what every search needs at once (searched). Or the server keeps that in memory of its own (resident). Default: as the
    /// pools fit.
    #[arg(long, env = "ANCHORITE_ACCESS", value_enum, default_value_t)]
    access: Reading,
    /// Take jobs that fill the pools (`POST /v1/pools/NAME/ingest`), and keep them in this folder: records, uploads. Made when missing.
    #[arg(long, env = "ANCHORITE_JOBS", value_name = "DIR")]
    jobs: Option<PathBuf>,
    /// The folder below which jobs may name sources; links in it are not followed. Without it, jobs bring their rows along.
    #[arg(long, env = "ANCHORITE_INGEST_ROOT", value_name = "DIR", requires = "jobs")]
    ingest_root: Option<PathBuf>,
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

/// What the system is told.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Reading {
    /// Random where the pools are larger than the memory that is left when the server starts, else system.
    #[default]
    Auto,
    /// Nothing.
    System,
    /// Rows are asked for at random.
    Random,
    /// So they are, and what every search reads is read at once.
    Searched,
    /// What every search reads is copied into memory of the server's own: the fastest answers, where there is memory for it.
    Resident,
}

impl Reading {
    fn options(self, pools: &[(String, PathBuf)]) -> Result<OpenOptions> {
        let access = match self {
            Self::Auto => fitting(pools)?,
            Self::System => Access::System,
            Self::Random => Access::Random,
            Self::Searched => Access::Searched,
            Self::Resident => Access::Resident,
        };
        Ok(OpenOptions { access, ..OpenOptions::default() })
    }
}

fn fitting(pools: &[(String, PathBuf)]) -> Result<Access> {
    let mut all = 0;
    for (_, dir) in pools {
        let files = open::pool(dir)?.info().files;
        // Pictures are read one by one when they are asked for.
        all += files.iter().filter(|(kind, _)| **kind != FileKind::Pictures).map(|(_, size)| size.bytes).sum::<u64>();
    }
    let available = Memory::available();
    let access = Access::fitting(all, available);
    let left = available.map_or_else(|| "an unknown amount".to_owned(), bytes);
    say(&format!("the pools take {} and {left} of memory is left: --access {}", bytes(all), access.name()));
    Ok(access)
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let keys = args.keys.as_deref().map(read_keys).transpose()?;
    refuse_strangers(args.listen, keys.is_some())?;
    let tls = args.tls()?;
    let mut served: Vec<(String, Retriever)> = Vec::new();
    let mut encoder = None;
    let options = args.access.options(&args.pools)?;
    let mut fillings = Vec::new();
    for (name, dir) in &args.pools {
        let pool = Pool::open(dir, &options).with_context(|| format!("open the pool {}", dir.display()))?;
        let encoder = match (&encoder, args.model.model.is_some()) {
            (Some(open), true) => Arc::clone(open),
            _ => Arc::clone(encoder.insert(args.model.open_for(&pool)?)),
        };
        fillings.push(filling(name, dir, &pool, &*encoder, exact(&args.model)));
        served.push((name.clone(), open::retriever(encoder, pool)?));
    }
    if tls.is_none() && !args.listen.ip().is_loopback() {
        say("keys travel in the clear: use --tls-cert and --tls-key, or a proxy that speaks TLS");
    }
    let mut app = App::new(served, Options { keys, ..Options::default() })?.reading(options.access);
    for (name, dir) in &args.pools {
        app = app.refreshing(name, newer(dir.clone(), options))?;
    }
    if let Some(folder) = &args.jobs {
        let options = JobOptions { folder: folder.clone(), sources: args.ingest_root.clone() };
        app = app.filling(&options, fillings)?;
    }
    let scheme = if tls.is_some() { "https" } else { "http" };
    listen(app, args.listen, tls, |address| line(&format!("listening on {scheme}://{address}/")))
}

impl Args {
    fn tls(&self) -> Result<Option<Tls>> {
        let (Some(cert), Some(key)) = (&self.tls_cert, &self.tls_key) else { return Ok(None) };
        let read = |path: &Path| fs::read(path).with_context(|| format!("read {}", path.display()));
        let tls = Tls::from_pem(&read(cert)?, &read(key)?);
        Ok(Some(tls.with_context(|| format!("speak TLS with {} and {}", cert.display(), key.display()))?))
    }
}

fn read_keys(path: &Path) -> Result<Keys> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Keys::parse(&text).with_context(|| format!("read {}", path.display()))
}

/// How jobs fill a pool: as `anchorite ingest` does.
fn filling(name: &str, dir: &Path, pool: &Pool, encoder: &dyn Encode, exact: Option<OpenExact>) -> Filling {
    let (spec, model, folder) = (pool.spec().clone(), encoder.name().to_owned(), dir.to_owned());
    let model = if spec.encoder.starts_with(VECTORS_FROM) { String::new() } else { model };
    let open: OpenWriter = Box::new(move |on_build| {
        let options = WriterOptions { model: model.clone(), on_build: Some(on_build), ..WriterOptions::default() };
        Ok(Box::new(PoolWriter::open(&folder, &spec, &options)?))
    });
    Filling { pool: name.to_owned(), open, exact, rejects: rejects_beside(dir), summary: summary_beside(dir) }
}

/// With `--int8`: how the model itself is opened, so that each job's rows decide whether 8 bits do.
fn exact(model: &ModelArgs) -> Option<OpenExact> {
    let model = model.int8.then(|| model.as_stored())?;
    Some(Box::new(move || Ok(model.open(Use::Ingest).map_err(|e| format!("{e:#}"))?)))
}

/// Without keys, only this machine may ask.
fn refuse_strangers(listen: SocketAddr, has_keys: bool) -> Result<()> {
    if !has_keys && !listen.ip().is_loopback() {
        bail!(
            "{listen} can be reached from other machines, and without keys anybody could ask; give --keys FILE (`anchorite keys add` makes one), or listen on 127.0.0.1"
        );
    }
    Ok(())
}

/// How soon after a change the folder's time may not tell of another one: file systems count in ticks.
const TICKS: Duration = Duration::from_secs(5);

/// Opens a pool's folder anew when it has changed since it was last opened.
fn newer(dir: PathBuf, options: OpenOptions) -> Refresh {
    let seen: Mutex<Option<SystemTime>> = Mutex::new(None);
    Box::new(move |present| {
        let changed = fs::metadata(&dir).and_then(|folder| folder.modified()).ok();
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let settled = changed.is_some_and(|at| at.elapsed().is_ok_and(|age| age > TICKS));
        if settled && *seen == changed {
            return Ok(None);
        }
        let pool = Pool::open(&dir, &options)?;
        *seen = changed.filter(|_| settled);
        Ok((pool.status().generation > present).then(|| Arc::new(pool) as Arc<dyn PairStore>))
    })
}

/// Serves `pools` until a signal; `ready` is told the address once the socket listens.
pub(crate) fn serve(pools: Vec<(String, Retriever)>, address: SocketAddr, ready: impl FnOnce(SocketAddr)) -> Result<Exit> {
    listen(App::new(pools, Options::default())?, address, None, ready)
}

fn listen(app: App, address: SocketAddr, tls: Option<Tls>, ready: impl FnOnce(SocketAddr)) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the async runtime")?;
    runtime.block_on(async {
        let server = Server::bind(address).await?;
        let server = if let Some(tls) = tls { server.with_tls(tls) } else { server };
        // Before anybody is told that it listens: who is told may ask it to stop.
        let mut signals = Signals::listen()?;
        ready(server.local_addr());
        let drained = server.serve(Arc::new(app), async move { signals.next().await }).await;
        say(&format!("stopped: {drained:?}"));
        anyhow::Ok(())
    })?;
    Ok(Exit::Done)
}
