//! AdamW as an ONNX model: for devices whose memory the CPU does not see. On the CPU the fused loop of `adamw` is four times as fast.
//!
//! Every parameter's chain of nodes is closed: it reads parameter, moments and gradient of that parameter only, and writes the new
//! ones last, elementwise. Outputs may therefore be bound to the inputs' own memory.

use std::collections::BTreeMap;

use super::decays;
use crate::Limits;
use crate::graph::{Element, Model, TensorType};
use crate::program::emit::Emitted;
use crate::program::{ParametersAs, Program, ProgramError};

/// The scalars that every run is fed, named as the fields of [`super::Update`].
const SCALARS: [&str; 7] = ["beta1", "beta2", "epsilon", "first", "second", "keep", "scale"];

/// A model that updates parameters of these shapes. For each parameter `p` it takes `p`, `p/m`, `p/v`, `p/g`, and for all the scalars
/// `beta1`, `beta2`, `epsilon`, `first`, `second`, `keep` and `scale` of [`super::Update`]; it gives `p/new`, `p/m/new` and `p/v/new`.
///
/// # Errors
/// [`ProgramError`]: a parameter is named like another's moment.
pub fn adamw_model(parameters: &BTreeMap<String, Vec<usize>>) -> Result<Model, ProgramError> {
    let mut program = Program::empty(Limits::default());
    for scalar in SCALARS {
        program.add_input(scalar, TensorType::new(Element::F32, []))?;
    }
    let one = program.scalar(1.0, "beta1")?;
    let rests = [program.sub(&one, "beta1")?, program.sub(&one, "beta2")?];
    let mut outputs = Vec::new();
    for (name, shape) in parameters {
        for suffix in ["", "/m", "/v", "/g"] {
            program.add_input(&format!("{name}{suffix}"), TensorType::new(Element::F32, shape.clone()))?;
        }
        outputs.extend(chain(&mut program, name, &rests, decays(shape))?);
    }
    let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
    program.to_model(&outputs, ParametersAs::Inputs)
}

/// One parameter's nodes; gives the names of its new value and moments.
fn chain(p: &mut Program, name: &str, rests: &[String; 2], decay: bool) -> Result<[String; 3], ProgramError> {
    let gradient = p.mul(&format!("{name}/g"), "scale")?;
    let square = p.mul(&gradient, &gradient)?;
    let m = average(p, &format!("{name}/m"), "beta1", (&rests[0], &gradient))?;
    let v = average(p, &format!("{name}/v"), "beta2", (&rests[1], &square))?;
    let root = p.unary("Sqrt", &v)?;
    let corrected = p.mul(&root, "second")?;
    let divisor = p.add(&corrected, "epsilon")?;
    let scaled = p.mul(&m, "first")?;
    let step = p.div(&scaled, &divisor)?;
    let kept = if decay { p.mul(name, "keep")? } else { name.to_owned() };
    let new = p.sub(&kept, &step)?;
    Ok([p.named(&new, &format!("{name}/new"))?, p.named(&m, &format!("{name}/m/new"))?, p.named(&v, &format!("{name}/v/new"))?])
}

fn average(p: &mut Program, old: &str, beta: &str, (rest, new): (&str, &str)) -> Emitted {
    let kept = p.mul(old, beta)?;
    let added = p.mul(new, rest)?;
    p.add(&kept, &added)
}
