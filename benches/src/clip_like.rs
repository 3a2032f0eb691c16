//! Seeded vectors shaped like CLIP's: clusters with Zipf sizes in a low-dimensional latent space, lifted by a fixed nonlinear map,
//! coloured noise, and one mean direction per modality, which gives the cone (image-image cosine about 0.46) and the modality gap
//! (text-image about -0.13). Image queries come from the images' distribution, text queries do not.
//!
//! They compress under PCA more than real embeddings do: no conclusion about projections may be drawn from them.

use rand::Rng;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rayon::prelude::*;

/// Values per vector.
pub(crate) const DIM: usize = 512;
const LATENT: usize = 48;
const HIDDEN: usize = 384;
const PARENTS: usize = 150;
const CLUSTERS: usize = 4_000;
/// Vectors drawn from one random stream; fixed, so that the data does not depend on the number of threads.
const BLOCK: usize = 4_096;

/// A row-major matrix.
struct Matrix {
    columns: usize,
    values: Vec<f32>,
}

impl Matrix {
    fn normal(rng: &mut ChaCha8Rng, rows: usize, columns: usize, scale: f32) -> Self {
        Self { columns, values: (0..rows * columns).map(|_| normal(rng) * scale).collect() }
    }

    fn rows(&self) -> usize {
        self.values.len() / self.columns
    }

    fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.columns..(i + 1) * self.columns]
    }

    /// `vector * self`.
    fn apply(&self, vector: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; self.columns];
        for (weight, row) in vector.iter().zip(self.values.chunks_exact(self.columns)) {
            add(&mut out, row, *weight);
        }
        out
    }

    /// Rows made orthonormal (Gram-Schmidt, twice for stability): a random rotation when the rows are Gaussian.
    fn orthonormal(mut self) -> Self {
        for i in 0..self.rows() {
            let (done, rest) = self.values.split_at_mut(i * self.columns);
            let current = &mut rest[..self.columns];
            for _ in 0..2 {
                for row in done.chunks_exact(self.columns) {
                    let along = dot(row, current);
                    add(current, row, -along);
                }
            }
            unit(current);
        }
        self
    }
}

/// Everything that the seed fixes before a vector is drawn.
pub(crate) struct World {
    seed: u64,
    spectrum: Vec<f32>,
    centres: Matrix,
    cumulative_share: Vec<f32>,
    spread: Vec<f32>,
    lift_in: Matrix,
    lift_bias: Vec<f32>,
    lift_out: Matrix,
    noise_turn: Matrix,
    noise_norm: f32,
    image_mean: Vec<f32>,
    text_mean: Vec<f32>,
    text_only: Matrix,
    centre: Vec<f32>,
    scale: f32,
}

impl World {
    /// The world of `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        let rng = &mut stream(seed, 0);
        let spectrum: Vec<f32> = power_law(LATENT, -0.35);
        let parents = Matrix::normal(rng, PARENTS, LATENT, 1.0);
        let parent_share = cumulative(&power_law(PARENTS, -0.6));
        let mut centres = Matrix::normal(rng, CLUSTERS, LATENT, 0.55);
        for row in centres.values.chunks_exact_mut(LATENT) {
            add(row, parents.row(pick(rng, &parent_share)), 1.0);
            row.iter_mut().zip(&spectrum).for_each(|(v, s)| *v *= s);
        }
        let lift_in = Matrix::normal(rng, LATENT, HIDDEN, 2.2 / (LATENT as f32).sqrt());
        let lift_bias = (0..HIDDEN).map(|_| normal(rng) * 0.5).collect();
        let turn = Matrix::normal(rng, DIM, DIM, 1.0).orthonormal();
        let lift_out = coloured(rng, &power_law(DIM, -0.3), &turn);
        let noise_scale = power_law(DIM, -0.5);
        let mut noise_turn = Matrix::normal(rng, DIM, DIM, 1.0).orthonormal();
        for (row, scale) in noise_turn.values.chunks_exact_mut(DIM).zip(&noise_scale) {
            row.iter_mut().for_each(|v| *v *= scale);
        }
        let image_mean = direction(rng);
        let mut text_mean = direction(rng);
        add(&mut text_mean, &image_mean, -0.2);
        unit(&mut text_mean);
        let mut world = Self {
            seed,
            spectrum,
            centres,
            cumulative_share: cumulative(&power_law(CLUSTERS, -0.7)),
            spread: (0..CLUSTERS).map(|_| (normal(rng) * 0.35).exp() * 0.75).collect(),
            lift_in,
            lift_bias,
            lift_out,
            noise_turn,
            noise_norm: noise_scale.iter().map(|s| s * s).sum::<f32>().sqrt(),
            image_mean,
            text_mean,
            text_only: Matrix::normal(rng, LATENT, DIM, 1.0 / (LATENT as f32).sqrt()),
            centre: vec![0.0; DIM],
            scale: 1.0,
        };
        world.standardize();
        world
    }

    /// `n` image vectors of unit length, row after row.
    pub(crate) fn images(&self, n: usize, part: u64) -> Vec<f32> {
        self.draw(n, part, |world, rng| {
            let mut x = world.lifted(rng, 0.0, 1.0);
            add(&mut x, &world.image_mean, 0.95);
            let noise: Vec<f32> = (0..DIM).map(|_| normal(rng)).collect();
            add(&mut x, &world.noise_turn.apply(&noise), 0.22 / world.noise_norm);
            x
        })
    }

    /// `n` text vectors of unit length, row after row: out of the images' distribution.
    pub(crate) fn texts(&self, n: usize, part: u64) -> Vec<f32> {
        self.draw(n, part, |world, rng| {
            let mut x = world.lifted(rng, 0.25, 0.75);
            add(&mut x, &world.text_mean, 0.95);
            let own: Vec<f32> = (0..LATENT).map(|_| normal(rng)).collect();
            let mut own = world.text_only.apply(&own);
            unit(&mut own);
            add(&mut x, &own, 0.25);
            x
        })
    }

    fn draw(&self, n: usize, part: u64, one: impl Fn(&Self, &mut ChaCha8Rng) -> Vec<f32> + Sync) -> Vec<f32> {
        let mut out = vec![0.0; n * DIM];
        out.par_chunks_mut(BLOCK * DIM).enumerate().for_each(|(block, rows)| {
            let mut rng = stream(self.seed, (part << 32) + 1 + block as u64);
            for row in rows.chunks_exact_mut(DIM) {
                row.copy_from_slice(&one(self, &mut rng));
                unit(row);
            }
        });
        out
    }

    /// A latent point, lifted, centred and scaled; `jitter` widens the latent, `weight` scales the result.
    fn lifted(&self, rng: &mut ChaCha8Rng, jitter: f32, weight: f32) -> Vec<f32> {
        let mut x = self.lift(&self.latent(rng, jitter));
        for (v, c) in x.iter_mut().zip(&self.centre) {
            *v = (*v - c) / self.scale * weight;
        }
        x
    }

    fn latent(&self, rng: &mut ChaCha8Rng, jitter: f32) -> Vec<f32> {
        let cluster = pick(rng, &self.cumulative_share);
        let spread = self.spread[cluster];
        let around = |(centre, s): (&f32, &f32)| centre + (normal(rng) * spread + normal(rng) * jitter) * s;
        self.centres.row(cluster).iter().zip(&self.spectrum).map(around).collect()
    }

    fn lift(&self, latent: &[f32]) -> Vec<f32> {
        let mut hidden = self.lift_in.apply(latent);
        hidden.iter_mut().zip(&self.lift_bias).for_each(|(v, b)| *v = (*v + b).tanh());
        self.lift_out.apply(&hidden)
    }

    /// Sets the lifted cloud's centre and mean radius from a sample.
    fn standardize(&mut self) {
        const SAMPLE: usize = 4_000;
        let rng = &mut stream(self.seed, u64::MAX);
        let sample: Vec<Vec<f32>> = (0..SAMPLE).map(|_| self.lift(&self.latent(rng, 0.0))).collect();
        for row in &sample {
            add(&mut self.centre, row, 1.0 / SAMPLE as f32);
        }
        let radius = |row: &Vec<f32>| row.iter().zip(&self.centre).map(|(v, c)| (v - c) * (v - c)).sum::<f32>().sqrt();
        self.scale = sample.iter().map(radius).sum::<f32>() / SAMPLE as f32;
    }
}

/// Gaussian `HIDDEN x DIM` with the column scales of `spectrum`, rotated.
fn coloured(rng: &mut ChaCha8Rng, spectrum: &[f32], turn: &Matrix) -> Matrix {
    let mut plain = Matrix::normal(rng, HIDDEN, DIM, 1.0 / (HIDDEN as f32).sqrt());
    for row in plain.values.chunks_exact_mut(DIM) {
        row.iter_mut().zip(spectrum).for_each(|(v, s)| *v *= s);
        let turned = turn.apply(row);
        row.copy_from_slice(&turned);
    }
    plain
}

fn stream(seed: u64, number: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    rng
}

/// Standard normal by Box and Muller.
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    let (u, v): (f32, f32) = (rng.random_range(f32::MIN_POSITIVE..1.0), rng.random());
    (-2.0 * u.ln()).sqrt() * (std::f32::consts::TAU * v).cos()
}

fn direction(rng: &mut ChaCha8Rng) -> Vec<f32> {
    let mut v: Vec<f32> = (0..DIM).map(|_| normal(rng)).collect();
    unit(&mut v);
    v
}

/// `1^e, 2^e, ... n^e`.
fn power_law(n: usize, exponent: f32) -> Vec<f32> {
    (1..=n).map(|i| (i as f32).powf(exponent)).collect()
}

fn cumulative(weights: &[f32]) -> Vec<f32> {
    let total: f32 = weights.iter().sum();
    weights
        .iter()
        .scan(0.0, |sum, w| {
            *sum += w / total;
            Some(*sum)
        })
        .collect()
}

fn pick(rng: &mut ChaCha8Rng, cumulative: &[f32]) -> usize {
    let at: f32 = rng.random();
    cumulative.partition_point(|&c| c < at).min(cumulative.len() - 1)
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

fn add(into: &mut [f32], from: &[f32], weight: f32) {
    into.iter_mut().zip(from).for_each(|(a, b)| *a += weight * b);
}

fn unit(v: &mut [f32]) {
    let length = dot(v, v).sqrt();
    v.iter_mut().for_each(|x| *x /= length);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean_cosine(a: &[f32], b: &[f32]) -> f32 {
        let pairs = a.chunks_exact(DIM).zip(b.chunks_exact(DIM)).map(|(x, y)| dot(x, y));
        pairs.sum::<f32>() / (a.len() / DIM) as f32
    }

    /// The statistics that the reference recipe states: image-image 0.46, text-image -0.13.
    #[test]
    fn the_cone_and_the_modality_gap_are_there() {
        let world = World::new(7);
        let (images, others, texts) = (world.images(3_000, 1), world.images(3_000, 2), world.texts(3_000, 3));
        let image_image = mean_cosine(&images, &others);
        let text_image = mean_cosine(&texts, &images);
        assert!((image_image - 0.46).abs() < 0.04, "image-image cosine {image_image}");
        assert!((text_image + 0.13).abs() < 0.06, "text-image cosine {text_image}");
    }

    #[test]
    fn one_seed_gives_one_set() {
        let world = World::new(7);
        assert_eq!(world.images(100, 1), world.images(100, 1));
        assert_ne!(world.images(100, 1), world.images(100, 2));
        assert_ne!(world.images(100, 1), World::new(8).images(100, 1));
    }
}
