//! Class names to a zero-shot head: each prompt's unit vector, their mean, to unit length again (CLIP, section 3.1.4).

use std::collections::HashMap;

use anchorite_anchors::policy::Templates;
use anchorite_encoder::{Embedding, Encode};
use anchorite_index::Cancel;
use rayon::prelude::*;

use super::{Cache, EvalError, EvalLimits, cache, matrix::Matrix};

/// One row per class.
pub(crate) struct HeadMaker<'a> {
    pub(crate) model: &'a str,
    pub(crate) encoder: &'a dyn Encode,
    pub(crate) limits: &'a EvalLimits,
    pub(crate) cancel: &'a Cancel,
}

impl HeadMaker<'_> {
    pub(crate) fn head(&self, names: &[String], templates: &Templates, cache: &mut Cache) -> Result<Matrix, EvalError> {
        let prompts: Vec<Vec<String>> = names.iter().map(|name| templates.prompts(name)).collect();
        self.texts(prompts.iter().flatten().map(String::as_str), cache)?;
        let mut head = Matrix::new(self.encoder.dim());
        for (name, prompts) in names.iter().zip(&prompts) {
            let fail = |reason: String| EvalError::Class { model: self.model.to_owned(), class: name.clone(), reason };
            let mut sum = vec![0.0_f64; self.encoder.dim()];
            for prompt in prompts {
                let vector = cache.get(&cache::text(prompt)).ok_or_else(|| fail(format!("no vector for {prompt:?}")))?;
                sum.iter_mut().zip(vector).for_each(|(sum, &v)| *sum += f64::from(v));
            }
            let mean = sum.into_iter().map(|sum| (sum / prompts.len().max(1) as f64) as f32).collect();
            let unit = Embedding::normalized(mean).map_err(|e| fail(format!("its prompts have no common direction: {e}")))?;
            head.push(unit.as_slice());
        }
        Ok(head)
    }

    /// Sees to it that every text is in the cache.
    pub(crate) fn texts<'t>(&self, texts: impl Iterator<Item = &'t str>, cache: &mut Cache) -> Result<(), EvalError> {
        let mut asked = std::collections::HashSet::new();
        let new: Vec<&str> = texts.filter(|t| cache.get(&cache::text(t)).is_none() && asked.insert(*t)).collect();
        for block in new.chunks(self.limits.block.max(1)) {
            if self.cancel.is_cancelled() {
                return Err(EvalError::Cancelled);
            }
            let made: Vec<Vec<Embedding>> =
                block.par_chunks(self.limits.encode_batch.max(1)).map(|batch| self.encode(batch)).collect::<Result<_, _>>()?;
            for (text, embedding) in block.iter().zip(made.into_iter().flatten()) {
                cache.put(cache::text(text), embedding.into_vec())?;
            }
        }
        Ok(())
    }

    fn encode(&self, batch: &[&str]) -> Result<Vec<Embedding>, EvalError> {
        let tokens = |text: &&str| {
            let fail = |e: anchorite_encoder::TextError| EvalError::Class {
                model: self.model.to_owned(),
                class: (*text).to_owned(),
                reason: e.to_string(),
            };
            self.encoder.prepare_text(text).map_err(fail)
        };
        let batch: Vec<_> = batch.iter().map(tokens).collect::<Result<_, _>>()?;
        self.encoder.encode_texts(&batch).map_err(|source| EvalError::Encode { model: self.model.to_owned(), source })
    }
}

/// Zero-shot heads by class list, each row times the model's scale.
#[derive(Clone, Debug)]
pub struct Heads(pub(super) HashMap<String, Matrix>);

impl Heads {
    /// One class list's head: a row of `dim` values per class, scaled already.
    #[must_use]
    pub fn given(list: &str, dim: usize, values: Vec<f32>) -> Self {
        Self(HashMap::from([(list.to_owned(), Matrix { dim, values })]))
    }

    /// A class list's head, row by row.
    #[must_use]
    pub fn of(&self, list: &str) -> Option<&[f32]> {
        self.0.get(list).map(|head| &head.values[..])
    }

    /// `(1 - alpha) from + alpha to`, row by row: WiSE-FT's mix of linear heads. Exactly one of them at 0 and 1.
    #[must_use]
    pub fn mix(from: &Self, to: &Self, alpha: f64) -> Self {
        let value = |(&a, &b): (&f32, &f32)| match alpha {
            0.0 => a,
            1.0 => b,
            alpha => ((1.0 - alpha) * f64::from(a) + alpha * f64::from(b)) as f32,
        };
        let mixed = |(name, a): (&String, &Matrix)| {
            let b = to.0.get(name)?;
            Some((name.clone(), Matrix { dim: a.dim, values: a.values.iter().zip(&b.values).map(value).collect() }))
        };
        Self(from.0.iter().filter_map(mixed).collect())
    }
}
