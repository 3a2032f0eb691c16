//! Near-duplicates among hits, by upstream's rule: an edge where two stored vectors' inner product exceeds [`SAME`], connected
//! components, the best-ranked of each kept.
//!
//! Every pair of hits is compared, but most are told apart by the first part of their values: where the rest cannot lift the sum
//! over [`SAME`] (Cauchy-Schwarz over the tails), it is not looked at. The outcome is that of comparing in full.

use anchorite_index::Cancel;

/// Upstream's threshold.
const SAME: f32 = 0.94;
/// The first of so many parts is compared before the rest.
const PARTS: usize = 4;
/// Vectors compared with each other before the next are fetched: two tiles of 128 values each stay in a core's cache.
const TILE: usize = 256;
/// For rounding: a comparison ends early only when it is this far from counting.
const MARGIN: f32 = 1e-3;

/// Positions to keep, in order. A position without a vector equals no other. `None` when cancelled.
pub(crate) fn best_of_each_group(vectors: &[Option<Vec<f32>>], cancel: &Cancel) -> Option<Vec<usize>> {
    let there: Vec<(usize, &[f32])> = vectors.iter().enumerate().filter_map(|(i, v)| Some((i, v.as_deref()?))).collect();
    let heads = Heads::of(&there);
    let mut groups = Groups::new(vectors.len());
    for first in (0..there.len()).step_by(TILE) {
        for second in (first..there.len()).step_by(TILE) {
            if cancel.is_cancelled() {
                return None;
            }
            for a in first..there.len().min(first + TILE) {
                for b in second.max(a + 1)..there.len().min(second + TILE) {
                    if heads.may_be_same(a, b) && same(there[a].1, there[b].1) {
                        groups.join(there[a].0, there[b].0);
                    }
                }
            }
        }
    }
    Some((0..vectors.len()).filter(|&i| groups.best(i) == i).collect())
}

/// The first part of every vector, side by side, and the length of what follows it.
struct Heads {
    len: usize,
    values: Vec<f32>,
    tails: Vec<f32>,
}

impl Heads {
    fn of(vectors: &[(usize, &[f32])]) -> Self {
        let len = vectors.iter().map(|(_, v)| v.len()).min().unwrap_or(0).div_ceil(PARTS);
        let values = vectors.iter().flat_map(|(_, v)| &v[..len]).copied().collect();
        let tails = vectors.iter().map(|(_, v)| v[len..].iter().map(|x| x * x).sum::<f32>().sqrt()).collect();
        Self { len, values, tails }
    }

    /// False only where the whole inner product cannot exceed [`SAME`].
    fn may_be_same(&self, a: usize, b: usize) -> bool {
        let head = |i: usize| &self.values[i * self.len..(i + 1) * self.len];
        inner(head(a), head(b)) + self.tails[a] * self.tails[b] > SAME - MARGIN
    }
}

fn same(a: &[f32], b: &[f32]) -> bool {
    inner(a, b) > SAME
}

/// In eight running sums, so that the compiler can use vector instructions.
fn inner(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 8];
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    for (x, y) in a.iter().zip(b) {
        for lane in 0..8 {
            sums[lane] += x[lane] * y[lane];
        }
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum::<f32>()
}

/// Union-find whose root is the smallest, so best-ranked, member.
struct Groups(Vec<usize>);

impl Groups {
    fn new(len: usize) -> Self {
        Self((0..len).collect())
    }

    fn best(&mut self, mut i: usize) -> usize {
        while self.0[i] != i {
            self.0[i] = self.0[self.0[i]];
            i = self.0[i];
        }
        i
    }

    fn join(&mut self, i: usize, j: usize) {
        let (a, b) = (self.best(i), self.best(j));
        self.0[a.max(b)] = a.min(b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule as written, without shortcuts.
    fn reference(vectors: &[Option<Vec<f32>>]) -> Vec<usize> {
        let mut label: Vec<usize> = (0..vectors.len()).collect();
        loop {
            let before = label.clone();
            for i in 0..vectors.len() {
                for j in 0..vectors.len() {
                    if let (Some(a), Some(b)) = (&vectors[i], &vectors[j])
                        && a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>() > SAME
                    {
                        let least = label[i].min(label[j]);
                        (label[i], label[j]) = (least, least);
                    }
                }
            }
            if label == before {
                return (0..vectors.len()).filter(|&i| label[i] == i).collect();
            }
        }
    }

    /// Unit vectors along a slowly turning path, so that groups are chains; a plain congruential sequence adds noise.
    fn path(count: usize, dim: usize, turn: f32) -> Vec<Option<Vec<f32>>> {
        let mut state = 1_u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        let one = |i: usize| {
            let angle = i as f32 * turn;
            let mut v: Vec<f32> = (0..dim).map(|d| (angle * (d % 7 + 1) as f32 + d as f32).sin() + 0.3 * noise()).collect();
            let length = v.iter().map(|x| x * x).sum::<f32>().sqrt();
            v.iter_mut().for_each(|x| *x /= length);
            Some(v)
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn keeps_what_the_plain_rule_keeps() {
        for (dim, turn) in [(3, 0.05), (8, 0.02), (37, 0.01), (64, 0.03), (130, 0.05)] {
            let mut vectors = path(120, dim, turn);
            vectors[7] = None;
            vectors[50] = vectors[2].clone();
            let kept = best_of_each_group(&vectors, &Cancel::default()).expect("not cancelled");
            assert_eq!(kept, reference(&vectors), "dim {dim}");
            assert!(kept.len() < 120 && kept.contains(&7), "the case must have duplicates, dim {dim}");
        }
    }

    #[test]
    fn tiles_meet_each_other() {
        let mut vectors = path(TILE * 2 + 40, 16, 0.9);
        vectors[TILE * 2 + 30] = vectors[3].clone();
        vectors[TILE + 9] = vectors[TILE - 1].clone();
        let kept = best_of_each_group(&vectors, &Cancel::default()).expect("not cancelled");
        assert_eq!(kept, reference(&vectors));
        assert!(!kept.contains(&(TILE * 2 + 30)) && !kept.contains(&(TILE + 9)));
    }

    #[test]
    fn a_chain_of_near_duplicates_is_one_group() {
        let at = |degrees: f32| Some(vec![degrees.to_radians().cos(), degrees.to_radians().sin()]);
        // 15 degrees is cosine 0.966, 30 degrees is 0.866: the ends meet only through the middle, which comes last.
        let vectors = [at(0.0), at(30.0), at(90.0), at(15.0)];
        assert_eq!(best_of_each_group(&vectors, &Cancel::default()), Some(vec![0, 2]));
    }

    #[test]
    fn a_raised_flag_ends_it() {
        let cancel = Cancel::default();
        cancel.cancel();
        assert_eq!(best_of_each_group(&path(3, 4, 0.1), &cancel), None);
    }
}
