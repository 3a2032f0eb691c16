//! Recall@k of a caption set, both ways. An image with several captions is found by any of them.

use rayon::prelude::*;

use super::{
    evaluation::Metric,
    matrix::{Matrix, dot, rank},
};

/// The places that are looked at.
const KS: [usize; 3] = [1, 5, 10];

/// Each question's best right answer, counted from 0.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ranks {
    /// One per caption, among all images.
    pub(crate) text_to_image: Vec<usize>,
    /// One per image, among all captions.
    pub(crate) image_to_text: Vec<usize>,
}

impl Ranks {
    /// `owner[c]` is the image that caption `c` belongs to; every image has one.
    pub(crate) fn of(images: &Matrix, captions: &Matrix, owner: &[usize]) -> Self {
        let text = |caption: usize| {
            let scores: Vec<f64> = (0..images.rows()).map(|i| dot(captions.row(caption), images.row(i))).collect();
            rank(&scores, owner[caption])
        };
        let mut own: Vec<Vec<usize>> = vec![Vec::new(); images.rows()];
        owner.iter().enumerate().for_each(|(caption, &image)| own[image].push(caption));
        let image = |image: usize| {
            let scores: Vec<f64> = (0..captions.rows()).map(|c| dot(images.row(image), captions.row(c))).collect();
            own[image].iter().map(|&c| rank(&scores, c)).min().unwrap_or(usize::MAX)
        };
        Self {
            text_to_image: (0..captions.rows()).into_par_iter().map(text).collect(),
            image_to_text: (0..images.rows()).into_par_iter().map(image).collect(),
        }
    }
}

/// Recall@1, 5 and 10 of one direction, over all ranks or a resample of them.
pub(crate) fn figures(ranks: impl Iterator<Item = usize>, metrics: [Metric; 3]) -> Vec<(Metric, f64)> {
    let (mut n, mut hits) = (0.0_f64, [0.0_f64; 3]);
    for rank in ranks {
        n += 1.0;
        for (hit, k) in hits.iter_mut().zip(KS) {
            *hit += f64::from(u8::from(rank < k));
        }
    }
    metrics.into_iter().zip(hits).map(|(metric, hit)| (metric, hit / n)).collect()
}
