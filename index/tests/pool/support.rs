//! Pools for tests: seeded vectors and shorthand.

use std::path::Path;

use anchorite_index::{
    BuildParams, Builder, Cancel, ContentHash, Effort, Key, Pair, PairSink, PairStore, Query, Side, SourceRef, Spec, Threads,
    pool::{OpenOptions, Pool, PoolWriter, WriterOptions},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub(crate) fn unit(mut v: Vec<f32>) -> Vec<f32> {
    let length = v.iter().map(|x| x * x).sum::<f32>().sqrt();
    v.iter_mut().for_each(|x| *x /= length);
    v
}

fn normal(rng: &mut ChaCha8Rng) -> f32 {
    (0..6).map(|_| rng.random_range(-1.0f32..1.0)).sum::<f32>() * 0.7
}

/// `count` vectors around `clusters` centres, none of them special: what CLIP embeddings of photos look like, smaller.
pub(crate) fn clustered(count: usize, dim: usize, clusters: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let centres: Vec<Vec<f32>> = (0..clusters).map(|_| (0..dim).map(|_| normal(&mut rng)).collect()).collect();
    let one = |_| {
        let centre = &centres[rng.random_range(0..clusters)];
        unit(centre.iter().map(|c| c + 0.6 * normal(&mut rng)).collect())
    };
    (0..count).map(one).collect()
}

/// The same vectors with every value repeated up to `dim`: they lie to each other as before, and from 256 values on searches
/// look at sketches.
pub(crate) fn widened(vectors: &[Vec<f32>], dim: usize) -> Vec<Vec<f32>> {
    let wide = |v: &Vec<f32>| unit((0..dim).map(|i| v[i % v.len()] * if i % 5 < 2 { -1.0 } else { 1.0 }).collect());
    vectors.iter().map(wide).collect()
}

pub(crate) fn image_pair(n: usize, vector: Vec<f32>) -> Pair {
    Pair {
        key: Key::new(format!("row-{n}")).unwrap(),
        source: SourceRef { file: "made".into(), row: n as u64 },
        content: ContentHash([0; 32]),
        image: Some(vector),
        text: None,
        caption: None,
        fields: Default::default(),
        picture: None,
    }
}

pub(crate) fn spec(dim: usize) -> Spec {
    Spec { encoder: "tests".into(), dim }
}

pub(crate) const BUILDERS: [Builder; 2] = [Builder::HnswRs, Builder::Own];

pub(crate) fn by(builder: Builder) -> WriterOptions {
    WriterOptions { build: BuildParams { builder, ..BuildParams::default() }, ..WriterOptions::default() }
}

pub(crate) fn one_thread() -> WriterOptions {
    one_thread_by(Builder::default())
}

pub(crate) fn one_thread_by(builder: Builder) -> WriterOptions {
    WriterOptions { build: BuildParams { builder, threads: Threads::One, ..BuildParams::default() }, ..WriterOptions::default() }
}

pub(crate) fn build(dir: &Path, vectors: &[Vec<f32>], options: &WriterOptions) -> Pool {
    let mut writer = PoolWriter::open(dir, &spec(vectors[0].len()), options).unwrap();
    let pairs: Vec<Pair> = vectors.iter().enumerate().map(|(n, v)| image_pair(n, v.clone())).collect();
    writer.append(&pairs).unwrap();
    writer.commit(&Cancel::default()).unwrap();
    Pool::open(dir, &OpenOptions::default()).unwrap()
}

pub(crate) fn rows(pool: &Pool, vector: &[f32], k: usize, effort: Effort) -> Vec<u64> {
    let query = Query::new(Side::Image, vector.to_vec(), k, effort);
    let answer = pool.search(&[query], &Cancel::default()).unwrap().remove(0);
    answer.hits.iter().map(|h| h.row.0).collect()
}
