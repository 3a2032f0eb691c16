//! Recall@k: how often what was looked for is among the first k hits.

use anchorite_index::{Cancel, RowId};

use crate::{Ask, RetrieveError, Retriever};

/// Asked at once: bounds memory, and lets the towers work in batches.
const BATCH: usize = 64;

/// The share of `questions` whose own pair is among the first `ask.k` hits, between 0 and 1; 0 for no questions. Each question
/// is an ask and the row it looks for.
///
/// # Errors
/// What [`Retriever::find`] says of a question.
pub fn recall(retriever: &Retriever, questions: &[(Ask, RowId)]) -> Result<f64, RetrieveError> {
    let mut found = 0_usize;
    for batch in questions.chunks(BATCH) {
        let asks: Vec<Ask> = batch.iter().map(|(ask, _)| ask.clone()).collect();
        let answers = retriever.find(&asks, &Cancel::default())?;
        let is_there = |(answer, (_, row)): &(&crate::Found, &(Ask, RowId))| answer.hits.iter().any(|hit| hit.row == *row);
        found += answers.found.iter().zip(batch).filter(is_there).count();
    }
    Ok(found as f64 / questions.len().max(1) as f64)
}
