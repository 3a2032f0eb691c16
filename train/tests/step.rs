//! Promise: a step's gradients are those of the whole batch at once however it is cut into chunks, a step that fails changes nothing,
//! and what comes out is the export that went in with other weights.

#![expect(clippy::unwrap_used, reason = "test code")]

mod step_support;
mod support;

use std::sync::atomic::AtomicBool;

use anchorite_train::graph::Tensor;
use anchorite_train::loss::SameGroup;
use anchorite_train::optim::AdamW;
use anchorite_train::select::{Lora, Selection, TowerChoice, WeightChoice};
use anchorite_train::step::{Form, Objective, Pictures, Plan, Recompute, Scope, StepError, StreamBatch, Towers, TrainError};
use step_support::{PICTURE, ROUNDING, SIZES, arf, clip, difference, go, gradients, plan, stream};
use support::{pixels, towers, trainer};

#[test]
fn chunks_give_the_gradients_of_the_whole_batch() {
    let whole = gradients(&mut clip(&plan(64, Form::Cached)), &arf());
    assert!(whole.len() > 50);
    for chunk in [1, 3, 5, 7] {
        let cut = gradients(&mut clip(&plan(chunk, Form::Cached)), &arf());
        let found = difference(&whole, &cut);
        assert!(found <= ROUNDING, "chunks of {chunk}: {found:e}");
    }
}

#[test]
fn one_run_gives_the_gradients_of_the_cached_form() {
    for (objective, scope) in
        [(Objective::Softmax, Scope::Separate), (Objective::Softmax, Scope::Joint), (Objective::Sigmoid, Scope::Joint)]
    {
        let plan = |form| Plan { objective, scope, ..plan(64, form) };
        let cached = gradients(&mut clip(&plan(Form::Cached)), &arf());
        let direct = gradients(&mut clip(&plan(Form::Auto)), &arf());
        let found = difference(&cached, &direct);
        assert!(found <= ROUNDING, "{objective:?} {scope:?}: {found:e}");
    }
}

#[test]
fn every_objective_and_scope_is_the_same_in_chunks() {
    for (objective, scope) in [(Objective::Softmax, Scope::Joint), (Objective::Sigmoid, Scope::Separate)] {
        for same_group in [SameGroup::Ignore, SameGroup::Positive, SameGroup::Negative] {
            let plan = |chunk| Plan { objective, scope, same_group, ..plan(chunk, Form::Cached) };
            let whole = gradients(&mut clip(&plan(64)), &arf());
            let cut = gradients(&mut clip(&plan(4)), &arf());
            let found = difference(&whole, &cut);
            assert!(found <= ROUNDING, "{objective:?} {scope:?} {same_group:?}: {found:e}");
        }
    }
}

#[test]
fn what_is_made_again_is_what_was_not_kept() {
    for chunk in [64, 4] {
        let plan = |recompute| Plan { recompute, ..plan(chunk, Form::Auto) };
        let again = gradients(&mut clip(&plan(Recompute::Cheap)), &arf());
        let kept = gradients(&mut clip(&plan(Recompute::Nothing)), &arf());
        let found = difference(&kept, &again);
        assert!(found <= ROUNDING, "chunks of {chunk}: {found:e}");
    }
}

#[test]
fn gradients_beyond_the_norm_are_clipped_before_the_update() {
    // AdamW does not see a factor of all gradients, unless it makes them small beside its epsilon.
    let moved = |clip_norm| {
        let optimizer = AdamW { clip_norm, weight_decay: 0.0, ..AdamW::default() };
        let mut trainer = clip(&Plan { optimizer, ..plan(64, Form::Auto) });
        let before = trainer.state();
        let norm = trainer.step(&arf(), 1e-3, &go()).unwrap().gradient_norm;
        let after = trainer.state();
        let far = |name: &String| {
            let (x, y) = (before.parameters[name].f32s().unwrap(), after.parameters[name].f32s().unwrap());
            x.iter().zip(&y).map(|(x, y)| f64::from((x - y).abs())).fold(0.0, f64::max)
        };
        (norm, before.parameters.keys().map(far).fold(0.0, f64::max))
    };
    let (free, tight, wide) = (moved(None), moved(Some(1e-6)), moved(Some(1e6)));
    assert!((free.0 - tight.0).abs() <= 1e-9 * free.0, "the norm is told before clipping: {free:?} {tight:?}");
    assert!((free.1 - 1e-3).abs() < 1e-5 && free.1 == wide.1, "{free:?} {wide:?}");
    // Of 1e-6 in all no single gradient has more, so no step is longer than half of the rate.
    assert!(tight.1 < 6e-4, "{tight:?}");
}

#[test]
fn accumulated_batches_give_the_mean_of_their_gradients() {
    let streams = arf();
    let mut twice = clip(&plan(8, Form::Auto));
    twice.accumulate(&streams, &go()).unwrap();
    twice.accumulate(&streams, &go()).unwrap();
    let mut once = clip(&plan(8, Form::Auto));
    let (a, b) = (twice.apply(1e-3).unwrap(), once.step(&streams, 1e-3, &go()).unwrap());
    assert!((a.loss - b.loss).abs() <= 1e-6 * b.loss);
    assert!((a.gradient_norm - b.gradient_norm).abs() <= 1e-6 * b.gradient_norm);
    assert_eq!(a.pairs, 2 * b.pairs);
    assert!(matches!(once.apply(1e-3), Err(StepError::NothingAccumulated)));
}

#[test]
fn training_lowers_the_loss_and_a_restored_state_goes_on_bit_for_bit() {
    let streams = arf();
    let mut first = clip(&plan(4, Form::Auto));
    let losses: Vec<f64> = (0..6).map(|_| first.step(&streams, 1e-3, &go()).unwrap().loss).collect();
    assert!(losses[5] < 0.9 * losses[0], "{losses:?}");
    let saved = first.state();
    let onward: Vec<f64> = (0..3).map(|_| first.step(&streams, 1e-3, &go()).unwrap().loss).collect();
    let mut second = clip(&plan(4, Form::Auto));
    second.restore(&saved).unwrap();
    assert_eq!(second.steps_done(), 6);
    let again: Vec<f64> = (0..3).map(|_| second.step(&streams, 1e-3, &go()).unwrap().loss).collect();
    assert_eq!(onward, again);
    assert_eq!(first.state(), second.state());
}

#[test]
fn a_state_of_another_plan_is_refused_and_changes_nothing() {
    let vision = Selection { towers: TowerChoice::Vision, ..Selection::default() };
    let state = clip(&Plan { train: vision, ..plan(4, Form::Auto) }).state();
    let mut trainer = clip(&plan(4, Form::Auto));
    let before = trainer.state();
    assert!(matches!(trainer.restore(&state), Err(TrainError::State { .. })));
    assert_eq!(trainer.state(), before);
}

#[test]
fn an_untrained_export_is_the_one_that_came_in() {
    let original = towers("exports/clip");
    let (vision, text) = clip(&plan(4, Form::Auto)).export_towers().unwrap();
    assert_eq!(vision, original.vision.model);
    assert_eq!(text, original.text.model);
}

#[test]
fn frozen_parameters_stay_and_trained_ones_move() {
    let choices = [
        (TowerChoice::Vision, WeightChoice::All),
        (TowerChoice::Both, WeightChoice::LastBlocks(1)),
        (TowerChoice::Text, WeightChoice::NormsAndBiases),
        (TowerChoice::Both, WeightChoice::Projections),
        (TowerChoice::Both, WeightChoice::Lora(Lora { rank: 2, alpha: 4.0 })),
    ];
    let original = towers("exports/clip");
    for (towers, weights) in choices {
        let train = Selection { towers, weights, logit_scale: false };
        let mut trainer = clip(&Plan { train, ..plan(4, Form::Auto) });
        let trained: Vec<String> = trainer.trained().iter().map(|n| n.trim_end_matches("/lora_a").to_owned()).collect();
        for _ in 0..2 {
            trainer.step(&arf(), 1e-2, &go()).unwrap();
        }
        let (vision, text) = trainer.export_towers().unwrap();
        let mut moved = 0;
        for (prefix, before, after) in [("vision.", &original.vision.model, &vision), ("text.", &original.text.model, &text)] {
            for ((name, x), (_, y)) in before.graph.initializers.iter().zip(&after.graph.initializers) {
                let learns = trained.contains(&format!("{prefix}{name}"));
                assert_eq!(x != y, learns, "{towers:?} {weights:?} {name}");
                moved += usize::from(x != y);
            }
        }
        println!("{towers:?} {weights:?}: {moved}");
        assert!(moved > 0);
    }
}

#[test]
fn adapters_are_merged_into_what_the_live_model_is() {
    // In one run of both towers, whose adapters once met under one name.
    let weights = WeightChoice::Lora(Lora { rank: 3, alpha: 5.0 });
    let plan = Plan { train: Selection { weights, ..Selection::default() }, ..plan(64, Form::Auto) };
    let mut adapted = clip(&plan);
    let before = adapted.embeddings(&arf(), &go()).unwrap();
    for _ in 0..4 {
        adapted.step(&arf(), 3e-2, &go()).unwrap();
    }
    let live = adapted.embeddings(&arf(), &go()).unwrap();
    let (vision, text) = adapted.export_towers().unwrap();
    let mut merged = towers("exports/clip");
    (merged.vision.model, merged.text.model) = (vision, text);
    let all = Plan { train: Selection::default(), ..plan };
    let written = trainer(merged, &all, SIZES).embeddings(&arf(), &go()).unwrap();
    let far = |a: &[Vec<f32>; 2], b: &[Vec<f32>; 2]| {
        a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    assert!(far(&live, &before) > 0.05, "the adapters changed nothing: {}", far(&live, &before));
    assert!(far(&live, &written) < 2e-5, "{}", far(&live, &written));
    // The base weights are in no state: only the adapters are trained.
    assert!(adapted.state().parameters.keys().all(|n| n.contains("/lora_") || n == "logit_scale"));
}

#[test]
fn the_softmax_bounds_the_logit_scale_and_a_frozen_one_stays() {
    let towers = |log_scale| Towers { log_scale, ..towers("exports/clip") };
    let run = |plan: &Plan, log_scale: f32| {
        let mut trainer = trainer(towers(log_scale), plan, SIZES);
        (0..3).map(|_| trainer.step(&arf(), 0.2, &go()).unwrap().logit_scale).collect::<Vec<f64>>()
    };
    let bounded = Plan { max_logit_scale: 3.0, ..plan(4, Form::Auto) };
    let free = run(&Plan { max_logit_scale: 100.0, ..bounded.clone() }, 1.5);
    assert!(free[0] > 3.2, "{free:?}");
    let held = run(&bounded, 1.5);
    assert!((held[0] - 3.0).abs() < 1e-5 && held.iter().all(|scale| *scale < 3.0 + 1e-5), "{held:?}");
    // SigLIP's is not bounded.
    let sigmoid = run(&Plan { objective: Objective::Sigmoid, ..bounded.clone() }, 1.5);
    assert!(sigmoid[0] > 3.2, "{sigmoid:?}");
    let frozen = Selection { logit_scale: false, ..Selection::default() };
    let scales = run(&Plan { train: frozen, ..bounded }, 3.0);
    assert!(scales.iter().all(|scale| (*scale - 3.0_f64.exp()).abs() < 1e-5), "{scales:?}");
}

#[test]
fn the_choices_name_the_right_weights() {
    let names = |weights| {
        let train = Selection { towers: TowerChoice::Vision, weights, logit_scale: false };
        clip(&Plan { train, ..plan(4, Form::Auto) }).trained()
    };
    assert_eq!(names(WeightChoice::Projections).len(), 1);
    // Two norms with two tensors, six matrices and six biases; then the last norm's two and the projection.
    assert_eq!(names(WeightChoice::LastBlocks(1)).len(), 16 + 3);
    assert_eq!(names(WeightChoice::LastBlocks(2)).len(), 32 + 3);
    assert_eq!(names(WeightChoice::Lora(Lora::default())).len(), 2 * 13);
}

#[test]
fn a_value_that_is_not_finite_is_an_error_that_names_stream_and_node_and_changes_nothing() {
    let mut trainer = clip(&plan(4, Form::Auto));
    let before = trainer.state();
    let mut streams = arf();
    if let Pictures::Own(values) = &mut streams[2].pictures {
        values[3 * PICTURE + 5] = f32::NAN;
    }
    let error = trainer.step(&streams, 1e-3, &go()).unwrap_err();
    let StepError::NotFinite { step: 1, stream, place, .. } = &error else { panic!("{error}") };
    assert!(stream.contains("anchors"), "{error}");
    assert!(place.contains("pixel_values"), "{error}");
    assert_eq!(trainer.state(), before);
}

#[test]
fn a_weight_that_overflows_is_named_by_the_node_that_it_makes_overflow() {
    let mut trainer = clip(&plan(4, Form::Cached));
    let mut state = trainer.state();
    let name = state.parameters.keys().find(|name| name.ends_with("layers.0.mlp.fc1.bias")).unwrap().clone();
    let shape = state.parameters[&name].shape().to_vec();
    state.parameters.insert(name, Tensor::from_f32(shape.clone(), &vec![3e38; shape[0]]).unwrap());
    trainer.restore(&state).unwrap();
    let error = trainer.step(&arf(), 1e-3, &go()).unwrap_err();
    assert!(
        matches!(&error, StepError::NotFinite { place, .. } if place.contains("layers.0") && place.ends_with("(Mul)")),
        "{error}"
    );
}

#[test]
fn a_cancelled_step_changes_nothing() {
    let mut trainer = clip(&plan(4, Form::Auto));
    let before = trainer.state();
    assert!(matches!(trainer.step(&arf(), 1e-3, &AtomicBool::new(true)), Err(StepError::Cancelled)));
    assert_eq!(trainer.state(), before);
}

#[test]
fn a_classifier_learns_its_classes() {
    let towers = towers("exports/clip");
    let head: Vec<f32> = (0..3 * 24).map(|i| (i as f32 * 0.9).cos()).collect();
    let plan = Plan { objective: Objective::Classifier, ..plan(4, Form::Auto) };
    let mut trainer = trainer(towers, &plan, SIZES);
    trainer.set_head(&Tensor::from_f32([3, 24], &head).unwrap()).unwrap();
    let batch = StreamBatch {
        tokens: Vec::new(),
        groups: Some(vec![0, 1, 2, 0, 1, 2]),
        ..stream("classes", 1.0, Pictures::Own(pixels(6 * PICTURE)), 0, 6)
    };
    let losses: Vec<f64> = (0..30).map(|_| trainer.step(std::slice::from_ref(&batch), 1e-2, &go()).unwrap().loss).collect();
    assert!(losses[29] < 0.1 * losses[0], "{losses:?}");
    assert!(trainer.trained().iter().all(|name| !name.starts_with("text.")));
    let wrong = StreamBatch { groups: Some(vec![3; 6]), ..batch };
    assert!(matches!(trainer.step(&[wrong], 1e-2, &go()), Err(StepError::Batch { .. })));
}

#[test]
fn batches_that_do_not_fit_are_refused_by_stream() {
    let mut trainer = clip(&plan(4, Form::Auto));
    let good = arf();
    let refused = |change: &dyn Fn(&mut StreamBatch)| {
        let mut streams = good.clone();
        change(&mut streams[2]);
        streams
    };
    let changes: [&dyn Fn(&mut StreamBatch); 5] = [
        &|s| s.tokens.truncate(3),
        &|s| s.pictures = Pictures::SameAs(2),
        &|s| s.pictures = Pictures::SameAs(0),
        &|s| s.mask = Some(vec![1]),
        &|s| s.weight = f32::NAN,
    ];
    for change in changes {
        let error = trainer.step(&refused(change), 1e-3, &go()).unwrap_err();
        assert!(matches!(&error, StepError::Batch { stream, .. } if stream == "anchors"), "{error}");
    }
}
