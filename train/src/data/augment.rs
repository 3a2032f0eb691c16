//! open_clip's training crop: which part of a picture a sample shows. A pure function of a draw.
//!
//! torchvision's `RandomResizedCrop.get_params`, with the same order of draws, ten tries and central fallback.

use anchorite_encoder::image::Window;

use super::Draw;
use crate::runner::Augment;

/// torchvision's own number.
const TRIES: usize = 10;

/// The part to show of a picture of `height x width`.
#[must_use]
pub fn random_window(augment: Augment, draw: &mut Draw, height: usize, width: usize) -> Window {
    let area = (height * width) as f64;
    let ratio = (augment.ratio.0.ln(), augment.ratio.1.ln());
    for _ in 0..TRIES {
        let target = area * draw.between(augment.scale);
        let aspect = draw.between(ratio).exp();
        let (w, h) = (rounded((target * aspect).sqrt()), rounded((target / aspect).sqrt()));
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            let (top, left) = (draw.below(height - h + 1), draw.below(width - w + 1));
            return Window { top, left, height: h, width: w };
        }
    }
    central(augment.ratio, height, width)
}

/// The largest central part whose ratio is allowed.
fn central((least, most): (f64, f64), height: usize, width: usize) -> Window {
    let own = width as f64 / height as f64;
    let (h, w) = match own {
        own if own < least => (rounded(width as f64 / least).clamp(1, height), width),
        own if own > most => (height, rounded(height as f64 * most).clamp(1, width)),
        _ => (height, width),
    };
    Window { top: (height - h) / 2, left: (width - w) / 2, height: h, width: w }
}

fn rounded(value: f64) -> usize {
    value.round_ties_even() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_lie_inside_and_have_the_asked_area_and_ratio() {
        let augment = Augment { scale: (0.5, 0.6), ratio: (0.75, 4.0 / 3.0) };
        for seed in 0..2_000 {
            let window = random_window(augment, &mut Draw::at(&[seed]), 300, 200);
            assert!(window.top + window.height <= 300 && window.left + window.width <= 200);
            let share = (window.height * window.width) as f64 / 60_000.0;
            let ratio = window.width as f64 / window.height as f64;
            assert!((0.49..0.61).contains(&share) && (0.74..1.35).contains(&ratio), "{window:?}");
        }
    }

    #[test]
    fn a_picture_too_long_for_any_try_gives_its_middle() {
        let window = random_window(Augment::default(), &mut Draw::at(&[1]), 10, 1_000);
        assert_eq!(window, Window { top: 0, left: 493, height: 10, width: 13 });
    }
}
