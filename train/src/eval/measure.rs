//! Scores to outcomes, outcomes to figures. Everything in float64; ties go to the class that stands first, as NumPy's `argmax` has it.

use rayon::prelude::*;

use super::{
    evaluation::Metric,
    matrix::{Matrix, dot, rank},
    targets::Targets,
};

/// Bins of the calibration error, of equal width (Guo et al. 2017).
const BINS: usize = 15;

/// How one image fared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) label: usize,
    pub(crate) predicted: usize,
    /// Labels that scored higher than the right one.
    pub(crate) rank: usize,
    /// Softmax probability of the prediction at the model's scale.
    pub(crate) confidence: f64,
}

/// Each image against a head. A label's score is the largest of its classes'.
pub(crate) fn outcomes(images: &Matrix, labels: &[usize], head: &Matrix, targets: &Targets, scale: f64) -> Vec<Outcome> {
    let one = |at: usize| {
        let image = images.row(at);
        let class = |&class: &usize| dot(image, head.row(class));
        let scores: Vec<f64> = targets.members.iter().map(|m| m.iter().map(class).fold(f64::NEG_INFINITY, f64::max)).collect();
        outcome(&scores, labels[at], scale)
    };
    (0..images.rows()).into_par_iter().map(one).collect()
}

/// One image's scores, as cosines or logits (`scale` 1).
pub(crate) fn outcome(scores: &[f64], label: usize, scale: f64) -> Outcome {
    let predicted = (1..scores.len()).fold(0, |best, i| if scores[i] > scores[best] { i } else { best });
    let top = scores[predicted];
    let sum: f64 = scores.iter().map(|&s| ((s - top) * scale).exp()).sum();
    Outcome { label, predicted, rank: rank(scores, label), confidence: 1.0 / sum }
}

/// The figures of a set, over all of `outcomes` or a resample of them.
pub(crate) fn figures<'a>(outcomes: impl Iterator<Item = &'a Outcome>, labels: usize) -> Vec<(Metric, f64)> {
    let mut counts = Counts::new(labels);
    outcomes.for_each(|outcome| counts.add(outcome));
    counts.figures()
}

struct Counts {
    n: f64,
    top1: f64,
    top5: f64,
    /// Right, all of this label, all predictions of this label.
    labels: Vec<[f64; 3]>,
    /// Images, right ones, sum of confidences.
    bins: [[f64; 3]; BINS],
}

impl Counts {
    fn new(labels: usize) -> Self {
        Self { n: 0.0, top1: 0.0, top5: 0.0, labels: vec![[0.0; 3]; labels], bins: [[0.0; 3]; BINS] }
    }

    fn add(&mut self, outcome: &Outcome) {
        let right = f64::from(u8::from(outcome.rank == 0));
        self.n += 1.0;
        self.top1 += right;
        self.top5 += f64::from(u8::from(outcome.rank < 5));
        self.labels[outcome.label][0] += right;
        self.labels[outcome.label][1] += 1.0;
        self.labels[outcome.predicted][2] += 1.0;
        // A bin holds its upper end and not its lower.
        let bin = ((outcome.confidence * BINS as f64).ceil() as usize).clamp(1, BINS) - 1;
        for (sum, value) in self.bins[bin].iter_mut().zip([1.0, right, outcome.confidence]) {
            *sum += value;
        }
    }

    fn figures(&self) -> Vec<(Metric, f64)> {
        let present: Vec<&[f64; 3]> = self.labels.iter().filter(|l| l[1] > 0.0).collect();
        let per_class = present.iter().map(|l| l[0] / l[1]).sum::<f64>() / present.len() as f64;
        // F1 of labels that occur or are predicted, as scikit-learn averages them.
        let met: Vec<&[f64; 3]> = self.labels.iter().filter(|l| l[1] + l[2] > 0.0).collect();
        let f1 = met.iter().map(|l| 2.0 * l[0] / (l[1] + l[2])).sum::<f64>() / met.len() as f64;
        let error: f64 = self.bins.iter().map(|bin| (bin[1] - bin[2]).abs()).sum::<f64>() / self.n;
        let mut figures = vec![(Metric::Top1, self.top1 / self.n)];
        if self.labels.len() > 5 {
            figures.push((Metric::Top5, self.top5 / self.n));
        }
        figures.extend([(Metric::MeanPerClass, per_class), (Metric::MacroF1, f1), (Metric::Ece, error)]);
        figures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_first_class_in_prediction_and_in_rank() {
        let scores = [0.5, 0.7, 0.7];
        assert_eq!(outcome(&scores, 1, 1.0).predicted, 1);
        assert_eq!(outcome(&scores, 1, 1.0).rank, 0);
        assert_eq!(outcome(&scores, 2, 1.0).rank, 1);
    }

    #[test]
    fn a_confident_and_always_wrong_model_has_a_calibration_error_of_nearly_one() {
        let wrong = outcome(&[1.0, 0.0], 1, 100.0);
        let figures = figures([wrong, wrong].iter(), 2);
        assert!(figures.iter().any(|&(m, v)| m == Metric::Ece && v > 0.999));
        assert!(figures.iter().any(|&(m, v)| m == Metric::Top1 && v == 0.0));
    }
}
