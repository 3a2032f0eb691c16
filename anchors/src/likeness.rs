//! Which tower a bare vector came from, told by where a pool's own vectors lie.
//!
//! A tower's vectors fill a narrow cone, and the two towers' cones lie apart (Liang et al., "Mind the Gap", 2022). A vector that is as near to the
//! middle of the pool's pictures as they are themselves, and not as near to that of its captions, is a picture's, and the other way round. One
//! that lies in both cones or in neither is not told. A wrong word costs recall within what beams promise, never an error.
//!
//! ```text
//!   Pool ──rows, evenly spaced──► Cone of each side ──dot──► in one alone? ──► Side
//! ```

use anchorite_index::{PairStore, Parts, RowId, Side, StoreError};

use crate::{diversity::dot, questions::mean};

/// Rows that the cones are taken from. 256: their mean is within a degree or two of all rows' mean, and they are read in milliseconds.
const SAMPLE: u64 = 256;
/// Vectors that make a cone; with fewer in the sample nothing is told.
const LEAST: usize = 64;
/// One in so many of a side's own vectors lies outside its cone.
const OUTSIDE: usize = 50;

/// The cones of a generation of a pool; a side with too few vectors has none.
#[derive(Debug)]
pub(crate) struct Cones([Option<Cone>; 2]);

/// The middle of a side's vectors, and the least cosine with it.
#[derive(Debug)]
struct Cone {
    middle: Vec<f32>,
    least: f32,
}

impl Cones {
    /// Reads a sample of the pool.
    pub(crate) fn of(store: &dyn PairStore) -> Result<Self, StoreError> {
        let positions = store.status().positions;
        let step = usize::try_from(positions.div_ceil(SAMPLE)).unwrap_or(usize::MAX).max(1);
        let rows: Vec<RowId> = (0..positions).step_by(step).map(RowId).collect();
        let (mut images, mut texts) = (Vec::new(), Vec::new());
        for record in store.get(&rows, Parts { vectors: true, picture: false })?.into_iter().flatten() {
            images.extend(record.image);
            texts.extend(record.text);
        }
        Ok(Self([Cone::around(&images), Cone::around(&texts)]))
    }

    /// The one side whose cone `vector` (of any length but zero) lies in.
    pub(crate) fn side_of(&self, vector: &[f32]) -> Option<Side> {
        let length = dot(vector, vector).sqrt();
        let inside = |cone: &Option<Cone>| cone.as_ref().is_some_and(|cone| dot(vector, &cone.middle) >= cone.least * length);
        match self.0.each_ref().map(inside) {
            [true, false] => Some(Side::Image),
            [false, true] => Some(Side::Text),
            _ => None,
        }
    }
}

impl Cone {
    fn around(vectors: &[Vec<f32>]) -> Option<Self> {
        if vectors.len() < LEAST {
            return None;
        }
        let middle = mean(vectors.iter().map(Vec::as_slice))?;
        let mut cosines: Vec<f32> = vectors.iter().map(|vector| dot(vector, &middle)).collect();
        cosines.sort_unstable_by(f32::total_cmp);
        Some(Self { middle, least: cosines[vectors.len() / OUTSIDE] })
    }
}
