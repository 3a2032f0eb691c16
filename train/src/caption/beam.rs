//! Beam search of one picture, as transformers 5 does it for a batch: of twice as many continuations as beams those that end are moved to the
//! finished ones if they stand among the first `beams`, the others go on. A picture's search depends on no other picture.

use super::{Decoding, logits};

/// What takes a continuation out of the running without removing it.
const OUT: f32 = -1.0e9;

/// Beams' settings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) beams: usize,
    pub(super) early_stopping: bool,
    pub(super) length_penalty: f32,
}

/// A caption so far.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Hypothesis {
    pub(super) ids: Vec<u32>,
    pub(super) score: f32,
    /// Whether it is a finished caption and not a place that is still free.
    pub(super) done: bool,
}

/// One picture's search.
#[derive(Clone, Debug)]
pub(super) struct Search {
    settings: Settings,
    prompt: usize,
    max_length: usize,
    pub(super) running: Vec<Hypothesis>,
    pub(super) finished: Vec<Hypothesis>,
    improvable: bool,
    pub(super) over: bool,
}

/// A continuation of the beam `parent`.
struct Next {
    parent: usize,
    hypothesis: Hypothesis,
    ends: bool,
}

impl Search {
    pub(super) fn new(settings: Settings, prompt: &[u32], max_new_tokens: usize) -> Self {
        let start = |score| Hypothesis { ids: prompt.to_vec(), score, done: false };
        Self {
            settings,
            prompt: prompt.len(),
            max_length: prompt.len() + max_new_tokens,
            // One beam at first: several equal ones would give several equal captions.
            running: vec![start(0.0)],
            finished: vec![start(OUT); settings.beams],
            improvable: true,
            over: false,
        }
    }

    /// Takes each running beam's logits; gives the beam that each of the next running ones continues.
    pub(super) fn step(&mut self, rows: &[Vec<f32>], end: &[u32], decoding: &Decoding) -> Vec<usize> {
        let next = self.continuations(rows, end, decoding);
        let all_end = next.iter().all(|n| n.ends);
        let scores: Vec<f32> = next.iter().map(|n| if n.ends { n.hypothesis.score + OUT } else { n.hypothesis.score }).collect();
        let chosen = logits::top(&scores, self.settings.beams);
        self.finish(&next);
        self.running = chosen.iter().map(|&i| Hypothesis { score: scores[i], ..next[i].hypothesis.clone() }).collect();
        self.judge(all_end);
        chosen.into_iter().map(|i| next[i].parent).collect()
    }

    /// Twice as many as beams (once more for each way to end), the best first.
    fn continuations(&self, rows: &[Vec<f32>], end: &[u32], decoding: &Decoding) -> Vec<Next> {
        let keep = (1 + end.len()).max(2) * self.settings.beams;
        let mut scores = Vec::new();
        for (beam, row) in self.running.iter().zip(rows) {
            let mut row = row.clone();
            logits::log_softmax(&mut row);
            logits::penalise(&mut row, &beam.ids, decoding);
            scores.extend(row.iter().map(|s| s + beam.score));
        }
        let words = rows.first().map_or(1, |row| row.len().max(1));
        let one = |place: usize| {
            let (parent, word) = (place / words, (place % words) as u32);
            let mut ids = self.running[parent].ids.clone();
            ids.push(word);
            let ends = end.contains(&word) || ids.len() >= self.max_length;
            Next { parent, hypothesis: Hypothesis { ids, score: scores[place], done: false }, ends }
        };
        logits::top(&scores, keep).into_iter().map(one).collect()
    }

    /// Puts those that end among the finished ones, where they are good enough.
    fn finish(&mut self, next: &[Next]) {
        let full = self.settings.early_stopping && self.finished.iter().all(|f| f.done);
        let length = next.first().map_or(1, |n| n.hypothesis.ids.len() - self.prompt) as f32;
        let mut merged = self.finished.clone();
        for (place, n) in next.iter().enumerate() {
            let done = n.ends && place < self.settings.beams;
            let mut score = n.hypothesis.score / length.powf(self.settings.length_penalty);
            for out in [full, !self.improvable, !done] {
                score += if out { OUT } else { 0.0 };
            }
            merged.push(Hypothesis { score, done, ids: n.hypothesis.ids.clone() });
        }
        let scores: Vec<f32> = merged.iter().map(|h| h.score).collect();
        self.finished = logits::top(&scores, self.settings.beams).into_iter().map(|i| merged[i].clone()).collect();
    }

    /// Whether the search can still get better.
    fn judge(&mut self, all_end: bool) {
        let length = self.running.first().map_or(1, |h| h.ids.len() - self.prompt) as f32;
        let best = self.running.first().map_or(OUT, |h| h.score) / length.powf(self.settings.length_penalty);
        let worst = self.finished.iter().map(|f| f.score).fold(f32::INFINITY, f32::min);
        self.improvable &= self.finished.iter().any(|f| best > if f.done { worst } else { OUT });
        let full = self.settings.early_stopping && self.finished.iter().all(|f| f.done);
        self.over = !self.improvable || full || all_end;
    }
}
