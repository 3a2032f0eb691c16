//! What every engine is given: vectors, queries of one or two modalities, and their exact answers.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::Result;
use rayon::prelude::*;

use super::{MANY, SEED, dot::dot};
use crate::{
    clip_like::{DIM, World},
    process,
};

/// Whose vectors ask: goals differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// Those of the side that is searched.
    SameSide,
    /// Those of the other side: they lie apart from what is searched.
    OtherSide,
}

/// Queries of one modality and their exact answers.
pub(super) struct Queries {
    pub(super) name: &'static str,
    pub(super) from: From,
    pub(super) dim: usize,
    pub(super) vectors: Vec<f32>,
    pub(super) truth: Vec<Vec<u64>>,
}

impl Queries {
    pub(super) fn new((name, from): (&'static str, From), vectors: Vec<f32>, base: &[f32], dim: usize) -> Self {
        let truth = vectors.par_chunks_exact(dim).map(|query| exact(base, query)).collect();
        Self { name, from, dim, vectors, truth }
    }

    /// One query after the other.
    pub(super) fn each(&self) -> std::slice::ChunksExact<'_, f32> {
        self.vectors.chunks_exact(self.dim)
    }

    pub(super) fn count(&self) -> usize {
        self.truth.len()
    }

    /// Share of the exact `k` nearest that was found.
    pub(super) fn recall(&self, found: &[Vec<u64>], k: usize) -> f64 {
        let shared = |(found, truth): (&Vec<u64>, &Vec<u64>)| found.iter().filter(|row| truth[..k].contains(row)).count();
        found.iter().zip(&self.truth).map(shared).sum::<usize>() as f64 / (self.truth.len() * k) as f64
    }
}

/// What every engine gets.
pub(super) struct Data {
    /// In words.
    pub(super) name: String,
    pub(super) folder: PathBuf,
    /// Values per vector.
    pub(super) dim: usize,
    pub(super) base: Vec<f32>,
    /// As many texts: the other side of the pairs, which some pools get.
    pub(super) texts: Vec<f32>,
    pub(super) queries: Vec<Queries>,
}

impl Data {
    pub(super) fn make(folder: &Path, n: usize, asked: usize) -> Result<Self> {
        Ok(Self { texts: World::new(SEED).texts(n, 4), ..Self::without_texts(folder, n, asked)? })
    }

    /// For pools of pictures alone.
    pub(super) fn without_texts(folder: &Path, n: usize, asked: usize) -> Result<Self> {
        let world = World::new(SEED);
        let base = world.images(n, 1);
        let asked = [(("image", From::SameSide), world.images(asked, 2)), (("text", From::OtherSide), world.texts(asked, 3))];
        Self::of(folder, format!("{n} x {DIM} CLIP-like"), (base, DIM), asked)
    }

    /// These vectors of `dim` values, asked by these; written for the peers into `folder`.
    pub(super) fn of(
        folder: &Path,
        name: String,
        (base, dim): (Vec<f32>, usize),
        asked: impl IntoIterator<Item = ((&'static str, From), Vec<f32>)>,
    ) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let queries: Vec<Queries> = asked.into_iter().map(|(who, vectors)| Queries::new(who, vectors, &base, dim)).collect();
        write(folder, "base", &base)?;
        queries.iter().try_for_each(|queries| write(folder, queries.name, &queries.vectors))?;
        Ok(Self { name, folder: folder.to_owned(), dim, base, texts: Vec::new(), queries })
    }

    pub(super) fn rows(&self) -> usize {
        self.base.len() / self.dim
    }

    /// In words, with how busy the machine is.
    pub(super) fn about(&self) -> Result<String> {
        Ok(format!("{}, load average {}", self.name, process::load()?))
    }
}

/// Little-endian values, as NumPy reads them.
pub(super) fn write(folder: &Path, name: &str, values: &[f32]) -> Result<()> {
    let mut file = BufWriter::new(File::create(folder.join(format!("{name}.f32")))?);
    values.iter().try_for_each(|v| file.write_all(&v.to_le_bytes()))?;
    Ok(file.flush()?)
}

/// The [`MANY`] rows of the largest dot product in f32, largest first.
pub(super) fn exact(base: &[f32], query: &[f32]) -> Vec<u64> {
    let mut scored: Vec<(f32, u64)> = base.chunks_exact(query.len()).map(|row| dot(row, query)).zip(0..).collect();
    let order = |a: &(f32, u64), b: &(f32, u64)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    if scored.len() > MANY {
        scored.select_nth_unstable_by(MANY - 1, order);
    }
    scored.truncate(MANY);
    scored.sort_unstable_by(order);
    // Not `into_iter`: collecting in place would keep the memory of all rows, 16 MB a query at a million.
    scored.iter().map(|&(_, row)| row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exact_answer_begins_with_the_row_itself() {
        let world = World::new(3);
        let base = world.images(300, 1);
        let own = &base[17 * DIM..18 * DIM];
        let found = exact(&base, own);
        assert_eq!(found.len(), MANY);
        assert_eq!(found[0], 17);
    }
}
