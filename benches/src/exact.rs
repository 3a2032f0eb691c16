//! Exact search of many queries against the machine's own matrix product (NumPy on OpenBLAS) and against faiss IndexFlatIP.
//!
//! A rate is `2 * rows * dimension * queries` operations over the wall time of the best round. The peers' product is alone, without
//! choosing the best ten; ours chooses them, from f16 rows that it widens first.

use std::{path::Path, time::Instant};

use anchorite_index::{Cancel, Effort, PairStore, Query, Side, pool::Pool};
use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    clip_like::{DIM, World},
    figure::{Figure, Sheet},
    filters::pool_of,
    peers::Python,
};

const SEED: u64 = 7;
const K: usize = 10;
const ROUNDS: usize = 5;

/// All figures of this benchmark.
pub(crate) fn run(cache: &Path, quick: bool) -> Result<Vec<Figure>> {
    let (n, asked) = if quick { (20_000, 256) } else { (100_000, 1_024) };
    let folder = std::path::absolute(cache)?;
    let world = World::new(SEED);
    let base = world.images(n, 1);
    let queries = world.images(asked, 2);
    let pool = pool_of(&folder, &world, &base)?;
    let work = 2.0 * n as f64 * DIM as f64 * asked as f64 / 1e9;
    let ours = work / search(&pool, &queries)?;
    let peers = peers(&folder, (&base, &queries))?;
    let data = format!("{n} x {DIM} CLIP-like, {asked} queries at once, k = {K}, {} threads", rayon::current_num_threads());
    let rate = |name: &str| peers[name].as_f64().map(|seconds| work / seconds);
    let product = rate("product").context("the peer's answer has no product")?;
    let mut sheet = Sheet::default();
    let figure = Figure::new("exact search", ours, "GFLOP/s", &data).against("NumPy's matrix product alone", product);
    sheet.add(figure.goal("0.8 of the product", ours >= 0.8 * product).seed(SEED));
    for (name, peer) in [("top", "NumPy's product and its best ten"), ("flat", "faiss IndexFlatIP")] {
        if let Some(theirs) = rate(name) {
            sheet.add(Figure::new("exact search", ours, "GFLOP/s", &data).against(peer, theirs).seed(SEED));
        }
    }
    Ok(sheet.into_figures())
}

/// Seconds of the best round, all queries in one call.
fn search(pool: &Pool, queries: &[f32]) -> Result<f64> {
    let query = |v: &[f32]| Query::new(Side::Image, v.to_vec(), K, Effort::Exact);
    let queries: Vec<Query> = queries.chunks_exact(DIM).map(query).collect();
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let answers = pool.search(&queries, &Cancel::default())?;
        best = best.min(start.elapsed().as_secs_f64());
        anyhow::ensure!(answers.iter().all(|a| a.hits.len() == K), "an answer is short");
    }
    Ok(best)
}

/// What the peers say, in seconds.
fn peers(folder: &Path, (base, queries): (&[f32], &[f32])) -> Result<Value> {
    let data = folder.join("exact-data");
    std::fs::create_dir_all(&data)?;
    for (name, values) in [("base", base), ("queries", queries)] {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        std::fs::write(data.join(format!("{name}.f32")), bytes)?;
    }
    let python = Python::with(folder, "exact", &["numpy", "faiss-cpu==1.15.1"])?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/peers_exact.py");
    let data = data.to_str().context("the cache folder's name is not UTF-8")?;
    let threads = rayon::current_num_threads().to_string();
    let said = python.run(&script, &[data, &DIM.to_string(), &ROUNDS.to_string(), &threads])?;
    Ok(serde_json::from_str(&said)?)
}
