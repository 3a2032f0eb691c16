//! Pools that are made once and kept in the cache folder, and the questions that are asked of them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use anchorite_index::{
    Builder, Cancel, ContentHash, Effort, Key, Pair, PairSink, PairStore, Query, Side, SourceRef, Spec, Value,
    pool::{OpenOptions, Pool, PoolWriter, WriterOptions},
};
use anyhow::{Context, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

use super::{K, SEED, World, child};
use crate::clip_like::DIM;

/// Rows of the pool that words are asked of: enough for a graph.
pub(crate) const WORD_ROWS: usize = 20_000;
/// Bytes of a stored picture: a JPEG of 224 pixels at quality 75 is about as large.
pub(super) const PICTURE_BYTES: usize = 8 << 10;
/// Values of the random field.
const STEPS: u64 = 1_000;
/// Rows appended at once.
const APPENDED: usize = 1_000;

/// The data of one run.
pub(super) struct Rig {
    pub(super) cache: PathBuf,
    pub(super) pool: PathBuf,
    pub(super) base: Vec<f32>,
    pub(super) queries: Vec<f32>,
    pub(super) world: World,
    pub(super) data: String,
    /// As `data`, of the vectors alone.
    pub(super) vectors: String,
    /// How long each load lasts.
    pub(super) length: Duration,
    /// Queries whose answers are compared with the truth.
    pub(super) judged: usize,
    pub(super) quick: bool,
}

impl Rig {
    pub(super) fn of(cache: &Path, quick: bool) -> Result<Self> {
        let cache = std::path::absolute(cache)?;
        let rows = if quick { 20_000 } else { 100_000 };
        let world = World::new(SEED);
        let (base, queries) = (world.images(rows, 1), world.images(1_024, 2));
        let encoder = child::encoder(None)?;
        let pool = pool_of(&cache.join(format!("serve-{rows}")), &base, DIM, encoder.fingerprint(), PICTURE_BYTES)?;
        let seconds = if quick { 1 } else { 3 };
        Ok(Self {
            cache,
            pool,
            base,
            queries,
            world,
            vectors: format!("{rows} x {DIM} CLIP-like"),
            data: format!("{rows} x {DIM} CLIP-like, stored pictures of 8 KiB"),
            length: Duration::from_secs(seconds),
            judged: 200,
            quick,
        })
    }

    pub(super) fn open(&self) -> Result<Pool> {
        Ok(Pool::open(&self.pool, &OpenOptions::default())?)
    }

    /// The same pairs without pictures.
    pub(super) fn plain(&self) -> Result<PathBuf> {
        let dir = self.cache.join(format!("serve-plain-{}", self.base.len() / DIM));
        pool_of(&dir, &self.base, DIM, child::encoder(None)?.fingerprint(), 0)
    }

    /// The true hits of the first queries.
    pub(super) fn truth(&self) -> Result<Vec<Vec<u64>>> {
        let query = |v: &[f32]| Query::new(Side::Image, v.to_vec(), K, Effort::Exact);
        let queries: Vec<Query> = self.queries.chunks_exact(DIM).take(self.judged).map(query).collect();
        let answers = self.open()?.search(&queries, &Cancel::default())?;
        Ok(answers.iter().map(|answer| answer.hits.iter().map(|hit| hit.row.0).collect()).collect())
    }

    /// The vectors as files, for peers; the folder's name.
    pub(super) fn written(&self) -> Result<String> {
        let folder = self.cache.join("serve-data");
        std::fs::create_dir_all(&folder)?;
        for (name, values) in [("base", &self.base), ("queries", &self.queries)] {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            std::fs::write(folder.join(format!("{name}.f32")), bytes)?;
        }
        Ok(folder.to_str().context("the cache folder's name is not UTF-8")?.to_owned())
    }

    /// A pool of the model's own dimension and name, its vectors drawn at random.
    pub(super) fn words(&self, model: &Path) -> Result<PathBuf> {
        let encoder = child::encoder(Some(model))?;
        let dim = encoder.dim();
        let mut vectors: Vec<f32> = self.base.iter().take(WORD_ROWS * dim).copied().collect();
        for row in vectors.chunks_exact_mut(dim) {
            let length = row.iter().map(|v| v * v).sum::<f32>().sqrt();
            row.iter_mut().for_each(|v| *v /= length);
        }
        pool_of(&self.cache.join(format!("serve-words-{dim}")), &vectors, dim, encoder.fingerprint(), 0)
    }
}

fn pool_of(dir: &Path, vectors: &[f32], dim: usize, encoder: &str, picture: usize) -> Result<PathBuf> {
    let rows = vectors.len() / dim;
    let spec = Spec { encoder: encoder.to_owned(), dim };
    if Pool::open(dir, &OpenOptions::default()).is_ok_and(|pool| pool.status().rows == rows as u64 && *pool.spec() == spec) {
        return Ok(dir.to_owned());
    }
    if dir.exists() {
        std::fs::remove_dir_all(dir)?;
    }
    std::fs::create_dir_all(dir)?;
    let mut options = WriterOptions::default();
    options.build.builder = Builder::Own;
    let mut writer = PoolWriter::open(dir, &spec, &options)?;
    for (block, part) in vectors.chunks(APPENDED * dim).enumerate() {
        let numbered = part.chunks_exact(dim).zip((block * APPENDED) as u64..);
        writer.append(&numbered.map(|(vector, row)| pair(row, vector, picture)).collect::<Result<Vec<_>>>()?)?;
    }
    writer.commit(&Cancel::default())?;
    Ok(dir.to_owned())
}

fn pair(row: u64, vector: &[f32], picture: usize) -> Result<Pair> {
    // Fibonacci hashing: every value as often as any other, in no order.
    let random = ((row.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) * STEPS) >> 32;
    let fields = [("random", Value::Int(random as i64)), ("url", Value::Text(format!("https://example.invalid/{row}.jpg")))];
    let hash: [u8; 32] = Sha256::digest(row.to_le_bytes()).into();
    let bytes = || [&b"\xff\xd8\xff"[..], &hash.repeat(picture / 32)].concat();
    Ok(Pair {
        key: Key::new(format!("row-{row}"))?,
        source: SourceRef { file: "clip-like".to_owned(), row },
        content: ContentHash(hash),
        image: Some(vector.to_vec()),
        text: None,
        caption: Some(format!("the caption of row {row}, about as long as captions are")),
        fields: BTreeMap::from(fields.map(|(name, value)| (name.to_owned(), value))),
        picture: (picture > 0).then(bytes),
    })
}

/// Little-endian bytes of the values in base64, as OpenAI's clients write vectors.
pub(super) fn base64(values: &[f32]) -> String {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    STANDARD.encode(bytes)
}
