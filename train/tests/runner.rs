//! Promise: a run that is interrupted, damaged or fed worse goes on exactly where it was, or says why it does not.

mod run_support;

use std::fs;

use anchorite_index::Cancel;
use anchorite_train::{
    checkpoint::CheckpointError,
    data::{
        DataError,
        anchors::{AnchorPair, AnchorSource, Query, Wanted},
    },
    runner::{Augment, Captions, Ended, RunError},
};
use run_support::{Toy, config, curve, pictures, run, streams};

#[test]
fn a_run_interrupted_anywhere_has_the_curve_of_one_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut whole = config(&folder.path().join("whole"));
    whole.augment = Some(Augment::default());
    whole.accumulate = 2;
    let streams = streams(&whole, None);
    let ended = run(&whole, &streams, &mut Toy::default(), false, None).unwrap();
    assert!(matches!(ended, Ended::Done { steps: 12, .. }));
    let expected = curve(&whole);
    assert_eq!(expected.len(), 12);
    for stop in [1, 4, 7] {
        let mut parts = whole.clone();
        parts.output = folder.path().join(format!("parts{stop}"));
        fs::create_dir_all(&parts.output).unwrap();
        let ended = run(&parts, &streams, &mut Toy::default(), false, Some(stop)).unwrap();
        assert!(matches!(ended, Ended::Interrupted { step, .. } if step == stop), "{ended:?}");
        run(&parts, &streams, &mut Toy::default(), true, None).unwrap();
        assert_eq!(curve(&parts), expected);
    }
}

#[test]
fn batches_depend_neither_on_threads_nor_on_what_is_made_ahead() {
    let folder = tempfile::tempdir().unwrap();
    let mut one = config(&folder.path().join("one"));
    (one.data.workers, one.data.prefetch) = (1, 1);
    let streams = streams(&one, None);
    run(&one, &streams, &mut Toy::default(), false, None).unwrap();
    let mut many = one.clone();
    many.output = folder.path().join("many");
    fs::create_dir_all(&many.output).unwrap();
    (many.data.workers, many.data.prefetch) = (4, 9);
    run(&many, &streams, &mut Toy::default(), false, None).unwrap();
    assert_eq!(curve(&one), curve(&many));
}

#[test]
fn another_seed_is_another_run() {
    let folder = tempfile::tempdir().unwrap();
    let mut a = config(&folder.path().join("a"));
    a.steps = Some(2);
    let mut b = a.clone();
    (b.seed, b.output) = (1, folder.path().join("b"));
    for config in [&a, &b] {
        run(config, &streams(config, None), &mut Toy::default(), false, None).unwrap();
    }
    assert_ne!(curve(&a), curve(&b));
}

#[test]
fn a_damaged_checkpoint_is_passed_over_for_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder.path().join("run"));
    let streams = streams(&config, None);
    run(&config, &streams, &mut Toy::default(), false, None).unwrap();
    let expected = curve(&config);
    let checkpoints = config.output.join("checkpoints");
    // The newest of the kept: steps 10 and 12.
    let weights = checkpoints.join("step-000000012/weights.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    let mut toy = Toy::default();
    run(&config, &streams, &mut toy, true, None).unwrap();
    assert_eq!(toy.made, 2);
    assert_eq!(curve(&config), expected);

    for step in ["step-000000010", "step-000000012"] {
        fs::remove_file(checkpoints.join(step).join("second.safetensors")).unwrap();
    }
    let error = run(&config, &streams, &mut Toy::default(), true, None).unwrap_err();
    assert!(matches!(error, RunError::Checkpoint(CheckpointError::AllDamaged { .. })), "{error}");
}

#[test]
fn a_checkpoint_of_another_run_is_refused_by_what_differs() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder.path().join("run"));
    let first = streams(&config, None);
    run(&config, &first, &mut Toy::default(), false, Some(3)).unwrap();
    config.schedule.rate = 0.5;
    let error = run(&config, &first, &mut Toy::default(), true, None).unwrap_err().to_string();
    assert!(error.contains("schedule.rate is 0.00001, this run's is 0.5"), "{error}");
    config.schedule.rate = 1e-5;
    config.task.only.insert("split".to_owned(), vec!["heldout".to_owned(), "train".to_owned()]);
    let error = run(&config, &streams(&config, None), &mut Toy::default(), true, None).unwrap_err().to_string();
    assert!(error.contains("task.only"), "{error}");
}

#[test]
fn a_folder_with_a_run_is_not_begun_again_and_one_without_is_not_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder.path().join("run"));
    let streams = streams(&config, None);
    let error = run(&config, &streams, &mut Toy::default(), true, None).unwrap_err();
    assert!(matches!(error, RunError::NothingToResume { .. }), "{error}");
    run(&config, &streams, &mut Toy::default(), false, Some(2)).unwrap();
    let error = run(&config, &streams, &mut Toy::default(), false, None).unwrap_err();
    assert!(matches!(error, RunError::Exists { step: 2, .. }), "{error}");
}

#[test]
fn a_step_that_fails_names_itself_and_the_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder.path().join("run"));
    let mut toy = Toy { fails_at: Some(8), ..Toy::default() };
    let error = run(&config, &streams(&config, None), &mut toy, false, None).unwrap_err().to_string();
    assert!(error.contains("step 8: the loss is not finite; it began in stream \"task\""), "{error}");
    assert!(error.contains("step-000000005"), "{error}");
}

#[test]
fn only_the_newest_checkpoints_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder.path().join("run"));
    config.checkpoint.every = 1;
    config.checkpoint.keep = 3;
    run(&config, &streams(&config, None), &mut Toy::default(), false, None).unwrap();
    let mut names: Vec<_> = fs::read_dir(config.output.join("checkpoints")).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["step-000000010", "step-000000011", "step-000000012"]);
}

/// Anchors that end after some batches, like a server that dies.
#[derive(Debug)]
struct Dying(u64);

impl AnchorSource for Dying {
    fn batch(&self, wanted: Wanted, queries: &[Query<'_>], _: &Cancel) -> Result<Vec<AnchorPair>, DataError> {
        if wanted.number >= self.0 {
            return Err(DataError::Server {
                url: "http://somewhere".to_owned(),
                tries: 6,
                reason: "connection refused".to_owned(),
            });
        }
        assert_eq!(queries.len(), 16);
        let picture = pictures(1).remove(0);
        Ok((0..wanted.count).map(|i| AnchorPair { picture: picture.clone(), caption: format!("anchor {}", i % 3) }).collect())
    }

    fn fingerprint(&self) -> String {
        "dying".to_owned()
    }

    fn describe(&self) -> String {
        "dying".to_owned()
    }
}

#[test]
fn data_that_fails_while_training_leaves_a_checkpoint_to_go_on_from() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder.path().join("run"));
    config.anchors = Some(anchorite_train::runner::Anchors { server: Some("http://somewhere".to_owned()), ..Default::default() });
    let error = run(&config, &streams(&config, Some(Box::new(Dying(7)))), &mut Toy::default(), false, None).unwrap_err();
    assert!(matches!(&error, RunError::DataWhileTraining { step: 7, .. }), "{error}");
    let error = error.to_string();
    assert!(error.contains("gave no answer in 6 tries") && error.contains("--resume"), "{error}");

    run(&config, &streams(&config, Some(Box::new(Dying(100)))), &mut Toy::default(), true, None).unwrap();
    let mut whole = config.clone();
    whole.output = folder.path().join("whole");
    run(&whole, &streams(&whole, Some(Box::new(Dying(100)))), &mut Toy::default(), false, None).unwrap();
    assert_eq!(curve(&config), curve(&whole));
}

#[test]
fn streams_have_their_pairs_weights_and_groups() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder.path().join("run"));
    config.captions = Some(Captions { column: Some("caption".to_owned()), weight: 0.5, ..Captions::default() });
    config.anchors = Some(anchorite_train::runner::Anchors {
        batch: Some(6),
        weight: 0.25,
        server: Some("x".to_owned()),
        ..Default::default()
    });
    let streams = streams(&config, Some(Box::new(Dying(9))));
    assert_eq!(streams.per_epoch(), 440 / 16);
    let batch = streams.batch(3).unwrap();
    let shape: Vec<(&str, f32, usize)> = batch.streams.iter().map(|s| (s.name.as_str(), s.weight, s.pairs)).collect();
    assert_eq!(shape, [("task", 1.0, 16), ("captions", 0.5, 16), ("anchors", 0.25, 6)]);
    assert_eq!(batch.streams[1].pictures, anchorite_train::step::Pictures::SameAs(0));
    assert!(batch.streams.iter().all(|s| s.tokens.len() == s.pairs * 8 && s.mask.as_ref().unwrap().len() == s.tokens.len()));
    let groups = batch.streams[2].groups.as_ref().unwrap();
    assert_eq!(groups[0], groups[3]);
    assert_ne!(groups[0], groups[1]);
}
