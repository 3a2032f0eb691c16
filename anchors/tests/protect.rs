//! Protected evaluation sets: what is theirs is found, named with its picture, and dropped or only reported.

mod common;

use std::sync::Arc;

use anchorite_anchors::{
    CurateError, How, Limits, Policy, Protected, Surroundings, curate, manifest, perceptual_distance, perceptual_hash,
    policy::{Protect, ProtectedSource, Select},
};
use anchorite_encoder::{
    Encode,
    fake::FakeEncoder,
    image::{ImageLimits, decode},
};
use anchorite_index::{Cancel, Pair};
use common::*;

fn hash(bytes: &[u8]) -> Option<u128> {
    perceptual_hash(&decode(bytes, &ImageLimits::default()).expect("decodes"))
}

#[test]
fn perceptual_hashes_keep_through_scaling_and_brightness_and_tell_pictures_apart() {
    let limit = Protect::default().perceptual.expect("on by default") as f32;
    for n in 0..20 {
        let original = hash(&drawn(n, 128, 0)).expect("has contrast");
        let to = |bytes: &[u8]| perceptual_distance(original, hash(bytes).expect("has contrast"));
        assert!(to(&drawn(n, 57, 0)) <= limit, "scaled {n}: {}", to(&drawn(n, 57, 0)));
        assert!(to(&drawn(n, 128, 20)) <= limit, "brighter {n}: {}", to(&drawn(n, 128, 20)));
        for m in 0..n {
            assert!(to(&drawn(m, 128, 0)) > limit, "{n} and {m}");
        }
    }
}

#[test]
fn unlike_drawings_on_a_plain_ground_are_told_apart() {
    let spot = |x: u32, y: u32| {
        hash(&png(&image::RgbImage::from_fn(90, 90, |i, j| {
            let inside = (x..x + 10).contains(&i) && (y..y + 10).contains(&j);
            image::Rgb([if inside { 20 } else { 255 }; 3])
        })))
        .expect("has contrast")
    };
    assert!((spot(10, 20) ^ spot(50, 60)).count_ones() < 10);
    assert!(perceptual_distance(spot(10, 20), spot(50, 60)) > 60.0);
    assert!(perceptual_distance(spot(10, 20), spot(10, 20)) < f32::EPSILON);
}

#[test]
fn a_picture_without_contrast_has_no_hash_and_small_pictures_have_one() {
    assert_eq!(hash(&png(&image::RgbImage::from_pixel(40, 40, image::Rgb([9, 9, 9])))), None);
    let tiny = image::RgbImage::from_fn(3, 2, |x, y| image::Rgb([(x * 80 + y * 30) as u8; 3]));
    assert!(hash(&png(&tiny)).is_some());
    assert_eq!(hash(&png(&image::RgbImage::from_pixel(1, 1, image::Rgb([9, 9, 9])))), None);
}

/// The pool: 0 is a protected file byte for byte, 1 a protected picture scaled, 2 one whose vector alone is near, the rest are free.
fn setting(folder: &std::path::Path) -> (Vec<Pair>, Policy) {
    let mut pairs = pool(12);
    pairs[1] = pair("p1", &drawn(501, 90, 10), "scaled", "photo");
    pairs[2].image = Some(image_vector(&picture(502)));
    let test = [Some(picture(0)), Some(drawn(501, 64, 0)), Some(picture(502)), None, Some(b"broken".to_vec())];
    let source = parquet(folder, "test.parquet", vec![pictures(&test)]).display().to_string();
    let protect = Protect { sets: vec![ProtectedSource { name: "rendition".into(), source }], ..Protect::default() };
    let select = Select { k: Some(20), near_duplicate: None, ..Select::default() };
    (pairs, Policy { protect, select, ..Policy::default() })
}

fn asked(policy: &Policy, count: u32) -> anchorite_anchors::Questions {
    let folder = tempfile::tempdir().expect("set up");
    let file = parquet(folder.path(), "q.parquet", vec![pictures(&query_pictures(count))]);
    questions(&[file], policy).expect("set up")
}

#[test]
fn protected_pictures_are_dropped_by_bytes_by_look_and_by_vector() {
    let folder = tempfile::tempdir().unwrap();
    let (pairs, policy) = setting(folder.path());
    let curated = run(&store(&pairs), &policy, &asked(&policy, 1)).unwrap();
    let report = &curated.report;
    let found: Vec<(&str, &str, How)> =
        report.matches.iter().map(|m| (m.key.as_str(), m.matched.picture.as_str(), m.matched.how)).collect();
    assert_eq!(
        found,
        [
            ("p0", "data/test.parquet#0", How::Exact),
            ("p1", "data/test.parquet#1", How::Perceptual),
            ("p2", "data/test.parquet#2", How::Similar)
        ]
    );
    assert!(["p0", "p1", "p2"].iter().all(|k| !all_kept(&curated).contains(&(*k).to_owned())));
    assert_eq!(report.found, 9);
    assert_eq!(
        report.dropped["protected_exact"] + report.dropped["protected_perceptual"] + report.dropped["protected_similar"],
        3
    );
    assert_eq!((report.protected[0].pictures, report.protected[0].unreadable), (3, 2));
    assert_eq!(report.matched["rendition"]["protected_perceptual"], 1);
}

#[test]
fn a_copy_detection_model_tells_copies_that_the_other_tests_do_not_see() {
    let folder = tempfile::tempdir().unwrap();
    let (mut pairs, mut policy) = setting(folder.path());
    // Of p1 and p2 the pool keeps the protected pictures themselves; their vectors are others.
    (pairs[1].picture, pairs[2].picture) = (Some(drawn(501, 64, 0)), Some(picture(502)));
    pairs[2].image = Some(image_vector(&picture(2)));
    policy.protect = Protect { exact: false, perceptual: None, similarity: None, copy_similarity: Some(0.999), ..policy.protect };
    let (limits, cancel) = (Limits::default(), Cancel::default());
    let model: Arc<dyn Encode> = Arc::new(FakeEncoder::new(24));
    let asked = asked(&policy, 1);
    let curated = |copies: Option<Arc<dyn Encode>>| {
        let protected = Protected::read_with(&policy.protect, &encoder(), copies, &limits, &cancel).unwrap();
        let surroundings = Surroundings { limits: &limits, cancel: &cancel, told: &|_, _| {} };
        let curated = curate(&store(&pairs), &policy, &asked, &protected, surroundings).unwrap();
        (manifest::Header::new(&store(&pairs), &policy, &asked, &protected, &curated).copy_model, curated.report)
    };
    let (model, report) = curated(Some(model));
    let found: Vec<(&str, &str, How)> =
        report.matches.iter().map(|m| (m.key.as_str(), m.matched.picture.as_str(), m.matched.how)).collect();
    let expected = [("p0", 0), ("p1", 1), ("p2", 2)].map(|(key, row)| (key, format!("data/test.parquet#{row}"), How::Copy));
    assert_eq!(found, expected.each_ref().map(|(key, picture, how)| (*key, picture.as_str(), *how)));
    assert_eq!((report.dropped["protected_copy"], report.found, model.as_deref()), (3, 9, Some("fake-24")));
    let (model, report) = curated(None);
    assert_eq!((report.matches.len(), report.found, model), (0, 12, None), "without the model nothing is compared");
}

#[test]
fn an_audit_names_the_same_pairs_and_drops_none() {
    let folder = tempfile::tempdir().unwrap();
    let (pairs, mut policy) = setting(folder.path());
    let dropped = run(&store(&pairs), &policy, &asked(&policy, 1)).unwrap();
    policy.protect.audit = true;
    let audited = run(&store(&pairs), &policy, &asked(&policy, 1)).unwrap();
    assert_eq!(audited.report.matches, dropped.report.matches);
    assert_eq!(audited.report.found, 12);
    assert!(audited.report.dropped.is_empty());
}

#[test]
fn tests_that_are_switched_off_find_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (pairs, mut policy) = setting(folder.path());
    policy.protect = Protect { exact: false, perceptual: None, similarity: None, ..policy.protect };
    assert_eq!(run(&store(&pairs), &policy, &asked(&policy, 1)).unwrap().report.matches, []);
}

#[test]
fn pairs_without_stored_pictures_are_compared_by_vector_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (mut pairs, policy) = setting(folder.path());
    pairs.iter_mut().for_each(|p| p.picture = None);
    let report = run(&store(&pairs), &policy, &asked(&policy, 1)).unwrap().report;
    assert_eq!(report.pictures_not_compared, 12);
    assert!(report.matches.iter().all(|m| m.matched.how == How::Similar));
    assert_eq!(report.matches.iter().map(|m| m.key.as_str()).collect::<Vec<_>>(), ["p0", "p2"]);
}

#[test]
fn nearer_to_a_protected_picture_than_to_every_query_is_dropped_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let (pairs, mut policy) = setting(folder.path());
    policy.protect = Protect { exact: false, perceptual: None, similarity: None, nearer_than_queries: true, ..policy.protect };
    let asked = asked(&policy, 3);
    let queries: Vec<&[f32]> = asked.list.iter().map(|q| q.image.as_deref().unwrap()).collect();
    let protected = [image_vector(&picture(0)), image_vector(&drawn(501, 64, 0)), image_vector(&picture(502))];
    let nearer = |p: &&Pair| {
        let own = p.image.as_deref().unwrap();
        protected.iter().any(|v| queries.iter().all(|q| cosine(v, own) > cosine(q, own)))
    };
    let wanted: Vec<&str> = pairs.iter().filter(nearer).map(|p| p.key.as_str()).collect();
    let report = run(&store(&pairs), &policy, &asked).unwrap().report;
    assert_eq!(report.matches.iter().map(|m| m.key.as_str()).collect::<Vec<_>>(), wanted);
    assert!(!wanted.is_empty() && wanted.len() < pairs.len());
    assert!(report.matches.iter().all(|m| m.matched.how == How::Nearer));
}

#[test]
fn a_set_that_would_protect_nothing_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (pairs, mut policy) = setting(folder.path());
    let source = parquet(folder.path(), "bad.parquet", vec![pictures(&[None, Some(b"broken".to_vec())])]);
    policy.protect.sets[0].source = source.display().to_string();
    let error = run(&store(&pairs), &policy, &asked(&policy, 1)).unwrap_err();
    assert!(matches!(error, CurateError::EmptyProtected { ref set } if set == "rendition"), "{error}");
}
