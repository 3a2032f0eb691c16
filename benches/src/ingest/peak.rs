//! How much of the machine's matrix product the image tower reaches: ONNX Runtime's own product on shapes that favour it, the tower alone,
//! and ingest from file to pool, the three taking turns in one run on equally many threads.

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{Arc, Barrier},
    thread,
    time::{Duration, Instant},
};

use anchorite_encoder::{
    Encode, Encoder, Pixels, engine,
    image::Preprocess,
    model::ModelOptions,
    runtime::{self, Provider, RuntimeOptions},
    session::{SessionOptions, builder},
};
use anyhow::{Context, Result, ensure};
use ort::{session::Session, value::Tensor};

use super::{Bench, CROP, Files, GFLOP_PER_PICTURE, fill, rate, read_all};
use crate::{
    figure::{Figure, Sheet},
    process::load,
};

/// Rows, inner size, columns of the products: the usual large square; what 32 and 16 pictures of 50 tokens are in the tower's MLP.
const SHAPES: [[usize; 3]; 4] = [[2_048, 2_048, 2_048], [1_600, 768, 3_072], [1_600, 3_072, 768], [800, 768, 3_072]];
/// How long each product is repeated in a turn.
const LONG: Duration = Duration::from_millis(700);
/// Pictures that the tower gets at once, as ingest gives them.
const BATCH: usize = 16;

/// The best of all turns.
#[derive(Default)]
struct Best {
    product: f64,
    shape: String,
    encoder: f64,
    ingest: f64,
}

impl Bench {
    /// The share for `threads` threads.
    pub(super) fn peak(&mut self, threads: usize, files: &Files, sheet: &mut Sheet) -> Result<()> {
        let encoder = self.encoder(threads, &ModelOptions::default())?;
        let products = products(&self.model.join("products"), threads)?;
        let preprocess = Preprocess::from_open_clip_json(CROP)?;
        let pictures = read_all(&self.pictures, usize::MAX)?;
        let pixels = pictures.iter().map(|bytes| preprocess.apply(bytes)).collect::<Result<Vec<_>, _>>()?;
        fill(&encoder, &files.images, threads)?;
        let mut best = Best::default();
        for _ in 0..self.size.rounds + 2 {
            for product in &products {
                let reached = product.run()?;
                if reached > best.product {
                    (best.product, best.shape) = (reached, product.name.clone());
                }
            }
            best.encoder = best.encoder.max(encoded(&encoder, &pixels, threads)?);
            best.ingest = best.ingest.max(rate(&fill(&encoder, &files.images, threads)?));
        }
        let data = format!(
            "ViT-B/32 f32, random weights, {threads} threads, best of {} turns, peak at {}, load {}",
            self.size.rounds + 2,
            best.shape,
            load()?
        );
        for (what, pictures) in [("image tower alone", best.encoder), ("file to pool", best.ingest)] {
            let reached = pictures * GFLOP_PER_PICTURE;
            let name = format!("share of ONNX Runtime's own matrix product, {what}, {threads} threads");
            let figure = Figure::new(name, reached / best.product, "", format!("{pictures:.1} pictures/s; {data}"));
            sheet.add(figure.against("its product, GFLOP/s", best.product).goal("0.88", reached / best.product >= 0.88));
        }
        Ok(())
    }
}

/// Pictures a second of the tower alone: one caller a session, ready pixels.
fn encoded(encoder: &Encoder, pixels: &[Pixels], threads: usize) -> Result<f64> {
    let begun = Instant::now();
    let batches: Vec<&[Pixels]> = pixels.chunks(BATCH).collect();
    let done = thread::scope(|scope| {
        let work = |first: usize| {
            let mine = batches.iter().skip(first).step_by(threads);
            mine.map(|batch| Ok(encoder.encode_images(batch)?.len())).sum::<Result<usize>>()
        };
        let callers: Vec<_> = (0..threads).map(|first| scope.spawn(move || work(first))).collect();
        callers
            .into_iter()
            .map(|caller| caller.join().map_err(|_| anyhow::anyhow!("a caller ended early"))?)
            .sum::<Result<usize>>()
    })?;
    ensure!(done == pixels.len(), "{done} of {} pictures", pixels.len());
    Ok(done as f64 / begun.elapsed().as_secs_f64())
}

/// One shape, on one session of many threads or many of one.
struct Product {
    name: String,
    shape: [usize; 3],
    model: Vec<u8>,
    sessions: usize,
    threads: usize,
}

/// What `reference/ingest_peer.py products` wrote, for `threads` threads in both ways.
fn products(folder: &Path, threads: usize) -> Result<Vec<Product>> {
    let mut all = Vec::new();
    for shape in SHAPES {
        let path: PathBuf = folder.join(format!("{}x{}x{}.onnx", shape[0], shape[1], shape[2]));
        let model = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        for (sessions, inner) in [(threads, 1), (1, threads)] {
            let name = format!("{}x{}x{}, {sessions} sessions of {inner} threads", shape[0], shape[1], shape[2]);
            all.push(Product { name, shape, model: model.clone(), sessions, threads: inner });
        }
    }
    Ok(all)
}

impl Product {
    /// GFLOP/s of all sessions together.
    fn run(&self) -> Result<f64> {
        let start = Arc::new(Barrier::new(self.sessions));
        let threads: Vec<_> = (0..self.sessions)
            .map(|_| {
                let (mut session, shape, start) = (self.session()?, self.shape, Arc::clone(&start));
                Ok(thread::spawn(move || {
                    let input = Tensor::from_array(([shape[0], shape[1]], vec![0.5_f32; shape[0] * shape[1]]))?;
                    session.run(ort::inputs![&input])?;
                    start.wait();
                    let (begun, mut runs) = (Instant::now(), 0_u32);
                    while begun.elapsed() < LONG {
                        session.run(ort::inputs![&input])?;
                        runs += 1;
                    }
                    let flop = 2.0 * shape.iter().map(|&n| n as f64).product::<f64>();
                    Ok::<_, anyhow::Error>(f64::from(runs) * flop / begun.elapsed().as_secs_f64() / 1e9)
                }))
            })
            .collect::<Result<_>>()?;
        threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a product ended early"))?).sum()
    }

    fn session(&self) -> Result<Session> {
        let runtime = runtime::init(&RuntimeOptions::from_env(), &|_| ())?;
        let options = SessionOptions {
            count: NonZeroUsize::MIN,
            threads: self.threads,
            // The peak is what the product can do, so its threads may wait as they like.
            spinning: self.threads > 1,
        };
        let mut builder = builder(&engine(runtime, Provider::Cpu), options)?;
        builder.commit_from_memory(&self.model).map_err(|e| anyhow::anyhow!("{e}"))
    }
}
