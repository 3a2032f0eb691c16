//! Prepared inputs to ONNX Runtime's tensors, and its tensors to rows.

use std::borrow::Cow;

use half::f16;
use ort::value::{DynValue, Tensor};

use crate::model::scan::ElementType;
use crate::model::{ImageBinding, Input};
use crate::{Pixels, Tokens};

pub(super) fn floats(input: &Input, shape: Vec<usize>, values: Vec<f32>) -> ort::Result<DynValue> {
    match input.element {
        ElementType::F16 => {
            let values: Vec<f16> = values.into_iter().map(f16::from_f32).collect();
            Tensor::from_array((shape, values)).map(Tensor::into_dyn)
        }
        _ => Tensor::from_array((shape, values)).map(Tensor::into_dyn),
    }
}

pub(super) fn integers(input: &Input, shape: Vec<usize>, values: Vec<u32>) -> ort::Result<DynValue> {
    match input.element {
        ElementType::I32 => {
            // Ids beyond a vocabulary of 2^31 do not exist; ONNX Runtime refuses the negative number they become.
            let values: Vec<i32> = values.into_iter().map(|v| v as i32).collect();
            Tensor::from_array((shape, values)).map(Tensor::into_dyn)
        }
        _ => {
            let values: Vec<i64> = values.into_iter().map(i64::from).collect();
            Tensor::from_array((shape, values)).map(Tensor::into_dyn)
        }
    }
}

pub(super) fn extract(output: &DynValue) -> ort::Result<(Vec<i64>, Cow<'_, [f32]>)> {
    if let Ok((shape, values)) = output.try_extract_tensor::<f16>() {
        return Ok((shape.to_vec(), values.iter().map(|v| v.to_f32()).collect()));
    }
    let (shape, values) = output.try_extract_tensor::<f32>()?;
    Ok((shape.to_vec(), Cow::Borrowed(values)))
}

pub(super) fn check_pixels(binding: &ImageBinding, pixels: &Pixels) -> Result<(), String> {
    let (height, width) = (pixels.height, pixels.width);
    let fits = |fixed: Option<usize>, found: usize| found > 0 && fixed.is_none_or(|f| f == found);
    if !fits(binding.height, height) || !fits(binding.width, width) {
        let show = |fixed: Option<usize>| fixed.map_or("any".to_owned(), |f| f.to_string());
        let (rows, columns) = (show(binding.height), show(binding.width));
        return Err(format!("{height} x {width} pixels where the model takes {rows} x {columns}"));
    }
    let values = height.checked_mul(width).and_then(|area| area.checked_mul(3));
    if values == Some(pixels.values.len()) {
        return Ok(());
    }
    Err(format!("{} values for 3 x {height} x {width} pixels", pixels.values.len()))
}

pub(super) fn check_tokens(tokens: &Tokens, most: usize) -> Result<(), String> {
    match tokens.ids.len() {
        0 => Err("no tokens; a caption has at least its end mark".to_owned()),
        found if found > most => Err(format!("{found} tokens where the model takes at most {most}")),
        _ => Ok(()),
    }
}
