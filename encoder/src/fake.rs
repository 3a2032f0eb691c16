//! A deterministic encoder without a model, for tests of everything above the encoder. A picture is known by its bytes, a
//! caption by its words; captions that share words are near each other.

use sha2::{Digest, Sha256};

use crate::{Embedding, Encode, EncodeError, ImageError, Pixels, TextError, Tokens};

/// Hashes to unit vectors of `dim` values.
#[derive(Debug)]
pub struct FakeEncoder {
    dim: usize,
    fingerprint: String,
}

impl FakeEncoder {
    /// An encoder of `dim` values an embedding; encoders of one `dim` are equal.
    #[must_use]
    pub fn new(dim: usize) -> Self {
        Self { dim, fingerprint: format!("fake-{dim}") }
    }

    fn direction(&self, seed: &[u8]) -> Vec<f32> {
        let block = |i: usize| Sha256::new().chain_update(seed).chain_update((i as u64).to_le_bytes()).finalize();
        (0..self.dim)
            .map(|i| {
                let digest = block(i / 16);
                let at = (i % 16) * 2;
                f32::from(u16::from_le_bytes([digest[at], digest[at + 1]])) / 32_767.5 - 1.0
            })
            .collect()
    }
}

impl Encode for FakeEncoder {
    fn dim(&self) -> usize {
        self.dim
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn name(&self) -> &str {
        "fake"
    }

    /// Takes anything that begins like a JPEG, PNG or WebP file.
    fn prepare_image(&self, bytes: &[u8]) -> Result<Pixels, ImageError> {
        if bytes.is_empty() {
            return Err(ImageError::Empty);
        }
        let known = [&b"\xff\xd8\xff"[..], b"\x89PNG", b"RIFF"].iter().any(|magic| bytes.starts_with(magic));
        if !known {
            let head = bytes.iter().take(8).map(|b| format!("{b:02x}")).collect();
            return Err(ImageError::UnknownFormat { head });
        }
        let digest = Sha256::digest(bytes);
        Ok(Pixels { values: digest.iter().take(27).map(|&b| f32::from(b)).collect(), height: 3, width: 3 })
    }

    fn prepare_text(&self, text: &str) -> Result<Tokens, TextError> {
        let id = |word: &str| {
            let digest = Sha256::digest(word.to_lowercase());
            u32::from_le_bytes([digest[0], digest[1], digest[2], 0])
        };
        let ids: Vec<u32> = text.split_whitespace().map(id).collect();
        let truncated = ids.len() > 77;
        Ok(Tokens { ids: ids.into_iter().take(77).collect(), truncated })
    }

    fn encode_images(&self, batch: &[Pixels]) -> Result<Vec<Embedding>, EncodeError> {
        let one = |(item, pixels): (usize, &Pixels)| {
            let seed: Vec<u8> = pixels.values.iter().flat_map(|v| v.to_le_bytes()).collect();
            Embedding::normalized(self.direction(&seed)).map_err(|source| EncodeError::Embedding { item, source })
        };
        batch.iter().enumerate().map(one).collect()
    }

    fn encode_texts(&self, batch: &[Tokens]) -> Result<Vec<Embedding>, EncodeError> {
        let one = |(item, tokens): (usize, &Tokens)| {
            let mut sum = vec![1e-6; self.dim];
            for id in &tokens.ids {
                for (total, part) in sum.iter_mut().zip(self.direction(&id.to_le_bytes())) {
                    *total += part;
                }
            }
            Embedding::normalized(sum).map_err(|source| EncodeError::Embedding { item, source })
        };
        batch.iter().enumerate().map(one).collect()
    }
}
