//! Recall, speed, build and open times of a pool made from ready vectors; not a test, not shipped.
//!
//! usage: `measure DATA_DIR POOL_DIR`, where DATA_DIR has `base.npy`, `{image,text}_queries.npy` (float32) and
//! `{image,text}_truth.npy` (int32). Builds the pool when POOL_DIR is missing. One thread: `RAYON_NUM_THREADS=1`.
#![expect(clippy::print_stdout, reason = "a report is what it is for")]

use std::{error::Error, fs, path::Path, time::Instant};

use anchorite_index::{
    Cancel, ContentHash, Effort, Key, Pair, PairSink, PairStore, Query, Side, SourceRef, Spec,
    pool::{OpenOptions, Pool, PoolWriter, WriterOptions, inspect},
};

type Out<T> = Result<T, Box<dyn Error>>;

/// Values and row width of a little-endian 4-byte npy file.
fn npy<T>(path: &Path, from: fn([u8; 4]) -> T) -> Out<(Vec<T>, usize)> {
    let bytes = fs::read(path)?;
    let header_len = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..10 + header_len])?;
    let shape = header.split("'shape': (").nth(1).and_then(|s| s.split(')').next()).ok_or("no shape")?;
    let width = shape.split(',').filter_map(|n| n.trim().parse::<usize>().ok()).nth(1).ok_or("not a matrix")?;
    let values = bytes[10 + header_len..].chunks_exact(4).map(|b| from([b[0], b[1], b[2], b[3]])).collect();
    Ok((values, width))
}

fn build(data: &Path, pool: &Path) -> Out<()> {
    let (base, dim) = npy(&data.join("base.npy"), f32::from_le_bytes)?;
    let started = Instant::now();
    let mut writer = PoolWriter::open(pool, &Spec { encoder: "measure".into(), dim }, &WriterOptions::default())?;
    let rows: Vec<&[f32]> = base.chunks(dim).collect();
    for (batch, chunk) in rows.chunks(1000).enumerate() {
        let pair = |(i, v): (usize, &&[f32])| -> Out<Pair> {
            let row = batch * 1000 + i;
            Ok(Pair {
                key: Key::new(format!("row-{row}"))?,
                source: SourceRef { file: "base.npy".into(), row: row as u64 },
                content: ContentHash([0; 32]),
                image: Some(v.to_vec()),
                text: None,
                caption: Some(format!("caption of row {row}")),
                fields: Default::default(),
                picture: None,
            })
        };
        let pairs = chunk.iter().enumerate().map(pair).collect::<Out<Vec<_>>>()?;
        writer.append(&pairs)?;
    }
    println!("append: {:.2} s for {} rows", started.elapsed().as_secs_f64(), rows.len());
    let started = Instant::now();
    writer.commit(&Cancel::default())?;
    println!("commit (graph build included): {:.2} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Seconds of processor time all threads have had: what a shared machine cannot blur.
fn on_processor() -> Out<f64> {
    let mut total = 0.0;
    for task in fs::read_dir("/proc/self/task")? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        total += text.split_whitespace().next().ok_or("empty")?.parse::<f64>()? / 1e9;
    }
    Ok(total)
}

fn resident(what: &str) -> Out<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|l| l.starts_with(what)).ok_or("no such line")?;
    Ok(line.split_whitespace().nth(1).ok_or("no number")?.parse()?)
}

fn main() -> Out<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let (data, dir) = (Path::new(&arguments[1]), Path::new(&arguments[2]));
    if !dir.exists() {
        build(data, dir)?;
        println!("{:?}", inspect(dir)?);
        return Ok(());
    }
    let before = resident("RssAnon")?;
    let started = Instant::now();
    let pool = Pool::open(dir, &OpenOptions::default())?;
    let opened = started.elapsed();
    println!("open: {:.3} ms; RssAnon {before} -> {} KiB", opened.as_secs_f64() * 1e3, resident("RssAnon")?);
    for modality in ["image", "text"] {
        let (queries, dim) = npy(&data.join(format!("{modality}_queries.npy")), f32::from_le_bytes)?;
        let (truth, width) = npy(&data.join(format!("{modality}_truth.npy")), i32::from_le_bytes)?;
        for effort in [Effort::Fast, Effort::Normal, Effort::High, Effort::Exact] {
            let query = |v: &[f32]| Query { side: Side::Image, vector: v.to_vec(), k: 10, effort };
            let asked: Vec<Query> = queries.chunks(dim).map(query).collect();
            let (mut best, mut found) = (f64::MAX, 0);
            let rounds = if effort == Effort::Exact { 1 } else { 5 };
            for _ in 0..rounds {
                let started = on_processor()?;
                found = 0;
                for (query, truth) in asked.iter().zip(truth.chunks(width)) {
                    let answer = pool.search(std::slice::from_ref(query), &Cancel::default())?;
                    found += answer[0].hits.iter().filter(|h| truth[..10].contains(&(h.row.0 as i32))).count();
                }
                best = best.min(on_processor()? - started);
            }
            let recall = found as f64 / (asked.len() * 10) as f64;
            println!("{modality} {effort:?}: recall@10 {recall:.4}, {:.0} queries per CPU-second", asked.len() as f64 / best);
            if effort == Effort::Exact {
                let (started, clock) = (on_processor()?, Instant::now());
                pool.search(&asked, &Cancel::default())?;
                let (spent, wall) = (on_processor()? - started, clock.elapsed().as_secs_f64());
                let count = asked.len() as f64;
                println!(
                    "{modality} Exact, all at once: {:.0} queries per CPU-second, {:.0} per second",
                    count / spent,
                    count / wall
                );
            }
        }
    }
    println!("RssAnon after searching {} KiB", resident("RssAnon")?);
    Ok(())
}
