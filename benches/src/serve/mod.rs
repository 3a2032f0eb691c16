//! The server over loopback: searches a second and their latency, against the index in process, clip-retrieval's Flask back end and
//! milvus-lite; anchors for training; filters; words from the first byte to the last; exact manifests.
//!
//! | file | what |
//! |---|---|
//! | `load.rs` | requests made and timed |
//! | `child.rs` | the server, a process of its own |
//! | `rigs.rs` | pools and questions |
//! | `training.rs` | anchors with pictures, the Python iterator, exact manifests |
//!
//! Server and load share the machine's cores.

pub(crate) mod child;
mod load;
mod rigs;
mod training;

use std::{net::SocketAddr, path::Path, time::Duration};

use anchorite_index::{Cancel, Effort, PairStore, Query, Side, pool::Pool};
use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use serde_json::{Value as Json, json};

use crate::{
    clip_like::{DIM, World},
    figure::{Figure, Sheet},
    peers::Python,
    process,
};
use child::{POOL, Running};
use load::{Load, ask, drive, post};
use rigs::Rig;

const SEED: u64 = 7;
const K: usize = 10;
/// Queries in one request where they are batched: the server's most.
const BATCH: usize = 256;
/// What the back end of clip-retrieval needs to run, its model left out.
const FLASK: [&str; 13] = [
    "faiss-cpu==1.15.1",
    "numpy",
    "flask==3.1.3",
    "flask_restful==0.3.10",
    "flask_cors==6.0.5",
    "pandas==3.1.1",
    "pyarrow==26.0.1",
    "h5py==3.16.0",
    "tqdm",
    "prometheus_client",
    "pillow",
    "fsspec",
    "fire",
];

type Part = fn(&Rig, &mut Sheet) -> Result<()>;

/// The parts, each of at most three minutes.
const PARTS: [(&str, Part); 7] = [
    ("search", searches),
    ("knn", knn),
    ("milvus", milvus),
    ("filters", filters),
    ("words", words),
    ("anchors", training::anchors),
    ("manifest", training::manifest),
];

/// All figures of this benchmark, or of one of its parts.
pub(crate) fn run(cache: &Path, quick: bool, part: Option<&str>) -> Result<Vec<Figure>> {
    let parts: Vec<_> = PARTS.iter().filter(|(name, _)| part.is_none_or(|part| part == *name)).collect();
    ensure!(!parts.is_empty(), "serve has no such part; there are {}", PARTS.map(|(name, _)| name).join(", "));
    let rig = Rig::of(cache, quick)?;
    let mut sheet = Sheet::default();
    parts.into_iter().try_for_each(|(_, part)| part(&rig, &mut sheet))?;
    Ok(sheet.into_figures())
}

fn query(vector: &[f32]) -> Query {
    Query { asked: Some(Side::Image), ..Query::new(Side::Image, vector.to_vec(), K, Effort::Normal) }
}

/// Searches with ready embeddings: ours at several numbers of connections, ours in process, and the peers.
fn searches(rig: &Rig, sheet: &mut Sheet) -> Result<()> {
    let server = Running::of(&rig.pool, None)?;
    let requests = alone(rig);
    let queries: Vec<Query> = rig.queries.chunks_exact(DIM).map(query).collect();
    let pool = rig.open()?;
    let in_process = alone_in_process(&pool, &queries, rig.length)?;
    for connections in [1, 8, 64] {
        let load = drive(server.address, &requests, connections, rig.length)?;
        let data = format!("{}, k = {K}, {connections} connections", rig.data);
        let rate = Figure::new("HTTP searches, JSON numbers", load.rate, "1/s", &data);
        sheet.add(rate.against("the index in process, one query a call, all threads", in_process).seed(SEED));
        latency(sheet, "HTTP search", &load, &data);
    }
    batched(rig, &server, &pool, &queries, sheet)
}

/// Each query as a request of its own, which says that its vector is a picture's, as `query` does.
fn alone(rig: &Rig) -> Vec<Vec<u8>> {
    let request = |vector: &[f32]| post("/v1/search", &json!({"embedding": vector, "from": "image", "k": K}));
    rig.queries.chunks_exact(DIM).map(request).collect()
}

fn latency(sheet: &mut Sheet, name: &str, load: &Load, data: &str) {
    for (share, label) in [(0.5, "p50"), (0.95, "p95"), (0.99, "p99")] {
        sheet.add(Figure::new(format!("{name}, {label}"), load.percentile(share), "ms", data).seed(SEED));
    }
}

/// Queries a second of the index itself, each a call of its own, on every thread.
fn alone_in_process(pool: &Pool, queries: &[Query], length: Duration) -> Result<f64> {
    rounds(length, queries.len(), || {
        let one = |query: &Query| pool.search(std::slice::from_ref(query), &Cancel::default()).map(drop);
        Ok(queries.par_iter().try_for_each(one)?)
    })
}

/// Items a second of work that is repeated for so long.
fn rounds(length: Duration, items: usize, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let start = std::time::Instant::now();
    let mut done = 0;
    while start.elapsed() < length {
        work()?;
        done += items;
    }
    Ok(done as f64 / start.elapsed().as_secs_f64())
}

/// Many queries a request, against as many a call.
fn batched(rig: &Rig, server: &Running, pool: &Pool, queries: &[Query], sheet: &mut Sheet) -> Result<()> {
    let in_process = rounds(rig.length, queries.len(), || {
        Ok(queries.par_chunks(BATCH).try_for_each(|part| pool.search(part, &Cancel::default()).map(drop))?)
    })?;
    let connections = rayon::current_num_threads();
    let data = format!("{}, k = {K}, {BATCH} queries a request, {connections} connections", rig.data);
    for (form, base64) in [("JSON numbers", false), ("base64", true)] {
        let vector = |v: &[f32]| if base64 { json!({"embedding": rigs::base64(v)}) } else { json!({"embedding": v}) };
        let request = |part: &[f32]| {
            let queries: Vec<Json> = part.chunks_exact(DIM).map(vector).collect();
            post("/v1/search", &json!({"queries": queries, "from": "image", "k": K}))
        };
        let requests: Vec<Vec<u8>> = rig.queries.chunks_exact(BATCH * DIM).map(request).collect();
        let load = drive(server.address, &requests, connections, rig.length)?;
        let rate = load.rate * BATCH as f64;
        let figure = Figure::new(format!("HTTP queries, batched, {form}"), rate, "1/s", &data);
        let figure = figure.against("the index in process, batched, all threads", in_process).seed(SEED);
        sheet.add(if base64 { figure.goal("0.7 of the index in process", rate >= 0.7 * in_process) } else { figure });
    }
    Ok(())
}

/// The same request to clip-retrieval's back end and to our drop-in route, of the same columns: no pictures, since its metadata has none.
fn knn(rig: &Rig, sheet: &mut Sheet) -> Result<()> {
    let server = Running::of(&rig.plain()?, None)?;
    let files = rig.written()?;
    let body = |vector: &[f32]| json!({"embedding_input": vector, "modality": "image", "num_images": K, "indice_name": POOL});
    let requests: Vec<Vec<u8>> = rig.queries.chunks_exact(DIM).map(|v| post("/knn-service", &body(v))).collect();
    let truth = rig.truth()?;
    let python = Python::with(&rig.cache, "clip-back", &FLASK)?;
    python.add_without_dependencies(&["clip-retrieval==2.45.0"])?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/peer_clip_back.py");
    let flask = Running::saying(python.start(&script, &[&files, &DIM.to_string(), POOL])?)?;
    for connections in [1, 8] {
        let ours = drive(server.address, &requests, connections, rig.length)?;
        let theirs = drive(flask.address, &requests, connections, rig.length)?;
        let data = format!("{}, no pictures, num_images = {K}, {connections} connections", rig.vectors);
        let figure = Figure::new("POST /knn-service", ours.rate, "1/s", &data)
            .against("clip-retrieval 2.45.0 (Flask, faiss HNSW32)", theirs.rate);
        sheet.add(figure.goal("20 times theirs, one connection", ours.rate >= 20.0 * theirs.rate).seed(SEED));
        let median = Figure::new("POST /knn-service, p50", ours.percentile(0.5), "ms", &data);
        sheet.add(median.against("clip-retrieval 2.45.0", theirs.percentile(0.5)).seed(SEED));
    }
    let recall = |address| recall_of(address, &requests[..truth.len()], &truth, |answer| answer);
    let figure = Figure::new("POST /knn-service, recall@10", recall(server.address)?, "", &rig.vectors);
    sheet.add(figure.against("clip-retrieval 2.45.0", recall(flask.address)?).seed(SEED));
    drop((flask, server));
    let server = Running::of(&rig.pool, None)?;
    let ours = drive(server.address, &requests, 1, rig.length)?;
    let data = format!("{}, num_images = {K}, 1 connection", rig.data);
    sheet.add(Figure::new("POST /knn-service with pictures", ours.rate, "1/s", &data).seed(SEED));
    latency(sheet, "POST /knn-service with pictures", &ours, &data);
    Ok(())
}

/// Single queries of milvus-lite.
fn milvus(rig: &Rig, sheet: &mut Sheet) -> Result<()> {
    let (server, truth, files) = (Running::of(&rig.pool, None)?, rig.truth()?, rig.written()?);
    let python = Python::with(&rig.cache, "milvus", &["milvus-lite==3.2.2", "pymilvus==3.0.2", "numpy"])?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/peer_milvus.py");
    let said = python.run(&script, &[&files, &DIM.to_string(), &K.to_string(), &rig.length.as_secs_f64().to_string()])?;
    let said: Json = serde_json::from_str(said.lines().last().context("it printed nothing")?)?;
    let number = |name: &str| said[name].as_f64().with_context(|| format!("no {name} in {said}"));
    let requests = alone(rig);
    let ours = drive(server.address, &requests, 1, rig.length)?;
    let peer = format!(
        "milvus-lite {} ({}), its Python client",
        said["version"].as_str().unwrap_or("?"),
        said["index"].as_str().unwrap_or("?")
    );
    let figure = Figure::new("single queries, one client", ours.rate, "1/s", &rig.data).against(&peer, number("rate")?);
    sheet.add(figure.seed(SEED));
    sheet.add(
        Figure::new("single query, p50", ours.percentile(0.5), "ms", &rig.data).against(&peer, number("p50_ms")?).seed(SEED),
    );
    let recall = recall_of(server.address, &requests[..truth.len()], &truth, |answer| &answer["results"][0]["hits"])?;
    let theirs: Vec<Vec<u64>> = serde_json::from_value(said["rows"].clone())?;
    sheet.add(Figure::new("single query, recall@10", recall, "", &rig.data).against(&peer, overlap(&theirs, &truth)).seed(SEED));
    Ok(())
}

/// Share of the true hits among those answered; `hits` finds the list of hits in an answer.
fn recall_of(server: SocketAddr, requests: &[Vec<u8>], truth: &[Vec<u64>], hits: impl Fn(&Json) -> &Json) -> Result<f64> {
    let rows = |request: &Vec<u8>| -> Result<Vec<u64>> {
        let answer = ask(server, request)?;
        let hits = hits(&answer).as_array().context("hits")?;
        Ok(hits.iter().filter_map(|hit| hit["id"].as_u64()).collect())
    };
    let found = requests.iter().map(rows).collect::<Result<Vec<_>>>()?;
    Ok(overlap(&found, truth))
}

fn overlap(found: &[Vec<u64>], truth: &[Vec<u64>]) -> f64 {
    let shared: usize = found.iter().zip(truth).map(|(f, t)| f.iter().filter(|row| t.contains(row)).count()).sum();
    shared as f64 / truth.iter().map(Vec::len).sum::<usize>().max(1) as f64
}

/// Filters that know nothing of the query, over HTTP.
fn filters(rig: &Rig, sheet: &mut Sheet) -> Result<()> {
    let server = Running::of(&rig.pool, None)?;
    for share in [500, 100, 10, 1] {
        let request = |effort: &str| {
            let one = |v: &[f32]| {
                let filter = json!({"range": {"field": "random", "lt": share}});
                post("/v1/search", &json!({"embedding": v, "from": "image", "k": K, "filter": filter, "effort": effort}))
            };
            rig.queries.chunks_exact(DIM).take(rig.judged).map(one).collect::<Vec<_>>()
        };
        let rows = |request: &Vec<u8>| -> Result<Vec<u64>> {
            let answer = ask(server.address, request)?;
            Ok(answer["results"][0]["hits"].as_array().context("hits")?.iter().filter_map(|h| h["id"].as_u64()).collect())
        };
        let truth = request("exact").iter().map(rows).collect::<Result<Vec<_>>>()?;
        let requests = request("normal");
        let found = requests.iter().map(rows).collect::<Result<Vec<_>>>()?;
        let data = format!("{}, {} % of pairs match", rig.data, f64::from(share) / 10.0);
        let recall = overlap(&found, &truth);
        sheet.add(
            Figure::new("filtered HTTP search, recall@10", recall, "", &data).against("exact", 1.0).goal("0.95", recall >= 0.95),
        );
        let load = drive(server.address, &requests, 1, rig.length / 2)?;
        latency(sheet, "filtered HTTP search, one connection", &load, &data);
    }
    Ok(())
}

/// Words, end to end: tokens, tower, search, metadata, with the bundled model.
fn words(rig: &Rig, sheet: &mut Sheet) -> Result<()> {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo/model");
    let server = Running::of(&rig.words(&model)?, Some(&model))?;
    let texts = ["a red apple", "a boat on the sea", "two dogs in the snow", "a street at night", "an old map of the town"];
    let request = |text| post("/v1/search", &json!({"text": text, "k": K, "include": ["caption", "fields"]}));
    let requests: Vec<Vec<u8>> = texts.into_iter().map(request).collect();
    drive(server.address, &requests, 1, Duration::from_millis(500))?;
    for clients in [1, 16] {
        let load = drive(server.address, &requests, clients, rig.length)?;
        let data = format!("{} rows, the bundled model, {clients} clients, load {}", rigs::WORD_ROWS, process::load()?);
        latency(sheet, "text query end to end", &load, &data);
        sheet.add(Figure::new("text queries", load.rate, "1/s", &data));
    }
    Ok(())
}
