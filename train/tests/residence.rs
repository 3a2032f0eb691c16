//! Promise: where parameters are between steps, and what matrix products are computed in, change a step by rounding only; parameters and moments are
//! float32 wherever they are.
//!
//! The provider here is the processor: its memory is bound to inputs and outputs as a GPU's would be, and updated in place by the same sessions.

#![expect(clippy::unwrap_used, reason = "test code")]

mod step_support;
mod support;

use anchorite_train::graph::Element;
use anchorite_train::select::{Lora, Selection, WeightChoice};
use anchorite_train::step::{Form, Pictures, Plan, Precision, Residence, StepError, TrainState};
use step_support::{PICTURE, arf, clip, difference, go, gradients, plan};

fn bound(chunk: usize) -> Plan {
    Plan { residence: Residence::Provider, ..plan(chunk, Form::Auto) }
}

/// Largest difference of a value.
fn far(a: &TrainState, b: &TrainState) -> f64 {
    let of = |part: fn(&TrainState) -> &std::collections::BTreeMap<String, anchorite_train::graph::Tensor>| {
        assert!(part(a).keys().eq(part(b).keys()));
        let pairs = part(a).values().zip(part(b).values());
        let largest = pairs.flat_map(|(a, b)| a.f32s().unwrap().into_iter().zip(b.f32s().unwrap()));
        largest.map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max)
    };
    of(|s| &s.parameters).max(of(|s| &s.first_moments)).max(of(|s| &s.second_moments))
}

#[test]
fn parameters_in_the_providers_memory_take_the_same_steps() {
    // In one run, and in chunks whose gradients are added up there.
    for chunk in [64, 4] {
        let (mut here, mut there) = (clip(&plan(chunk, Form::Auto)), clip(&bound(chunk)));
        for step in 0..5 {
            let (a, b) = (here.step(&arf(), 1e-3, &go()).unwrap(), there.step(&arf(), 1e-3, &go()).unwrap());
            assert!((a.loss - b.loss).abs() <= 1e-6 * a.loss, "chunks of {chunk}, step {step}: {} {}", a.loss, b.loss);
            assert!((a.gradient_norm - b.gradient_norm).abs() <= 1e-5 * a.gradient_norm);
            assert!((a.logit_scale - b.logit_scale).abs() <= 1e-6 * a.logit_scale);
        }
        let found = far(&here.state(), &there.state());
        // Of the 5e-3 that five steps go: gradients that are nothing but rounding (attention's key biases) become steps too.
        assert!(found <= 1e-4, "chunks of {chunk}: {found:e}");
        let (a, b) = (here.export_towers().unwrap(), there.export_towers().unwrap());
        assert_eq!(a.0.graph.initializers.len(), b.0.graph.initializers.len());
        let (a, b) = (here.embeddings(&arf(), &go()).unwrap(), there.embeddings(&arf(), &go()).unwrap());
        let apart = a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart <= 1e-3, "{apart}");
    }
}

#[test]
fn a_state_goes_on_bit_for_bit_in_the_providers_memory() {
    let mut first = clip(&bound(4));
    (0..3).for_each(|_| drop(first.step(&arf(), 1e-3, &go()).unwrap()));
    let saved = first.state();
    let onward: Vec<f64> = (0..3).map(|_| first.step(&arf(), 1e-3, &go()).unwrap().loss).collect();
    // Restored before its parameters were moved there, and after.
    for settled in [false, true] {
        let mut second = clip(&bound(4));
        if settled {
            second.step(&arf(), 1e-2, &go()).unwrap();
        }
        second.restore(&saved).unwrap();
        let again: Vec<f64> = (0..3).map(|_| second.step(&arf(), 1e-3, &go()).unwrap().loss).collect();
        assert_eq!(onward, again);
        assert_eq!(first.state(), second.state());
    }
}

#[test]
fn the_scale_is_bounded_and_adapters_are_merged_there_too() {
    let weights = WeightChoice::Lora(Lora { rank: 2, alpha: 4.0 });
    let train = Selection { weights, ..Selection::default() };
    let run = |residence| {
        let mut trainer = clip(&Plan { train, max_logit_scale: 3.0, residence, ..plan(64, Form::Auto) });
        let scales: Vec<f64> = (0..3).map(|_| trainer.step(&arf(), 0.1, &go()).unwrap().logit_scale).collect();
        assert!(scales.iter().all(|scale| *scale < 3.0 + 1e-5), "{scales:?}");
        trainer.export_towers().unwrap().0
    };
    let (here, there) = (run(Residence::Host), run(Residence::Provider));
    for ((name, a), (_, b)) in here.graph.initializers.iter().zip(&there.graph.initializers) {
        let (Some(a), Some(b)) = (a.f32s(), b.f32s()) else { continue };
        let found = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(found <= 1e-3, "{name}: {found}");
    }
}

#[test]
fn a_value_that_is_not_finite_is_named_and_changes_nothing_there() {
    let mut trainer = clip(&bound(4));
    trainer.step(&arf(), 1e-3, &go()).unwrap();
    let before = trainer.state();
    let mut streams = arf();
    if let Pictures::Own(values) = &mut streams[2].pictures {
        values[3 * PICTURE + 5] = f32::NAN;
    }
    let error = trainer.step(&streams, 1e-3, &go()).unwrap_err();
    assert!(matches!(&error, StepError::NotFinite { stream, .. } if stream.contains("anchors")), "{error}");
    assert_eq!(trainer.state(), before);
    trainer.step(&arf(), 1e-3, &go()).unwrap();
}

#[test]
fn narrow_products_change_gradients_by_their_rounding() {
    // Half of the last of 8 and of 11 bits, through the layers of two towers; and far from nothing, or nothing was narrowed.
    for (compute, least, most) in [(Precision::Bf16, 1e-3, 0.2), (Precision::F16, 1e-4, 0.03)] {
        for chunk in [64, 4] {
            for residence in [Residence::Host, Residence::Provider] {
                let narrow = Plan { compute, residence, loss_scale: 256.0, ..plan(chunk, Form::Auto) };
                let (mut wide, mut narrow) = (clip(&plan(chunk, Form::Auto)), clip(&narrow));
                let exact = gradients(&mut wide, &arf());
                let mut found = gradients(&mut narrow, &arf());
                if compute == Precision::F16 {
                    for tensor in found.values_mut() {
                        let values: Vec<f32> = tensor.f32s().unwrap().iter().map(|v| v / 256.0).collect();
                        *tensor = anchorite_train::graph::Tensor::from_f32(tensor.shape().to_vec(), &values).unwrap();
                    }
                }
                let apart = difference(&exact, &found);
                assert!((least..most).contains(&apart), "{compute:?} in chunks of {chunk}, {residence:?}: {apart:e}");
                let (a, b) = (wide.apply(1e-3).unwrap(), narrow.apply(1e-3).unwrap());
                assert!((a.loss - b.loss).abs() <= 0.02 * a.loss, "{} {}", a.loss, b.loss);
                assert!((a.gradient_norm - b.gradient_norm).abs() <= 0.1 * a.gradient_norm, "{a:?} {b:?}");
                assert!(narrow.state().parameters.values().all(|tensor| tensor.element() == Element::F32));
                let losses: Vec<f64> = (0..6).map(|_| narrow.step(&arf(), 1e-3, &go()).unwrap().loss).collect();
                assert!(losses[5] < 0.95 * losses[0], "{compute:?}: {losses:?}");
            }
        }
    }
}

#[test]
fn a_loss_scale_beyond_float16_is_an_error_that_changes_nothing() {
    let mut trainer = clip(&Plan { compute: Precision::F16, loss_scale: 1e9, ..plan(64, Form::Auto) });
    let before = trainer.state();
    let error = trainer.step(&arf(), 1e-3, &go()).unwrap_err();
    assert!(matches!(error, StepError::NotFinite { .. }), "{error}");
    assert_eq!(trainer.state(), before);
}
