//! No picture of a test set, or one nearly like it, among what is pretrained on, retrieved from and finetuned on.
//!
//! Two tests that must agree, as the prototype's: the frozen tower's features (cosine above .9) and 16 x 16 grey thumbnails (correlation above
//! .95). Pairs found are listed in `duplicates.json`. One with a pool row ends the experiment, since the committed split has none; the finetune set's
//! own are other concepts in the same drawing (a red book and a blue one) and are listed only.

use anchorite::{
    encoder::image::{ImageLimits, decode},
    ingest::{ColumnOptions, Limits, Rows, VectorMode},
};
use anyhow::{Result, ensure};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Lab, bench::Role};
use crate::progress::say;

/// Cosine of features above which pictures are compared in detail.
const NEAR: f32 = 0.9;
/// Correlation of thumbnails above which they are the same.
const SAME: f32 = 0.95;
/// Rows and columns of a thumbnail.
const SIDE: usize = 16;

/// A test picture and one like it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Duplicate {
    pub(crate) test: String,
    pub(crate) other: String,
    pub(crate) cosine: f32,
    pub(crate) correlation: f32,
}

struct Picture {
    id: String,
    feature: Vec<f32>,
    thumbnail: Vec<f32>,
}

/// Looks once; refuses a pool with copies of test pictures.
pub(crate) fn check(lab: &Lab<'_>) -> Result<Vec<Duplicate>> {
    super::stage(&lab.setting.out.join("duplicates.json"), || {
        let (pool, train) = (read(lab, "pool")?, read(lab, "train")?);
        let mut tests = Vec::new();
        for set in lab.sets.list.iter().filter(|set| !matches!(set.role, Role::Train | Role::Pool | Role::RawPool)) {
            tests.extend(read(lab, &set.name)?);
        }
        tests.sort_by(|a, b| a.id.cmp(&b.id));
        tests.dedup_by(|a, b| a.id == b.id);
        let all = |others: &[Picture]| -> Vec<Duplicate> { tests.par_iter().flat_map_iter(|test| like(test, others)).collect() };
        let (in_pool, in_train) = (all(&pool), all(&train));
        say(&format!(
            "{} test pictures: {} alike in {} of the pool, {} in {} of the finetune set",
            tests.len(),
            in_pool.len(),
            pool.len(),
            in_train.len(),
            train.len()
        ));
        ensure!(
            in_pool.is_empty(),
            "{} pool pictures are too like one of a test set; leave them out of the data (not_in_pool of experiment/classes.json): {:?}",
            in_pool.len(),
            in_pool.iter().map(|pair| &pair.other).collect::<Vec<_>>()
        );
        Ok(in_train)
    })
}

fn like(test: &Picture, others: &[Picture]) -> Vec<Duplicate> {
    let near = |other: &&Picture| dot(&test.feature, &other.feature) > NEAR;
    let alike = |other: &Picture| {
        let correlation = dot(&test.thumbnail, &other.thumbnail);
        let cosine = dot(&test.feature, &other.feature);
        (correlation > SAME && test.id != other.id).then(|| Duplicate {
            test: test.id.clone(),
            other: other.id.clone(),
            cosine,
            correlation,
        })
    };
    others.iter().filter(near).filter_map(alike).collect()
}

fn read(lab: &Lab<'_>, set: &str) -> Result<Vec<Picture>> {
    let mut rows = Rows::open(&[lab.sets.path(set)], ColumnOptions::default(), VectorMode::Encode, Limits::default())?;
    let mut pictures = Vec::new();
    while let Some(row) = rows.next_row()? {
        let row = row.map_err(|reject| anyhow::anyhow!("{set}: {}", reject.message))?;
        let id = match row.fields.get("id") {
            Some(anchorite::index::Value::Text(id)) => id.clone(),
            _ => String::new(),
        };
        pictures.extend(row.picture.map(|picture| (id, picture)));
    }
    let limits = ImageLimits::default();
    let one = |(id, bytes): &(String, Vec<u8>)| -> Result<Picture> {
        let picture = decode(bytes, &limits)?;
        let mut feature = lab.frozen.features().picture(bytes)?;
        unit(&mut feature);
        Ok(Picture { id: id.clone(), feature, thumbnail: thumbnail(picture.values(), picture.width(), picture.height()) })
    };
    pictures.par_iter().map(one).collect()
}

/// Grey means over a 16 x 16 grid, centred and of unit length, so that a product is a correlation.
fn thumbnail(rgb: &[u8], width: usize, height: usize) -> Vec<f32> {
    let (mut sums, mut counts) = (vec![0.0_f32; SIDE * SIDE], vec![0.0_f32; SIDE * SIDE]);
    for (at, pixel) in rgb.chunks_exact(3).enumerate() {
        let cell = (at / width * SIDE / height.max(1)) * SIDE + at % width * SIDE / width;
        sums[cell] += pixel.iter().map(|&v| f32::from(v)).sum::<f32>();
        counts[cell] += 1.0;
    }
    let mut grey: Vec<f32> = sums.iter().zip(&counts).map(|(sum, count)| sum / count.max(1.0)).collect();
    let mean = grey.iter().sum::<f32>() / grey.len() as f32;
    grey.iter_mut().for_each(|v| *v -= mean);
    unit(&mut grey);
    grey
}

fn unit(values: &mut [f32]) {
    let length = dot(values, values).sqrt().max(1e-12);
    values.iter_mut().for_each(|v| *v /= length);
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
