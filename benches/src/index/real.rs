//! The index against its peers on real embeddings: pictures and texts as the bundled model sees them.
//!
//! ```text
//!   demo/pairs.parquet ──both towers──► pairs ──some held out──► pictures, asked by the others' pictures and captions
//!   WordNet's glosses ───text tower───► texts ──some held out──► texts, asked by the others
//! ```
//!
//! Embeddings are made once and kept in the cache folder. Engines, rounds and goals are those of the larger benchmark; texts that ask
//! texts are of the side that is searched, as pictures are that ask pictures.

use std::path::Path;

use anchorite_index::{Precision, pool::Access};
use anyhow::{Result, ensure};
use rand::seq::SliceRandom;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use super::{
    EF_CONSTRUCTION, HnswRs, M, Ours, Sides, build_all, compare,
    data::{Data, From},
    engine::{Entry, rounds},
    peers,
};
use crate::{
    embed::{self, Embedded},
    figure::{Figure, Sheet},
};

/// What is held out, fixed by this.
const SEED: u64 = 7;
/// Pairs of the demo that ask the others: an eighth.
const PAIRS_ASKED: usize = 500;
/// Glosses that ask the others.
const GLOSSES_ASKED: usize = 1_000;
/// Glosses of a quick run, and how many of them ask.
const QUICK: (usize, usize) = (3_000, 200);

/// All figures of this benchmark.
pub(crate) fn run(cache: &Path, quick: bool) -> Result<Vec<Figure>> {
    let cache = std::path::absolute(cache)?;
    let mut sheet = Sheet::default();
    one(&cache, &demo_pairs(&cache)?, &mut sheet)?;
    one(&cache, &glosses(&cache, quick)?, &mut sheet)?;
    Ok(sheet.into_figures())
}

fn one(cache: &Path, data: &Data, sheet: &mut Sheet) -> Result<()> {
    let build = anchorite_index::BuildParams { m: M, ef_construction: EF_CONSTRUCTION, ..Default::default() };
    let ours = Ours {
        dir: data.folder.join("anchorite"),
        build: Some(build),
        sides: Sides::Images,
        access: Access::System,
        precision: Precision::Half,
        pool: None,
    };
    let mut engines = vec![Entry::new("anchorite", ours)];
    engines.extend(peers(cache, data));
    engines.push(Entry::new("hnsw_rs", HnswRs { index: None }));
    build_all(&mut engines, data)?;
    rounds(&mut engines, data)?;
    compare(&engines, data, &data.about()?, sheet);
    Ok(())
}

fn demo_pairs(cache: &Path) -> Result<Data> {
    let (pictures, captions) = embed::demo_pairs(cache)?;
    let held = held_out(pictures.rows(), PAIRS_ASKED)?;
    let (base, asking) = pictures.part(&held);
    let (_, worded) = captions.part(&held);
    let name = format!("{} pictures x {} of the demo, other pairs asking", pictures.rows() - PAIRS_ASKED, pictures.dim);
    let asked = [(("image", From::SameSide), asking), (("text", From::OtherSide), worded)];
    Data::of(&cache.join("real-pairs"), name, (base, pictures.dim), asked)
}

fn glosses(cache: &Path, quick: bool) -> Result<Data> {
    let (most, asked) = if quick { QUICK } else { (usize::MAX, GLOSSES_ASKED) };
    let glosses = embed::glosses(cache, most)?;
    let (base, asking) = glosses.part(&held_out(glosses.rows(), asked)?);
    let name = format!("{} WordNet glosses x {} by the demo's text tower, others asking", glosses.rows() - asked, glosses.dim);
    Data::of(&cache.join("real-glosses"), name, (base, glosses.dim), [(("text", From::SameSide), asking)])
}

/// Which of `rows` ask: `asked` of them, drawn by the seed.
fn held_out(rows: usize, asked: usize) -> Result<Vec<bool>> {
    ensure!(rows > asked * 2, "{rows} embeddings are too few to hold {asked} out");
    let mut held: Vec<bool> = (0..rows).map(|row| row < asked).collect();
    held.shuffle(&mut ChaCha8Rng::seed_from_u64(SEED));
    Ok(held)
}

impl Embedded {
    /// The rows that are kept, and those that are held out.
    fn part(&self, held: &[bool]) -> (Vec<f32>, Vec<f32>) {
        let of = |wanted: bool| {
            let rows = self.values.chunks_exact(self.dim).zip(held).filter(|(_, held)| **held == wanted);
            rows.flat_map(|(row, _)| row.iter().copied()).collect()
        };
        (of(false), of(true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_out_is_not_searched_and_nothing_is_lost() {
        let all = Embedded { dim: 2, values: (0..40).map(|v| v as f32).collect() };
        let (kept, held) = all.part(&held_out(20, 5).unwrap());
        assert_eq!((kept.len(), held.len()), (30, 10));
        let mut both = [kept, held].concat();
        both.sort_unstable_by(f32::total_cmp);
        assert_eq!(both, all.values);
        assert!(held_out(10, 5).is_err());
    }
}
