//! Anchors of a manifest: chosen before, read from the pool once, then drawn like a finetune set.

use std::{collections::HashSet, path::Path};

use anchorite_anchors::manifest;
use anchorite_index::{Cancel, ContentHash, PairStore, Parts, Record, RowId};

use super::{AnchorPair, AnchorSource, Query, Wanted};
use crate::data::{DataError, Order, PairData, PairSet, Reading, read::Filling, stream};

/// Records read from the pool together: 512 pictures of a caption dataset are some 20 MB.
const TOGETHER: usize = 512;

/// A manifest's anchors by number.
#[derive(Debug)]
pub struct ManifestAnchors {
    set: PairSet,
    order: Order,
    name: String,
}

/// How a manifest's anchors are drawn.
#[derive(Clone, Copy, Debug)]
pub struct Drawn {
    /// Anchors a batch.
    pub batch: usize,
    /// The run's seed.
    pub seed: u64,
    /// Unusable anchors allowed.
    pub max_rejects: u64,
}

impl ManifestAnchors {
    /// Reads the manifest's anchors from the pool it was made from; pairs set aside for validation stay out, and a pair that is the anchor of
    /// several queries is one.
    ///
    /// # Errors
    /// [`DataError`]: the manifest, the pool, anchors that are gone, unusable or too few.
    pub fn read(path: &Path, store: &dyn PairStore, drawn: Drawn, reading: Reading<'_>) -> Result<Self, DataError> {
        let manifest = manifest::read(path)?;
        let mut seen: HashSet<ContentHash> = HashSet::new();
        let unique: Vec<_> = manifest.anchors.iter().filter(|a| !a.validation && seen.insert(a.content)).collect();
        let mut filling = Filling::new("anchors", reading, drawn.max_rejects)?;
        let mut gone: Vec<String> = Vec::new();
        for part in unique.chunks(TOGETHER) {
            let keys: Vec<_> = part.iter().map(|a| a.key.clone()).collect();
            let rows = store.find(&keys)?;
            let present: Vec<RowId> = rows.iter().flatten().copied().collect();
            let mut records = store.get(&present, Parts { picture: true, vectors: false })?.into_iter();
            for (anchor, row) in part.iter().zip(rows) {
                let record = row.and_then(|_| records.next().flatten()).filter(|r| r.content == anchor.content);
                match record {
                    None => gone.push(anchor.key.to_string()),
                    Some(record) => filling.add(anchor.key.to_string(), pair(record))?,
                }
            }
        }
        if let Some(first) = gone.first() {
            return Err(DataError::AnchorsGone { missing: gone.len(), anchors: unique.len(), first: first.clone() });
        }
        let set = filling.finish(Vec::new())?;
        let rows = set.spool.len();
        if rows < drawn.batch {
            let remedy = "set anchors.batch to less, or choose more anchors";
            return Err(DataError::FewerThanBatch { set: "anchors", rows, batch: drawn.batch, remedy });
        }
        let order = Order::new(drawn.seed, stream::ANCHORS, rows, drawn.batch);
        Ok(Self { set, order, name: path.display().to_string() })
    }
}

/// What a store's record is as an anchor, or why it is none.
pub(super) fn pair(record: Record) -> Result<PairData, String> {
    let picture = record.picture.ok_or("the pool keeps no picture of it; ingest without --no-pictures")?;
    let caption = record.caption.filter(|c| !c.trim().is_empty()).ok_or("it has no caption")?.replace('\0', " ");
    Ok(PairData { picture, texts: vec![caption], captions: Vec::new(), group: 0 })
}

impl AnchorSource for ManifestAnchors {
    fn batch(&self, wanted: Wanted, _: &[Query<'_>], _: &Cancel) -> Result<Vec<AnchorPair>, DataError> {
        let read = |place: crate::data::Place| {
            let PairData { picture, mut texts, .. } = self.set.spool.get(place.row)?;
            Ok(AnchorPair { picture, caption: texts.pop().unwrap_or_default() })
        };
        self.order.batch(wanted.number).into_iter().map(read).collect()
    }

    fn fingerprint(&self) -> String {
        self.set.spool.fingerprint().to_owned()
    }

    fn describe(&self) -> String {
        format!("{} different anchors of {}", self.set.spool.len(), self.name)
    }
}
