//! Whether a faster form of a model is good enough for the rows that are to be ingested: the first ones, encoded by both.

use std::{path::PathBuf, sync::Arc};

use anchorite_encoder::{Agreement, AgreementLimits, Disagreement, Embedding, Encode, EncodeError, Pixels, Tokens};

use crate::{
    IngestError, IngestOptions, VectorMode,
    source::{self, Settings},
};

/// Rows that are compared; 256: both forms of a ViT-B/32 take about ten seconds for them on four cores.
pub const AGREEMENT_ROWS: usize = 256;

/// How a faster form of a model agrees with the model itself on a sample; none where the rows have no such half.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct SampleAgreement {
    /// Of pictures.
    pub image: Option<Agreement>,
    /// Of captions.
    pub text: Option<Agreement>,
}

/// What is wrong with a sample, by half.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{half}: {source}")]
pub struct SampleDisagreement {
    /// Pictures or captions.
    pub half: &'static str,
    /// What was found.
    pub source: Disagreement,
}

impl SampleAgreement {
    /// Whether both halves are good enough.
    ///
    /// # Errors
    /// [`SampleDisagreement`]: the first that is not, or that there is neither.
    pub fn check(&self, limits: &AgreementLimits) -> Result<(), SampleDisagreement> {
        let halves = [("pictures", self.image), ("captions", self.text)];
        if halves.iter().all(|(_, half)| half.is_none()) {
            let source = Disagreement::Few { found: 0, min: limits.min_items };
            return Err(SampleDisagreement { half: "the first rows", source });
        }
        for (half, agreement) in halves {
            agreement
                .map_or(Ok(()), |agreement| agreement.check(limits))
                .map_err(|source| SampleDisagreement { half, source })?;
        }
        Ok(())
    }
}

/// Encodes the first [`AGREEMENT_ROWS`] usable rows of `sources` with both forms of a model; rows that cannot be prepared are passed over.
///
/// # Errors
/// [`IngestError`]: a source that cannot be read, or an encoder that fails.
pub fn sample_agreement(
    sources: &[PathBuf],
    options: &IngestOptions,
    exact: &dyn Encode,
    quick: &dyn Encode,
) -> Result<SampleAgreement, IngestError> {
    let sample = Sample::read(sources, options, exact)?;
    let batch = options.batch.get();
    let image = compare(&sample.pictures, batch, |part| exact.encode_images(part), |part| quick.encode_images(part))?;
    let text = compare(&sample.captions, batch, |part| exact.encode_texts(part), |part| quick.encode_texts(part))?;
    Ok(SampleAgreement { image, text })
}

/// Prepared halves of rows.
#[derive(Default)]
struct Sample {
    pictures: Vec<Pixels>,
    captions: Vec<Tokens>,
}

impl Sample {
    fn read(sources: &[PathBuf], options: &IngestOptions, encoder: &dyn Encode) -> Result<Self, IngestError> {
        let settings = Arc::new(Settings {
            columns: options.columns.clone(),
            mode: VectorMode::Encode,
            limits: options.limits.clone(),
            reach: options.reach.clone(),
        });
        let mut sample = Self::default();
        let found = source::find(sources, options.source_root.as_deref(), &options.limits, &options.reach)?;
        for shard in found.shards {
            let mut rows = shard.open(&settings)?;
            while let Some(read) = rows.next_rows()? {
                for row in read.into_iter().flatten() {
                    sample.pictures.extend(row.picture.as_deref().and_then(|bytes| encoder.prepare_image(bytes).ok()));
                    sample.captions.extend(row.caption.as_deref().and_then(|text| encoder.prepare_text(text).ok()));
                    if sample.pictures.len().max(sample.captions.len()) >= AGREEMENT_ROWS {
                        return Ok(sample);
                    }
                }
            }
        }
        Ok(sample)
    }
}

/// `None` where there is nothing to compare.
fn compare<T>(
    items: &[T],
    batch: usize,
    exact: impl Fn(&[T]) -> Result<Vec<Embedding>, EncodeError>,
    quick: impl Fn(&[T]) -> Result<Vec<Embedding>, EncodeError>,
) -> Result<Option<Agreement>, IngestError> {
    let (mut one, mut other) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
    for part in items.chunks(batch) {
        one.extend(exact(part)?);
        other.extend(quick(part)?);
    }
    Ok((!items.is_empty()).then(|| Agreement::between(&one, &other)))
}
