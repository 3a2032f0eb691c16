//! The bundled data end to end as a user runs it, graph recall on its pool, and graph recall, opening and memory on 100,000
//! ready-made vectors of 512 values.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anchorite_index::{
    Cancel, ContentHash, Effort, Key, Pair, PairSink, PairStore, Parts, Query, RowId, Side, SourceRef, Spec,
    pool::{OpenOptions, Pool, PoolWriter, WriterOptions},
};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    clip_like::{DIM, World},
    figure::{Figure, Sheet},
    process,
    program::Program,
};

const SEED: u64 = 7;
const K: usize = 10;
/// Rows appended at once.
const BATCH: usize = 1_000;

/// All figures of this benchmark.
pub(crate) fn run(cache: &Path, quick: bool) -> Result<Vec<Figure>> {
    let mut sheet = Sheet::default();
    let pool = cold_demo(cache, &mut sheet)?;
    demo_graph(&pool, &mut sheet)?;
    ready_vectors(cache, if quick { 5_000 } else { 100_000 }, &mut sheet)?;
    Ok(sheet.into_figures())
}

/// `anchorite demo --check` with an empty cache folder: what the first start costs. Returns the pool it made.
fn cold_demo(cache: &Path, sheet: &mut Sheet) -> Result<PathBuf> {
    let folder = std::path::absolute(cache)?.join("cold");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    let mut check = Program::built()?.command();
    check.env("ANCHORITE_CACHE", &folder).env_remove("ORT_DYLIB_PATH");
    let dir = folder.join("demo.pool");
    check.args(["demo", "--check", "--json", "--pool"]).arg(&dir);
    let start = Instant::now();
    let output = check.output()?;
    let seconds = start.elapsed().as_secs_f64();
    ensure!(output.status.success(), "demo --check failed: {}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout).context("demo --check --json prints JSON")?;
    demo_figures(&said, seconds, sheet)?;
    Ok(dir)
}

fn demo_figures(said: &Value, seconds: f64, sheet: &mut Sheet) -> Result<()> {
    let number = |value: &Value, name: &str| value[name].as_f64().with_context(|| format!("no {name} in {value}"));
    let rows = number(said, "rows")?;
    let data = format!("{rows} bundled pairs, empty cache");
    let check = Figure::new("demo --check, after the build", seconds, "s", &data).goal("under 60 s", seconds < 60.0);
    sheet.add(check);
    for stage in said["stages"].as_array().context("stages")? {
        let name = stage["stage"].as_str().context("a stage has a name")?;
        sheet.add(Figure::new(format!("demo stage {name}: time"), number(stage, "seconds")?, "s", &data));
        sheet.add(Figure::new(
            format!("demo stage {name}: peak memory so far"),
            number(stage, "peak_bytes")? / MIB,
            "MiB",
            &data,
        ));
    }
    sheet.add(Figure::new("demo ingest", number(said, "pictures_per_second")?, "pictures/s", &data));
    let held_out = format!("{} held-out captions against {rows} pictures", said["held_out"]);
    let recall = Figure::new("text-to-image recall@10", number(said, "recall_at_10")?, "", held_out);
    sheet.add(recall.against("chance", number(said, "chance")?));
    Ok(())
}

const MIB: f64 = 1_048_576.0;

/// Graph against exact search on the demo pool: pictures as questions (each finds itself too), and captions against pictures.
fn demo_graph(dir: &Path, sheet: &mut Sheet) -> Result<()> {
    let pool = Pool::open(dir, &OpenOptions::default())?;
    let rows = pool.status().positions;
    let sample: Vec<RowId> = (0..rows).step_by((rows / 500).max(1) as usize).map(RowId).collect();
    let records = pool.get(&sample, Parts { vectors: true, picture: false })?;
    let of = |side: Side| -> Vec<Vec<f32>> {
        let pick = |r: &anchorite_index::Record| if side == Side::Image { r.image.clone() } else { r.text.clone() };
        records.iter().flatten().filter_map(pick).collect()
    };
    for (asked, side) in [("pictures", Side::Image), ("captions", Side::Text)] {
        graph_figures(&pool, &of(side), &format!("demo pool, {asked} against pictures"), None, sheet)?;
    }
    Ok(())
}

/// 100,000 CLIP-like vectors: recall, queries a second on one thread, build, open, memory.
fn ready_vectors(cache: &Path, n: usize, sheet: &mut Sheet) -> Result<()> {
    let dir = std::path::absolute(cache)?.join(format!("clip-like-{n}.pool"));
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    let world = World::new(SEED);
    let data = format!("{n} x {DIM} CLIP-like");
    let start = Instant::now();
    fill(&dir, DIM, &world.images(n, 1), &[], &WriterOptions::default())?;
    sheet.add(Figure::new("append, build and commit (one side)", start.elapsed().as_secs_f64(), "s", &data).seed(SEED));
    let pool = Pool::open(&dir, &OpenOptions::default())?;
    for (asked, vectors) in [("image queries", world.images(1_000, 2)), ("text queries", world.texts(1_000, 3))] {
        let questions: Vec<Vec<f32>> = vectors.chunks_exact(DIM).map(<[f32]>::to_vec).collect();
        graph_figures(&pool, &questions, &format!("{data}, {asked}"), Some(SEED), sheet)?;
    }
    drop(pool);
    opening(&dir, &data, sheet)
}

/// A pool in `dir` with these rows of `dim` values as images, and as many as texts where there are any.
pub(crate) fn fill(dir: &Path, dim: usize, vectors: &[f32], texts: &[f32], options: &WriterOptions) -> Result<()> {
    let spec = Spec { encoder: "clip-like".to_owned(), dim };
    let mut writer = PoolWriter::open(dir, &spec, options)?;
    for (block, rows) in vectors.chunks(BATCH * dim).enumerate() {
        let numbered = rows.chunks_exact(dim).zip((block * BATCH) as u64..);
        let text = |row: u64| texts.chunks_exact(dim).nth(row as usize).map(<[f32]>::to_vec);
        let pairs = numbered.map(|(v, row)| Ok(Pair { text: text(row), ..pair(row, v)? })).collect::<Result<Vec<_>>>()?;
        writer.append(&pairs)?;
    }
    writer.commit(&Cancel::default())?;
    Ok(())
}

fn pair(row: u64, vector: &[f32]) -> Result<Pair> {
    Ok(Pair {
        key: Key::new(format!("row-{row}"))?,
        source: SourceRef { file: "clip-like".to_owned(), row },
        content: ContentHash([0; 32]),
        image: Some(vector.to_vec()),
        text: None,
        caption: None,
        fields: BTreeMap::new(),
        picture: None,
    })
}

/// Recall@10 of each effort against exact answers, and queries a second on this one thread, exact search as the peer.
fn graph_figures(pool: &Pool, questions: &[Vec<f32>], data: &str, seed: Option<u64>, sheet: &mut Sheet) -> Result<()> {
    let data = format!("{data}, {} queries", questions.len());
    let (exact, exact_rate) = answers(pool, questions, Effort::Exact)?;
    for effort in [Effort::Fast, Effort::Normal, Effort::High] {
        let (found, rate) = answers(pool, questions, effort)?;
        let recall =
            Figure::new(format!("recall@10, effort {effort:?}"), overlap(&found, &exact), "", &data).against("exact", 1.0);
        let recall = if effort == Effort::Normal && !data.contains("text queries") && !data.contains("captions") {
            let met = recall.value >= 0.98;
            recall.goal("0.98 (the promise of Normal)", met)
        } else {
            recall
        };
        sheet.add(Figure { seed, ..recall });
        let rate = Figure::new(format!("queries/s, one at a time, effort {effort:?}"), rate, "1/s", &data);
        sheet.add(Figure { seed, ..rate.against("exact, all cores", exact_rate) });
    }
    Ok(())
}

/// Rows found for each question, asked one at a time, and questions a second (best of three rounds).
fn answers(pool: &Pool, questions: &[Vec<f32>], effort: Effort) -> Result<(Vec<Vec<RowId>>, f64)> {
    let cancel = Cancel::default();
    let mut best = f64::INFINITY;
    let mut rows = Vec::new();
    for _ in 0..if effort == Effort::Exact { 1 } else { 3 } {
        rows.clear();
        let start = Instant::now();
        for vector in questions {
            let query = Query::new(Side::Image, vector.clone(), K, effort);
            let answer = pool.search(&[query], &cancel)?.pop().context("one query has one answer")?;
            rows.push(answer.hits.iter().map(|h| h.row).collect());
        }
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok((rows, questions.len() as f64 / best))
}

fn overlap(found: &[Vec<RowId>], exact: &[Vec<RowId>]) -> f64 {
    let shared = found.iter().zip(exact).map(|(f, e)| f.iter().filter(|row| e.contains(row)).count()).sum::<usize>();
    shared as f64 / exact.iter().map(Vec::len).sum::<usize>().max(1) as f64
}

/// Opens the pool in a process of its own, so that nothing else is counted.
fn opening(dir: &Path, data: &str, sheet: &mut Sheet) -> Result<()> {
    let mut millis = Vec::new();
    let mut anonymous = Vec::new();
    for _ in 0..5 {
        let output = Command::new(std::env::current_exe()?).arg("demo").arg("--open-pool").arg(dir).output()?;
        ensure!(output.status.success(), "opening failed: {}", String::from_utf8_lossy(&output.stderr));
        let said: Value = serde_json::from_slice(&output.stdout)?;
        millis.push(said["millis"].as_f64().context("millis")?);
        anonymous.push(said["anonymous"].as_f64().context("anonymous")?);
    }
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    sheet.add(Figure::new("open a pool (median of 5 processes)", median(&mut millis), "ms", data));
    sheet.add(Figure::new("anonymous memory that opening adds", median(&mut anonymous) / MIB, "MiB", data));
    Ok(())
}

/// The child's part of [`opening`].
#[expect(clippy::print_stdout, reason = "the parent reads this line")]
pub(crate) fn open_pool(dir: &Path) -> Result<()> {
    let before = process::memory("RssAnon")?;
    let start = Instant::now();
    let pool = Pool::open(dir, &OpenOptions::default())?;
    let millis = start.elapsed().as_secs_f64() * 1e3;
    let anonymous = process::memory("RssAnon")?.saturating_sub(before);
    println!("{}", serde_json::json!({ "millis": millis, "anonymous": anonymous, "rows": pool.status().rows }));
    Ok(())
}
