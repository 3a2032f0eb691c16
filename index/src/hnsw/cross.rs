//! Links for questions from the other side: what one question finds is linked together.
//!
//! Text and pictures lie apart, and the nearest pictures of a text need not be near each other. A graph made from pictures alone
//! then leads a text's search to some of them and not on to the others. Here vectors of the pool's own other side ask the
//! finished graph, and their first hit gets links to the other hits and back, as far as lists have free places. (After
//! RoarGraph, Chen et al., VLDB 2024, which projects a whole graph of questions.)
//!
//! The graph is read as it was while a step's questions are answered, so the outcome does not depend on the number of threads.

use rayon::prelude::*;

use super::{
    build::{Built, STEP},
    params::Plan,
    search::{SearchPlan, search},
    view::RowsView,
    visited::ScratchPool,
};
use crate::{
    StoreError,
    format::{graph::NONE, vectors::ZERO},
    quantize::QuantizedQuery,
};

/// One question for so many nodes. 2: on 100,000 CLIP-like vectors 4 found 0.005 less of text queries' answers at a beam of 24.
const NODES_PER_QUESTION: usize = 2;
/// Hits of a question that are linked. 10: as many as are usually asked for.
const HITS: usize = 10;
/// Beam width of a question.
const EF: usize = 48;

/// Adds links; returns how many. `asking` are the rows of the other side, `count` of them.
pub(super) fn link_answers(
    built: &mut Built,
    rows: &RowsView<'_>,
    asking: (&RowsView<'_>, usize),
    plan: &Plan,
) -> Result<u64, StoreError> {
    let (asking, count) = asking;
    let stride = (count * NODES_PER_QUESTION).div_ceil(built.nodes().max(1)).max(1);
    let questions: Vec<u32> = (0..count as u32).step_by(stride).collect();
    let scratch = ScratchPool::default();
    let mut added = 0;
    for step in questions.chunks(STEP) {
        if plan.cancel.is_cancelled() {
            return Err(StoreError::Cancelled);
        }
        let answers: Vec<Vec<u32>> =
            step.par_iter().map(|&row| answer(built, rows, &question(asking, row), plan, &scratch)).collect();
        for answer in &answers {
            if let Some((&first, others)) = answer.split_first() {
                for &other in others {
                    added += u64::from(link(built, first, other)) + u64::from(link(built, other, first));
                }
            }
        }
    }
    Ok(added)
}

/// A stored row of the other side as a query.
fn question(rows: &RowsView<'_>, row: u32) -> QuantizedQuery {
    let values: Vec<i8> = rows.row(row).iter().map(|&b| b.wrapping_sub(ZERO) as i8).collect();
    let bias = i32::from(ZERO) * values.iter().map(|&v| i32::from(v)).sum::<i32>();
    QuantizedQuery::of(values, bias, rows.scales[row as usize])
}

/// The first [`HITS`] nodes, nearest first; none where the graph is damaged or the caller has left.
fn answer(built: &Built, rows: &RowsView<'_>, query: &QuantizedQuery, plan: &Plan, scratch: &ScratchPool) -> Vec<u32> {
    let view = built.view(rows.cpu);
    let search_plan = SearchPlan::new(EF, &plan.cancel);
    scratch.with(|scratch| match search(&view, rows, query, search_plan, scratch) {
        Ok(_) => scratch.beam.nodes().take(HITS).collect(),
        Err(_) => Vec::new(),
    })
}

/// Whether a free place of `from` took the link.
fn link(built: &mut Built, from: u32, to: u32) -> bool {
    let width = built.width;
    let list = &mut built.level0[from as usize * width..][..width];
    let end = list.iter().position(|&link| link == NONE || link == to);
    match end {
        Some(place) if list[place] == NONE => {
            list[place] = to;
            true
        }
        _ => false,
    }
}
