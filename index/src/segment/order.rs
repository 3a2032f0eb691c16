//! Which rows lie side by side among the 7-bit rows: near ones, so that a search touches few pages of memory.
//!
//! ```text
//!   all rows ──nearest of a few leaders──► groups ──the same within each──► ... ──► groups of a page or two, side by side
//! ```
//!
//! A search compares a few hundred rows around its answer. In the order of arrival each lies on a page of its own, and finding
//! the page costs as much as reading the row. Insertion gains most: neighbours of consecutive nodes are in the nearest caches.

use half::f16;
use rayon::prelude::*;

use crate::{Cancel, StoreError, distance::Cpu};

/// Rows not worth parting: four pages of 7-bit rows of 512 values.
const GROUP: usize = 32;
/// Groups that one is parted into, at most; a multiple of the four queries that the kernel takes at once.
const PARTS: usize = 32;
/// Times that a group is parted, at most: equal rows never come apart.
const DEPTH: usize = 8;

/// f16 rows, and how to compare them.
pub(super) struct Rows<'a> {
    pub(super) cpu: Cpu,
    /// Values per row, padding included.
    pub(super) width: usize,
    pub(super) values: &'a [f16],
}

impl Rows<'_> {
    pub(super) fn row(&self, at: u32) -> &[f16] {
        &self.values[at as usize * self.width..][..self.width]
    }

    fn widened(&self, at: u32) -> Vec<f32> {
        self.row(at).iter().map(|v| v.to_f32()).collect()
    }

    /// The nearest leader; `leaders` are a multiple of four.
    fn nearest(&self, at: u32, leaders: &[Vec<f32>]) -> u8 {
        let row = self.row(at);
        let mut best = (f32::NEG_INFINITY, 0);
        for (four, first) in leaders.chunks_exact(4).zip((0u8..).step_by(4)) {
            let scores = self.cpu.dot_f16_x4(row, [&four[0], &four[1], &four[2], &four[3]]);
            for (score, leader) in scores.into_iter().zip(first..) {
                if score > best.0 {
                    best = (score, leader);
                }
            }
        }
        best.1
    }
}

/// All positions of `rows`, near ones side by side. The outcome does not depend on the number of threads.
pub(super) fn near_together(rows: &Rows<'_>, cancel: &Cancel) -> Result<Vec<u32>, StoreError> {
    let mut order: Vec<u32> = (0..(rows.values.len() / rows.width) as u32).collect();
    part(rows, &mut order, DEPTH, cancel)?;
    Ok(order)
}

fn part(rows: &Rows<'_>, group: &mut [u32], depth: usize, cancel: &Cancel) -> Result<(), StoreError> {
    if group.len() <= GROUP || depth == 0 {
        return Ok(());
    }
    if cancel.is_cancelled() {
        return Err(StoreError::Cancelled);
    }
    let leaders = leaders(rows, group);
    let mut led: Vec<(u8, u32)> = group.par_iter().map(|&at| (rows.nearest(at, &leaders), at)).collect();
    led.sort_unstable();
    group.iter_mut().zip(&led).for_each(|(place, (_, at))| *place = *at);
    let mut parts = Vec::with_capacity(PARTS);
    let mut rest = group;
    for same in led.chunk_by(|a, b| a.0 == b.0) {
        let (part, others) = rest.split_at_mut(same.len());
        parts.push(part);
        rest = others;
    }
    drop(led);
    parts.into_par_iter().try_for_each(|group| part(rows, group, depth - 1, cancel))
}

/// Evenly spread members of the group, each followed by the nearest that is left.
fn leaders(rows: &Rows<'_>, group: &[u32]) -> Vec<Vec<f32>> {
    let count = PARTS.min(group.len() / GROUP * 4).max(4);
    let mut left: Vec<u32> = (0..count).map(|i| group[i * group.len() / count]).collect();
    let mut leaders = vec![rows.widened(left.swap_remove(0))];
    while let Some(last) = leaders.last()
        && !left.is_empty()
    {
        let score = |at: u32| rows.cpu.dot_f16(rows.row(at), last);
        let mut nearest = (0, score(left[0]));
        for (place, &at) in left.iter().enumerate().skip(1) {
            let found = score(at);
            if found > nearest.1 {
                nearest = (place, found);
            }
        }
        leaders.push(rows.widened(left.swap_remove(nearest.0)));
    }
    leaders
}
