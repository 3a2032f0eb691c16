//! Part pools into one, exactly: every living pair of every part, to the bit, in the order of the parts.

use std::path::Path;

use super::{reader::Pool, writer::PoolWriter};
use crate::{Cancel, Key, Pair, PairSink, PairStore, Precision, StoreError, segment::Source};

/// Which of two pairs stays when two pools know one key for different content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnConflict {
    /// Neither: the merge ends with [`StoreError::Duplicate`] and nothing of it is kept.
    #[default]
    Refuse,
    /// The one that was there first.
    KeepFirst,
    /// The one that comes later.
    TakeLast,
}

/// What [`PoolWriter::merge`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Merged {
    /// Generation after it.
    pub generation: u64,
    /// Pairs whose key was new.
    pub added: u64,
    /// Pairs that were there with the same content.
    pub same: u64,
    /// Conflicts, each of which was reported.
    pub conflicts: u64,
}

impl PoolWriter {
    /// Takes every living pair of `parts` and commits once. Watermarks of the parts are left behind: they speak of other pools.
    /// `listed` hears of every conflict: the key, and which part had the second pair.
    ///
    /// # Errors
    /// [`StoreError::SpecMismatch`] for a part of another encoder, [`StoreError::Duplicate`] as [`OnConflict`] says, damage, a failed
    /// write, or [`StoreError::Cancelled`]. After an error nothing is kept, and the writer takes no more.
    pub fn merge(
        &mut self,
        parts: &[Pool],
        rule: OnConflict,
        cancel: &Cancel,
        listed: &mut dyn FnMut(&Key, &Path),
    ) -> Result<Merged, StoreError> {
        self.commit(cancel)?;
        for part in parts {
            self.check_part(part)?;
        }
        let merged = self.take_parts(parts, rule, cancel, listed);
        // Half a merge must not be committed by whoever goes on with this writer.
        self.latched |= merged.is_err();
        merged
    }

    fn check_part(&self, part: &Pool) -> Result<(), StoreError> {
        let (own, other) = (self.committed.spec(), part.spec());
        let (kept, found) = (self.committed.precision(), part.precision());
        if own == other && found == Precision::SevenBit && kept != found {
            return Err(StoreError::Rounded { part: part.dir().display().to_string(), found, kept });
        }
        if own == other {
            return Ok(());
        }
        let model = |pool: &Pool| pool.model().unwrap_or_default().to_owned();
        Err(StoreError::SpecMismatch {
            pool: own.encoder.clone(),
            pool_model: model(&self.committed),
            pool_dim: own.dim,
            encoder: other.encoder.clone(),
            encoder_model: model(part),
            encoder_dim: other.dim,
        })
    }

    fn take_parts(
        &mut self,
        parts: &[Pool],
        rule: OnConflict,
        cancel: &Cancel,
        listed: &mut dyn FnMut(&Key, &Path),
    ) -> Result<Merged, StoreError> {
        let mut merged = Merged::default();
        for part in parts {
            for entry in &part.manifest().segments {
                let source = Source::open(part.dir(), entry, part.spec().dim, None)?;
                for row in source.rows() {
                    if cancel.is_cancelled() {
                        return Err(StoreError::Cancelled);
                    }
                    self.take(&source.pair(row)?, rule, &mut merged, &mut |key| listed(key, part.dir()))?;
                }
            }
        }
        merged.generation = self.commit(cancel)?;
        Ok(merged)
    }

    fn take(
        &mut self,
        pair: &Pair,
        rule: OnConflict,
        merged: &mut Merged,
        listed: &mut dyn FnMut(&Key),
    ) -> Result<(), StoreError> {
        match self.content(&pair.key)? {
            None => {
                merged.added += 1;
                self.put(pair)
            }
            Some(content) if content == pair.content => {
                merged.same += 1;
                Ok(())
            }
            Some(_) => {
                merged.conflicts += 1;
                listed(&pair.key);
                match rule {
                    OnConflict::Refuse => Err(StoreError::Duplicate { key: pair.key.clone() }),
                    OnConflict::KeepFirst => Ok(()),
                    OnConflict::TakeLast => {
                        self.delete(std::slice::from_ref(&pair.key))?;
                        self.put(pair)
                    }
                }
            }
        }
    }
}
