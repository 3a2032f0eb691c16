//! What a writer takes: every length and number against its bound, before anything is written.

use crate::{Pair, Spec, StoreError, Value, limits::Limits};

pub(super) fn bounded(what: &'static str, found: usize, max: usize) -> Result<(), StoreError> {
    if found <= max {
        return Ok(());
    }
    Err(StoreError::TooLarge { what, found: found as u64, max: max as u64 })
}

pub(super) fn check_pair(pair: &Pair, dim: usize) -> Result<(), StoreError> {
    if pair.image.is_none() && pair.text.is_none() {
        return Err(StoreError::NoVector { key: pair.key.clone() });
    }
    for vector in [&pair.image, &pair.text].into_iter().flatten() {
        check_vector(vector, dim)?;
    }
    let limits = Limits::STANDARD;
    bounded("source name", pair.source.file.len(), limits.source_bytes)?;
    bounded("caption", pair.caption.as_ref().map_or(0, String::len), limits.caption_bytes)?;
    bounded("picture", pair.picture.as_ref().map_or(0, Vec::len), limits.picture_bytes)?;
    bounded("number of fields", pair.fields.len(), limits.fields)?;
    for (name, value) in &pair.fields {
        bounded("field name", name.len(), limits.field_name_bytes)?;
        match value {
            Value::Text(text) => bounded("field text", text.len(), limits.field_text_bytes)?,
            Value::Float(number) if !number.is_finite() => {
                return Err(StoreError::FieldNotFinite { key: pair.key.clone(), field: name.clone() });
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_vector(vector: &[f32], dim: usize) -> Result<(), StoreError> {
    if vector.len() != dim {
        return Err(StoreError::Dimension { expected: dim, found: vector.len() });
    }
    if let Some(position) = vector.iter().position(|v| !v.is_finite()) {
        return Err(StoreError::NotFinite { position });
    }
    let length = vector.iter().map(|v| v * v).sum::<f32>().sqrt();
    if (length - 1.0).abs() > 1e-3 {
        return Err(StoreError::Length { length });
    }
    Ok(())
}

pub(super) fn check_spec(spec: &Spec, segment_rows: u64) -> Result<(), StoreError> {
    let limits = Limits::STANDARD;
    bounded("encoder fingerprint", spec.encoder.len(), limits.encoder_bytes)?;
    let between = |name, value, max| {
        if (1..=max).contains(&value) { Ok(()) } else { Err(StoreError::Parameter { name, value, min: 1, max }) }
    };
    between("dimension", spec.dim as u64, limits.dim as u64)?;
    between("segment_rows", segment_rows, limits.segment_rows)
}
