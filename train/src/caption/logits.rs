//! A row of logits: penalties, log-softmax, the largest, nucleus sampling. In float32 as transformers has them, sums in float64.

use super::Decoding;

/// Repetition penalty and banned runs, on logits or log-probabilities.
pub(super) fn penalise(scores: &mut [f32], ids: &[u32], decoding: &Decoding) {
    if decoding.repetition_penalty != 1.0 {
        let mut seen: Vec<u32> = ids.to_vec();
        seen.sort_unstable();
        seen.dedup();
        for id in seen {
            if let Some(score) = scores.get_mut(id as usize) {
                *score = if *score < 0.0 { *score * decoding.repetition_penalty } else { *score / decoding.repetition_penalty };
            }
        }
    }
    let n = decoding.no_repeat_ngram;
    if n > 0 && ids.len() + 1 >= n {
        let end = &ids[ids.len() + 1 - n..];
        for run in ids.windows(n).filter(|run| &run[..n - 1] == end) {
            if let Some(score) = scores.get_mut(run[n - 1] as usize) {
                *score = f32::NEG_INFINITY;
            }
        }
    }
}

pub(super) fn log_softmax(logits: &mut [f32]) {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&l| f64::from(l - top).exp()).sum();
    let shift = f64::from(top) + sum.ln();
    logits.iter_mut().for_each(|l| *l = (f64::from(*l) - shift) as f32);
}

/// The first of the largest.
pub(super) fn largest(scores: &[f32]) -> usize {
    (1..scores.len()).fold(0, |best, i| if scores[i] > scores[best] { i } else { best })
}

/// The places of the `k` largest, the largest first; of equals the first.
pub(super) fn top(scores: &[f32], k: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..scores.len()).collect();
    let order = |a: &usize, b: &usize| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b));
    if k < places.len() {
        places.select_nth_unstable_by(k, order);
        places.truncate(k);
    }
    places.sort_by(order);
    places
}

/// A draw from the smallest set that holds `top_p` of the probability; `uniform` is between 0 and 1.
pub(super) fn nucleus(logits: &[f32], top_p: f32, temperature: f32, uniform: f64) -> usize {
    let mut scaled: Vec<f32> = logits.iter().map(|l| l / temperature).collect();
    log_softmax(&mut scaled);
    let order = top(&scaled, scaled.len());
    let mut kept = Vec::new();
    let mut total = 0.0;
    for &place in &order {
        let probability = f64::from(scaled[place]).exp();
        kept.push((place, probability));
        total += probability;
        if total >= f64::from(top_p) {
            break;
        }
    }
    let mut left = uniform * total;
    for &(place, probability) in &kept {
        left -= probability;
        if left < 0.0 {
            return place;
        }
    }
    kept.last().map_or(0, |&(place, _)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nucleus_leaves_out_the_tail_and_is_drawn_in_proportion() {
        // Probabilities 0.5, 0.3, 0.2.
        let logits: Vec<f32> = [0.5_f32, 0.3, 0.2].iter().map(|p| p.ln()).collect();
        let drawn = |top_p, uniform| nucleus(&logits, top_p, 1.0, uniform);
        assert_eq!([drawn(0.79, 0.0), drawn(0.79, 0.6), drawn(0.79, 0.63), drawn(0.79, 0.999)], [0, 0, 1, 1]);
        assert_eq!(drawn(1.0, 0.999), 2);
        assert_eq!(drawn(0.4, 0.999), 0);
    }

    #[test]
    fn a_run_that_would_come_twice_is_banned() {
        let decoding = Decoding { no_repeat_ngram: 2, ..Decoding::default() };
        let mut scores = [0.0; 4];
        penalise(&mut scores, &[1, 2, 3, 1], &decoding);
        assert_eq!(scores, [0.0, 0.0, f32::NEG_INFINITY, 0.0]);
    }
}
