//! Figures against peers and against the limit: `cargo run --release -p benches -- NAME [--quick] [--write]`.
//!
//! Each benchmark prints one JSON line per figure on stdout (progress on stderr). The peer runs in the same invocation on the same
//! data; what peers need is installed into a cache folder of this program's own. `--write` puts the figures into `benches/RESULTS.md`.
//!
//! | file | subject |
//! |---|---|
//! | `figure.rs` | one figure: value, peer, ratio, goal, data, seed, versions |
//! | `results.rs` | the table in RESULTS.md |
//! | `peers.rs` | the Python environment that peers run in |
//! | `process.rs` | memory of this process |
//! | `program.rs` | the program itself, as its users run it |
//! | `clip_like.rs` | seeded vectors with CLIP's cone, clusters and modality gap |
//! | `parity.rs` | preprocessing, tokens and embeddings against the references |
//! | `demo.rs` | the bundled data end to end, and 100,000 ready-made vectors |
//! | `train/` | training steps against PyTorch eager; whole runs: by heart, from noise, with anchors over HTTP |
//! | `eval.rs` | evaluation against NumPy, captions against transformers |
//! | `embed.rs` | real embeddings: the demo's pairs, WordNet's glosses |
//! | `exact.rs` | exact search against the machine's matrix product |
//! | `filters.rs` | recall and latency of filtered search at each selectivity |
//! | `scale.rs` | pools beyond memory, in many segments, and what larger ones would cost |
//! | `ingest/` | filling a pool: pictures and captions a second, decoding, against open_clip and its loaders |
//! | `serve/` | the server over loopback, against the index in process, clip-retrieval and milvus-lite |
//! | `index.rs` | the index against hnswlib, faiss, ScaNN, usearch and hnsw_rs |
//! | `index/real.rs` | the same on real embeddings |
//! | `index/segments.rs` | one segment against many |
//! | `index/growth.rs` | the same against hnswlib from 100,000 to a million rows; one segment and eight |

mod clip_like;
mod demo;
mod embed;
mod eval;
mod exact;
mod figure;
mod filters;
mod index;
mod ingest;
mod parity;
mod peers;
mod process;
mod program;
mod results;
mod scale;
mod serve;
mod train;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};

use figure::Figure;

/// Which benchmark.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Name {
    /// Preprocessing, tokens and embeddings against their references.
    Parity,
    /// The bundled data end to end, and recall on 100,000 ready-made vectors.
    Demo,
    /// The index against its peers: recall, speed, build, size, opening.
    Index,
    /// The same on real embeddings: the bundled pairs, and the glosses of WordNet.
    Real,
    /// One segment against eight and sixteen.
    Segments,
    /// Filling a pool: pictures and captions a second against open_clip, decoding against its transform.
    Ingest,
    /// The index beside hnswlib as it grows from 100,000 to a million rows, and in eight segments.
    Growth,
    /// Exact search of many queries: against the machine's matrix product.
    Exact,
    /// Evaluation against NumPy, captions against transformers.
    Eval,
    /// Training steps against PyTorch: time and memory.
    Train,
    /// Filtered search: recall and latency at each selectivity.
    Filters,
    /// The server over loopback: searches, filters, words, anchors, exact manifests.
    Serve,
    /// Pools beyond memory, in many segments, and extrapolated to 10^8 and 10^9 pairs.
    Scale,
}

#[derive(Parser, Debug)]
struct Args {
    /// Which benchmark.
    name: Name,
    /// Small data: shows that it runs, not what it reaches.
    #[arg(long)]
    quick: bool,
    /// Rows: for `index` instead of 100,000 (a million takes 8 GiB of memory), for `scale` of its largest pool instead of 300,000.
    #[arg(long)]
    rows_count: Option<usize>,
    /// This part of `serve`, `ingest`, `train` or `growth` alone, as its refusal of another name lists them; its figures take their rows' places in the table.
    #[arg(long)]
    part: Option<String>,
    /// Put the figures into benches/RESULTS.md.
    #[arg(long)]
    write: bool,
    /// For the child process that ingests: the folder with its data.
    #[arg(long, hide = true)]
    ingest_child: Option<PathBuf>,
    /// For the child process that measures opening: open this pool, print what it took, end.
    #[arg(long, hide = true)]
    open_pool: Option<PathBuf>,
    /// For the child process that trains: the case; steps are asked for on standard input.
    #[arg(long, hide = true)]
    train_case: Option<String>,
    /// For the child process with little memory: wait for a line, ask this pool, print what it took, end.
    #[arg(long, hide = true)]
    scale_child: Option<PathBuf>,
    /// For the child process that serves: this pool, until standard input ends.
    #[arg(long, hide = true)]
    serve_child: Option<PathBuf>,
    /// For the child process that serves: the model of its pool.
    #[arg(long, hide = true)]
    serve_model: Option<PathBuf>,
    /// Where peers and generated data are kept.
    #[arg(long, env = "ANCHORITE_BENCH_CACHE", default_value = "target/benches")]
    cache: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    std::fs::create_dir_all(&args.cache).with_context(|| format!("create {}", args.cache.display()))?;
    if let Some(dir) = &args.open_pool {
        return demo::open_pool(dir);
    }
    if let Some(folder) = &args.ingest_child {
        return ingest::child(folder);
    }
    if let Some(case) = &args.train_case {
        return train::child(&args.cache, case);
    }
    if let Some(dir) = &args.scale_child {
        return scale::beyond::in_child(dir);
    }
    if let Some(dir) = &args.serve_child {
        return serve::child::serve(dir, args.serve_model.as_deref());
    }
    let figures: Vec<Figure> = match args.name {
        Name::Parity => parity::run(&args.cache, args.quick)?,
        Name::Demo => demo::run(&args.cache, args.quick)?,
        Name::Index => index::run(&args.cache, args.quick, args.rows_count)?,
        Name::Real => index::real::run(&args.cache, args.quick)?,
        Name::Segments => index::segments::run(&args.cache, args.quick)?,
        Name::Ingest => ingest::run(&args.cache, args.quick, args.part.as_deref())?,
        Name::Growth => index::growth::run(&args.cache, args.quick, args.part.as_deref())?,
        Name::Exact => exact::run(&args.cache, args.quick)?,
        Name::Eval => eval::run(&args.cache, args.quick)?,
        Name::Train => train::run(&args.cache, args.quick, args.part.as_deref())?,
        Name::Filters => filters::run(&args.cache, args.quick)?,
        Name::Serve => serve::run(&args.cache, args.quick, args.part.as_deref())?,
        Name::Scale => scale::run(&args.cache, scale::Options { quick: args.quick, rows: args.rows_count, write: args.write })?,
    };
    if args.write {
        let name = args.name.to_possible_value().expect("no name is skipped");
        let put = if args.part.is_some() { results::merge } else { results::write };
        put(Path::new("benches/RESULTS.md"), name.get_name(), &figures)?;
    }
    Ok(())
}
