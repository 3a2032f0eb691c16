//! Promise: a faster form of a model is compared with the model itself on the rows that are to be ingested, and one that does not agree is
//! refused with its figure.

#![expect(clippy::unwrap_used, reason = "test code")]

mod support;

use anchorite_encoder::{
    AgreementLimits, Embedding, Encode, EncodeError, ImageError, Pixels, TextError, Tokens, fake::FakeEncoder,
};
use anchorite_ingest::{IngestOptions, sample_agreement};
use support::{encoder, write_pairs};

/// Gives captions the embeddings of their neighbours in the batch.
struct Shifted(FakeEncoder);

impl Encode for Shifted {
    fn dim(&self) -> usize {
        self.0.dim()
    }

    fn fingerprint(&self) -> &str {
        self.0.fingerprint()
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn prepare_image(&self, bytes: &[u8]) -> Result<Pixels, ImageError> {
        self.0.prepare_image(bytes)
    }

    fn prepare_text(&self, text: &str) -> Result<Tokens, TextError> {
        self.0.prepare_text(text)
    }

    fn encode_images(&self, batch: &[Pixels]) -> Result<Vec<Embedding>, EncodeError> {
        self.0.encode_images(batch)
    }

    fn encode_texts(&self, batch: &[Tokens]) -> Result<Vec<Embedding>, EncodeError> {
        let mut embeddings = self.0.encode_texts(batch)?;
        embeddings.rotate_left(1);
        Ok(embeddings)
    }
}

#[test]
fn the_first_rows_decide_by_half() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pairs.parquet");
    write_pairs(&file, 0, 60);
    let (sources, options, limits) = ([file], IngestOptions::default(), AgreementLimits::default());
    let same = sample_agreement(&sources, &options, &encoder(), &encoder()).unwrap();
    assert_eq!(same.image.unwrap().items, 60);
    same.check(&limits).unwrap();
    let other = sample_agreement(&sources, &options, &encoder(), &Shifted(encoder())).unwrap();
    let refused = other.check(&limits).unwrap_err();
    assert_eq!(refused.half, "captions");
    assert!(refused.to_string().contains("centred cosine is"), "{refused}");
}

#[test]
fn too_few_rows_decide_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pairs.parquet");
    write_pairs(&file, 0, 5);
    let found = sample_agreement(&[file], &IngestOptions::default(), &encoder(), &encoder()).unwrap();
    assert!(found.check(&AgreementLimits::default()).unwrap_err().to_string().contains("5 items"));
}
