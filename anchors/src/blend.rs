//! Several inputs as one question: the weighted sum of their unit vectors, scaled to unit length. A negative weight says "not like this".
//!
//! ```text
//!   Ask ──pieces──► Piece (one input each) ──encoded or looked up──► vectors ──blended──► the question's vector
//! ```
//!
//! This is Rocchio's rule without its constants (Rocchio, "Relevance feedback in information retrieval", 1971): weights are the caller's.

use anchorite_index::Side;

use crate::{Ask, AskError, Input};

/// A sum shorter than this share of its weights has no direction worth the name: rounding of stored vectors (f16) decides it.
const LEAST_LENGTH: f64 = 1e-3;

/// One input of one question.
pub(crate) struct Piece<'a> {
    /// The question's place in the call.
    pub(crate) ask: usize,
    pub(crate) input: &'a Input,
    pub(crate) weight: f32,
    pub(crate) from: Option<Side>,
}

impl Piece<'_> {
    /// Which tower its vector comes from, as far as the question says.
    pub(crate) fn tower(&self) -> Option<Side> {
        match self.input {
            Input::Text(_) => Some(Side::Text),
            Input::Picture(_) => Some(Side::Image),
            Input::Row(_) | Input::Key(_) | Input::Embedding(_) => self.from,
        }
    }
}

/// The inputs of all questions, by question.
pub(crate) fn pieces(asks: &[Ask]) -> Vec<Piece<'_>> {
    let mut all = Vec::with_capacity(asks.len());
    for (place, ask) in asks.iter().enumerate() {
        all.push(Piece { ask: place, input: &ask.input, weight: ask.weight, from: ask.from });
        all.extend(ask.and.iter().map(|part| Piece { ask: place, input: &part.input, weight: part.weight, from: part.from }));
    }
    all
}

/// One vector for each of `asks` questions, from one for each piece, in order.
///
/// # Errors
/// [`AskError::Cancelling`] with the question's place.
pub(crate) fn blended(pieces: &[Piece<'_>], vectors: Vec<Vec<f32>>, asks: usize) -> Result<Vec<Vec<f32>>, (usize, AskError)> {
    let mut questions = Vec::with_capacity(asks);
    let mut vectors = vectors.into_iter();
    for group in pieces.chunk_by(|a, b| a.ask == b.ask) {
        let own: Vec<Vec<f32>> = vectors.by_ref().take(group.len()).collect();
        questions.push(blend(group, own).ok_or((group[0].ask, AskError::Cancelling))?);
    }
    Ok(questions)
}

fn blend(group: &[Piece<'_>], mut vectors: Vec<Vec<f32>>) -> Option<Vec<f32>> {
    // Alone, an input asks with its own vector, to the bit.
    if group.len() == 1 && group[0].weight > 0.0 {
        return vectors.pop();
    }
    let mut sum = vec![0.0_f64; vectors.first().map_or(0, Vec::len)];
    for (piece, vector) in group.iter().zip(&vectors) {
        let scale = f64::from(piece.weight) / length(vector.iter().map(|&v| f64::from(v)));
        sum.iter_mut().zip(vector).for_each(|(sum, &value)| *sum += scale * f64::from(value));
    }
    let weights: f64 = group.iter().map(|piece| f64::from(piece.weight.abs())).sum();
    let total = length(sum.iter().copied());
    // So written, a sum of zero weights is refused as well.
    (total > LEAST_LENGTH * weights).then(|| sum.iter().map(|value| (value / total) as f32).collect())
}

fn length(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

/// Which tower each question's vector comes from, where that is known: of a blend, only where every part comes from one and none is
/// taken away, since a difference lies where no tower's vectors do. `towers` says it of each piece.
pub(crate) fn modalities(pieces: &[Piece<'_>], towers: &[Option<Side>]) -> Vec<Option<Side>> {
    let mut questions = Vec::new();
    let mut towers = towers.iter().copied();
    for group in pieces.chunk_by(|a, b| a.ask == b.ask) {
        let of = group.iter().zip(towers.by_ref()).map(|(piece, tower)| tower.filter(|_| piece.weight > 0.0));
        questions.push(of.reduce(|first, next| if first == next { first } else { None }).flatten());
    }
    questions
}
