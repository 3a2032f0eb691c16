//! Many pictures at once, a token at a time.

use anchorite_index::Cancel;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    CaptionError, Decoding, Method,
    beam::{Search, Settings},
    logits,
};

/// A language model that goes on from where it was. Two implementations: ONNX sessions, and toys in tests.
pub trait Step {
    /// The logits after each of `ids`. Row `r` continues row `parents[r]` of the call before; in the first call, picture `parents[r]`.
    ///
    /// # Errors
    /// [`CaptionError::Runtime`].
    fn step(&mut self, ids: &[Vec<u32>], parents: &[usize]) -> Result<Vec<Vec<f32>>, CaptionError>;
}

/// What was generated for a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// Token ids after the prompt; the end token is among them where it was reached.
    pub ids: Vec<u32>,
    /// Beam search: log-probability over length to the power of the penalty. Else the sum of log-probabilities.
    pub score: f32,
}

/// How captions begin and end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) prompt: Vec<u32>,
    pub(super) end: Vec<u32>,
}

/// Captions of `pictures` pictures, in order, [`Decoding::captions`] each. `names` tell pictures apart for the draws of a nucleus.
///
/// # Errors
/// As the model's, or [`CaptionError::Cancelled`].
pub fn generate(
    model: &mut dyn Step,
    names: &[u64],
    prompt: &[u32],
    end: &[u32],
    decoding: &Decoding,
    cancel: &Cancel,
) -> Result<Vec<Vec<Generated>>, CaptionError> {
    let ends = Ends { prompt: prompt.to_vec(), end: end.to_vec() };
    match decoding.method {
        Method::Beam { beams, early_stopping, length_penalty } => {
            let settings = Settings { beams, early_stopping, length_penalty };
            search(model, names.len(), &ends, settings, decoding, cancel)
        }
        Method::Greedy | Method::Nucleus { .. } => walk(model, names, &ends, decoding, cancel),
    }
}

fn alive(cancel: &Cancel) -> Result<(), CaptionError> {
    if cancel.is_cancelled() { Err(CaptionError::Cancelled) } else { Ok(()) }
}

/// One caption being written.
struct Walk {
    ids: Vec<u32>,
    score: f32,
    random: Option<ChaCha8Rng>,
    over: bool,
}

fn walk(
    model: &mut dyn Step,
    names: &[u64],
    ends: &Ends,
    decoding: &Decoding,
    cancel: &Cancel,
) -> Result<Vec<Vec<Generated>>, CaptionError> {
    let random = |name: u64, number: usize| match decoding.method {
        Method::Nucleus { seed, .. } => {
            let mut random = ChaCha8Rng::seed_from_u64(seed ^ name);
            random.set_stream(number as u64);
            Some(random)
        }
        _ => None,
    };
    let start = |(name, number)| Walk { ids: ends.prompt.clone(), score: 0.0, random: random(name, number), over: false };
    let mut walks: Vec<Walk> = names.iter().flat_map(|&name| (0..decoding.captions).map(move |n| (name, n))).map(start).collect();
    let mut active: Vec<usize> = (0..walks.len()).collect();
    let mut parents: Vec<usize> = active.iter().map(|walk| walk / decoding.captions).collect();
    for _ in 0..decoding.max_new_tokens {
        alive(cancel)?;
        let ids: Vec<Vec<u32>> = active.iter().map(|&walk| walks[walk].ids.clone()).collect();
        let rows = model.step(&ids, &parents)?;
        for (&walk, row) in active.iter().zip(rows) {
            walks[walk].take(row, ends, decoding);
        }
        parents = (0..active.len()).filter(|&row| !walks[active[row]].over).collect();
        active.retain(|&walk| !walks[walk].over);
        if active.is_empty() {
            break;
        }
    }
    let done = |walk: &Walk| Generated { ids: walk.ids[ends.prompt.len()..].to_vec(), score: walk.score };
    Ok(walks.chunks(decoding.captions).map(|of_picture| of_picture.iter().map(done).collect()).collect())
}

impl Walk {
    fn take(&mut self, mut row: Vec<f32>, ends: &Ends, decoding: &Decoding) {
        logits::penalise(&mut row, &self.ids, decoding);
        let word = match (&mut self.random, decoding.method) {
            (Some(random), Method::Nucleus { top_p, temperature, .. }) => {
                logits::nucleus(&row, top_p, temperature, random.random())
            }
            _ => logits::largest(&row),
        };
        logits::log_softmax(&mut row);
        self.score += row.get(word).copied().unwrap_or(0.0);
        self.ids.push(word as u32);
        self.over = ends.end.contains(&(word as u32));
    }
}

fn search(
    model: &mut dyn Step,
    pictures: usize,
    ends: &Ends,
    settings: Settings,
    decoding: &Decoding,
    cancel: &Cancel,
) -> Result<Vec<Vec<Generated>>, CaptionError> {
    let mut searches: Vec<Search> = (0..pictures).map(|_| Search::new(settings, &ends.prompt, decoding.max_new_tokens)).collect();
    let mut active: Vec<usize> = (0..pictures).collect();
    let mut parents: Vec<usize> = active.clone();
    while !active.is_empty() {
        alive(cancel)?;
        let ids: Vec<Vec<u32>> = active.iter().flat_map(|&s| searches[s].running.iter().map(|h| h.ids.clone())).collect();
        let mut rows = model.step(&ids, &parents)?.into_iter();
        let mut next = Vec::new();
        let mut first = 0;
        for &picture in &active {
            let search = &mut searches[picture];
            let own: Vec<Vec<f32>> = rows.by_ref().take(search.running.len()).collect();
            if own.first().is_some_and(|row| row.len() < 2 * settings.beams) {
                let reason = format!("{} beams are too many for {} words", settings.beams, own[0].len());
                return Err(CaptionError::Setting { field: "beams", reason });
            }
            let count = own.len();
            let continued = search.step(&own, &ends.end, decoding);
            if !search.over {
                next.extend(continued.into_iter().map(|parent| first + parent));
            }
            first += count;
        }
        active.retain(|&picture| !searches[picture].over);
        parents = next;
    }
    let of = |search: &Search| {
        let done = |h: &super::beam::Hypothesis| Generated { ids: h.ids[ends.prompt.len()..].to_vec(), score: h.score };
        search.finished.iter().take(decoding.captions).map(done).collect()
    };
    Ok(searches.iter().map(of).collect())
}
