//! What a training loop and its preparation ask for: anchors with their pictures, and manifests.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anchorite_anchors::{Limits, Policy, Protected, Question, Questions, Surroundings, curate, manifest};
use anchorite_index::Cancel;
use anyhow::{Context, Result, ensure};
use serde_json::{Value as Json, json};

use super::{
    child::Running,
    load::{Connection, post},
    rigs::{self, Rig},
};
use crate::{
    clip_like::DIM,
    figure::{Figure, Sheet},
    peers::Python,
};

const SEED: u64 = 7;
/// Queries of a training step, and anchors of each.
const STEP: usize = 512;
const ANCHORS: usize = 4;

fn policy(effort: &str) -> Json {
    json!({"directions": [{"from": "image", "to": "image"}], "effort": effort, "select": {"k": ANCHORS}})
}

/// Steps of 512 queries with four anchors each, pictures included.
pub(super) fn anchors(rig: &Rig, sheet: &mut Sheet) -> Result<()> {
    let server = Running::of(&rig.pool, None)?;
    let steps = if rig.quick { 3 } else { 10 };
    for effort in ["normal", "exact"] {
        let queries: Vec<Json> =
            rig.queries.chunks_exact(DIM).take(STEP).map(|v| json!({"embedding": rigs::base64(v)})).collect();
        let body = json!({"queries": queries, "policy": policy(effort), "include": ["image"]});
        let request = String::from_utf8(post("/v1/anchors", &body))?;
        let request = request.replacen("\r\n", "\r\naccept: application/vnd.apache.arrow.stream\r\n", 1);
        let mut connection = Connection::open(server.address)?;
        let (mut bytes, mut firsts) = (0, Vec::new());
        let start = Instant::now();
        for _ in 0..steps {
            let (answer, first) = connection.ask_timed(request.as_bytes())?;
            ensure!(
                answer.len() > STEP * ANCHORS * rigs::PICTURE_BYTES / 2,
                "an answer of {} bytes has no pictures",
                answer.len()
            );
            bytes += answer.len();
            firsts.push(first);
        }
        let seconds = start.elapsed().as_secs_f64();
        firsts.sort_unstable();
        let data = format!("{}, {STEP} queries x {ANCHORS}, effort {effort}, one connection", rig.data);
        sheet.add(Figure::new("POST /v1/anchors with pictures", bytes as f64 / seconds / 1e6, "MB/s", &data).seed(SEED));
        sheet.add(Figure::new("POST /v1/anchors, a whole answer", seconds / f64::from(steps) * 1e3, "ms", &data).seed(SEED));
        let first = firsts[firsts.len() / 2].as_secs_f64() * 1e3;
        sheet.add(Figure::new("POST /v1/anchors, to the first batch, median", first, "ms", &data).seed(SEED));
    }
    iterator(rig, &server, sheet)
}

/// The Python iterator beside a step that takes 100 ms: how long a step waits for its anchors.
fn iterator(rig: &Rig, server: &Running, sheet: &mut Sheet) -> Result<()> {
    let python = Python::with(&rig.cache, "iterator", &["requests==2.34.2", "pyarrow==26.0.1", "numpy"])?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/iterate_anchors.py");
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../python");
    let steps = if rig.quick { "20" } else { "50" };
    let package = package.to_str().context("the package's path is not UTF-8")?;
    let files = rig.written()?;
    let url = format!("http://{}", server.address);
    let said = python.run(&script, &[package, &url, &files, &DIM.to_string(), steps, &policy("normal").to_string()])?;
    let said: Json = serde_json::from_str(&said)?;
    let number = |name: &str| said[name].as_f64().with_context(|| format!("no {name} in {said}"));
    let data = format!("{}, {STEP} queries x {ANCHORS} with pictures a step of 100 ms, prefetch 2", rig.data);
    let share = number("seconds")? / number("steps")? / 0.1;
    let figure = Figure::new("Python iterator, time a step", number("seconds")? / number("steps")? * 1e3, "ms", &data);
    sheet.add(figure.against("the step alone", 100.0).goal("keeps up: within 5 %", share <= 1.05).seed(SEED));
    sheet.add(Figure::new("Python iterator, wait for anchors, median", number("median_wait_ms")?, "ms", &data).seed(SEED));
    Ok(())
}

/// Anchors of many queries by exact search, as a manifest, against the product that such a search is made of.
pub(super) fn manifest(rig: &Rig, sheet: &mut Sheet) -> Result<()> {
    let asked = if rig.quick { 2_000 } else { 10_000 };
    let vectors = rig.world.images(asked, 4);
    let question = |(i, v): (usize, &[f32])| Question { id: i.to_string(), class: None, image: Some(v.to_vec()), text: None };
    let questions = Questions { list: vectors.chunks_exact(DIM).enumerate().map(question).collect(), ..Questions::default() };
    let pool = rig.open()?;
    let policy = Policy::from_json(&policy("exact").to_string())?;
    let (limits, cancel) = (Limits::default(), Cancel::default());
    let start = Instant::now();
    let surroundings = Surroundings { limits: &limits, cancel: &cancel, told: &|_, _| {} };
    let curated = curate(&pool, &policy, &questions, &Protected::default(), surroundings)?;
    let header = manifest::Header::new(&pool, &policy, &questions, &Protected::default(), &curated);
    manifest::write(&rig.cache.join("serve.manifest.parquet"), &header, &questions, &curated)?;
    let took = start.elapsed();
    ensure!(curated.report.found as usize > asked, "too few anchors: {}", curated.report.found);
    drop(pool);
    let theirs = products(rig, &vectors)?;
    let rows = rig.base.len() / DIM;
    let data = format!(
        "{rows} x {DIM} CLIP-like, {asked} queries x {ANCHORS}, near duplicates left out, {} threads",
        rayon::current_num_threads()
    );
    let work = 2.0 * rows as f64 * DIM as f64 * asked as f64 / 1e9;
    let rate = |took: Duration| work / took.as_secs_f64();
    for (name, peer, goal) in [
        ("product", "NumPy's matrix product alone", Some("0.8 of the product")),
        ("flat", "faiss IndexFlatIP, search alone", None),
    ] {
        let Some(seconds) = theirs[name].as_f64() else { continue };
        let figure =
            Figure::new("exact manifest, curated and written", rate(took), "GFLOP/s", &data).against(peer, work / seconds);
        sheet.add(match goal {
            Some(goal) => figure.goal(goal, rate(took) >= 0.8 * work / seconds).seed(SEED),
            None => figure.seed(SEED),
        });
    }
    sheet.add(Figure::new("exact manifest, curated and written", took.as_secs_f64(), "s", &data).seed(SEED));
    Ok(())
}

fn products(rig: &Rig, queries: &[f32]) -> Result<Json> {
    let data = rig.cache.join("serve-manifest-data");
    std::fs::create_dir_all(&data)?;
    for (name, values) in [("base", rig.base.as_slice()), ("queries", queries)] {
        std::fs::write(data.join(format!("{name}.f32")), values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())?;
    }
    let python = Python::with(&rig.cache, "exact", &["numpy", "faiss-cpu==1.15.1"])?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/peers_exact.py");
    let data = data.to_str().context("the cache folder's name is not UTF-8")?;
    let said = python.run(&script, &[data, &DIM.to_string(), "1", &rayon::current_num_threads().to_string()])?;
    Ok(serde_json::from_str(&said)?)
}
