//! The resampler against a slow, obvious one in f64, on pictures and sizes nobody would think of.

use anchorite_encoder::image::{Preprocess, Rgb};
use proptest::prelude::*;

fn weight(filter: u64, x: f64) -> f64 {
    let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * std::f64::consts::PI).sin() / (x * std::f64::consts::PI) };
    let a = x.abs();
    match filter {
        1 if a < 3.0 => sinc(x) * sinc(x / 3.0),
        2 if a < 1.0 => 1.0 - a,
        3 if a < 1.0 => 1.5 * a.powi(3) - 2.5 * a.powi(2) + 1.0,
        3 if a < 2.0 => -0.5 * a.powi(3) + 2.5 * a.powi(2) - 4.0 * a + 2.0,
        4 if x > -0.5 && x <= 0.5 => 1.0,
        5 if a < 1.0 => sinc(x) * (0.54 + 0.46 * (a * std::f64::consts::PI).cos()),
        _ => 0.0,
    }
}

/// Resamples one line of levels: every input pixel is weighed for every output pixel, the sum rounded and clipped.
fn line(filter: u64, levels: &[u8], out: usize) -> Vec<u8> {
    let scale = levels.len() as f64 / out as f64;
    let stretch = scale.max(1.0);
    let support = [0.0, 3.0, 1.0, 2.0, 0.5, 1.0][filter as usize] * stretch;
    (0..out)
        .map(|output| {
            let centre = (output as f64 + 0.5) * scale;
            let (mut sum, mut total) = (0.0, 0.0);
            for (input, &level) in levels.iter().enumerate() {
                let distance = input as f64 + 0.5 - centre;
                // Pillow looks at pixels whose rounded edge is within the support.
                if (input as f64) < (centre - support + 0.5).floor() || input as f64 >= (centre + support + 0.5).floor() {
                    continue;
                }
                let weight = weight(filter, distance / stretch);
                sum += weight * f64::from(level);
                total += weight;
            }
            (sum / total).round().clamp(0.0, 255.0) as u8
        })
        .collect()
}

/// Resamples the columns of every row, per channel.
fn slow_columns(picture: &Rgb, filter: u64, width: usize) -> Rgb {
    let mut values = vec![0; width * picture.height() * 3];
    for (row, out) in picture.values().chunks(picture.width() * 3).zip(values.chunks_mut(width * 3)) {
        for channel in 0..3 {
            let levels: Vec<u8> = row.iter().skip(channel).step_by(3).copied().collect();
            for (level, out) in line(filter, &levels, width).into_iter().zip(out.iter_mut().skip(channel).step_by(3)) {
                *out = level;
            }
        }
    }
    Rgb::new(values, width, picture.height()).expect("as many bytes as pixels")
}

/// Resamples the rows: the same, on its side.
fn slow_rows(picture: &Rgb, filter: u64, height: usize) -> Rgb {
    on_its_side(&slow_columns(&on_its_side(picture), filter, height))
}

fn on_its_side(picture: &Rgb) -> Rgb {
    let (width, height) = (picture.width(), picture.height());
    let pixel = |x: usize, y: usize| picture.values()[(y * width + x) * 3..][..3].to_vec();
    let values = (0..width)
        .flat_map(|x| {
            (0..height).flat_map({
                let pixel = &pixel;
                move |y| pixel(x, y)
            })
        })
        .collect();
    Rgb::new(values, height, width).expect("as many bytes as pixels")
}

fn resized(picture: &Rgb, filter: u64, width: usize, height: usize) -> Rgb {
    let size = format!(r#"{{"size": {{"height": {height}, "width": {width}}}, "resample": {filter}, "do_normalize": false}}"#);
    Preprocess::from_hf_json(&size).expect("a plain configuration").crop(picture)
}

fn pictures() -> impl Strategy<Value = Rgb> {
    (1..60_usize, 1..60_usize).prop_flat_map(|(width, height)| {
        proptest::collection::vec(prop_oneof![Just(0_u8), Just(255_u8), any::<u8>()], width * height * 3)
            .prop_map(move |values| Rgb::new(values, width, height).expect("as many bytes as pixels"))
    })
}

fn largest_difference(a: &[u8], b: &[u8]) -> u8 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Each of the two passes is compared by itself: both round to whole levels, and where a sum is a tie f64 and fixed point
    /// may round apart, so that two passes together may be two levels apart without either being wrong.
    #[test]
    fn each_pass_of_the_fast_resampler_is_within_one_level_of_the_obvious_one(
        picture in pictures(), filter in 1..=5_u64, width in 1..50_usize, height in 1..50_usize,
    ) {
        let narrow = resized(&picture, filter, width, picture.height());
        let difference = largest_difference(narrow.values(), slow_columns(&picture, filter, width).values());
        prop_assert!(difference <= 1, "columns: {difference} levels apart");
        let both = resized(&picture, filter, width, height);
        let difference = largest_difference(both.values(), slow_rows(&narrow, filter, height).values());
        prop_assert!(difference <= 1, "rows: {difference} levels apart");
    }

    /// Only the window is evaluated; it must be what cutting the whole resized picture gives.
    #[test]
    fn a_window_is_cut_from_the_whole_resized_picture(
        picture in pictures(), filter in 0..=5_u64, rows in 8..50_usize, columns in 8..50_usize, cut in 1..8_usize,
    ) {
        let size = format!(r#""size": {{"height": {rows}, "width": {columns}}}, "resample": {filter}, "do_normalize": false"#);
        let whole = Preprocess::from_hf_json(&format!("{{{size}}}")).unwrap().crop(&picture);
        let cropped = format!(r#"{{{size}, "do_center_crop": true, "crop_size": {cut}}}"#);
        let window = Preprocess::from_hf_json(&cropped).unwrap().crop(&picture);
        let (top, left) = (centre(rows, cut), centre(columns, cut));
        for y in 0..cut {
            let from_whole = &whole.values()[((top + y) * columns + left) * 3..][..cut * 3];
            prop_assert_eq!(&window.values()[y * cut * 3..][..cut * 3], from_whole);
        }
    }

    #[test]
    fn one_colour_stays_that_colour(
        colour in any::<[u8; 3]>(), filter in 0..=5_u64, width in 1..90_usize, height in 1..90_usize, edge in 1..70_usize,
    ) {
        let picture = Rgb::new(colour.repeat(width * height), width, height).unwrap();
        let config = format!(r#"{{"size": {edge}, "crop_size": {edge}, "resample": {filter}, "do_normalize": false}}"#);
        let crop = Preprocess::from_hf_json(&config).unwrap().crop(&picture);
        prop_assert_eq!(crop.values(), colour.repeat(edge * edge));
    }
}

/// Python's `round((size - cut) / 2)`.
fn centre(size: usize, cut: usize) -> usize {
    let rest = size - cut;
    let half = rest / 2;
    if rest % 2 == 1 && half % 2 == 1 { half + 1 } else { half }
}
