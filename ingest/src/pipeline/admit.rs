//! Rows as they are read: their keys, and those that are decided before anything is decoded.

use anchorite_index::{Key, SourceRef};
use sha2::{Digest, Sha256};

use super::{Desk, OnChange};
use crate::{
    IngestError, Reject, Row, RowResult,
    prepare::{Chunk, Decision, Slot, row_content},
    reject::code,
};

impl Desk<'_> {
    /// Gives rows their keys, and decides those that need no work.
    pub(super) fn admit(&mut self, rows: Vec<RowResult>) -> Result<Chunk, IngestError> {
        let mut slots = Vec::with_capacity(rows.len());
        for row in rows {
            slots.push(match row.and_then(|row| Ok((self.key(&row)?, row))) {
                Err(reject) => Slot::Decided(Decision::Rejected(reject)),
                Ok((key, row)) => self.admit_row(key, row)?,
            });
        }
        let sequence = self.next_to_admit;
        self.next_to_admit += 1;
        Ok(Chunk { sequence, shard: self.shard, slots, expected: self.expected })
    }

    fn admit_row(&mut self, key: Key, row: Row) -> Result<Slot, IngestError> {
        let known = self.sink.content(&key)?;
        if known.is_some_and(|known| known == row_content(&row, self.job.vectors)) {
            self.duplicate(&row);
            return Ok(Slot::Decided(Decision::Present));
        }
        if known.is_some() && !self.may_replace() {
            return Ok(Slot::Decided(Decision::Rejected(changed(row.source, &key))));
        }
        Ok(match self.duplicate(&row) {
            Some(reject) => Slot::Decided(Decision::Rejected(reject)),
            None => Slot::Todo { key, row: Box::new(row), replaces: known.is_some() },
        })
    }

    /// Whether a changed row of the present shard takes the place of the pair that the pool has.
    fn may_replace(&self) -> bool {
        match self.job.options.on_change {
            OnChange::Upsert => true,
            OnChange::Reject => false,
            OnChange::SameSource => self.job.options.columns.key.is_some() || self.journal.is_known_place(self.shard),
        }
    }

    /// Notes the row's content; why the row is left out if that was met before.
    fn duplicate(&mut self, row: &Row) -> Option<Reject> {
        if !self.job.options.filters.drop_duplicates {
            return None;
        }
        let content = row_content(row, self.job.vectors).0;
        let (short, _) = content.as_chunks::<16>();
        let message = "an earlier row has the same picture and caption";
        (!self.contents.insert(short[0])).then(|| Reject::new(row.source.clone(), code::FILTERED_DUPLICATE, message))
    }

    fn key(&mut self, row: &Row) -> Result<Key, Reject> {
        if self.job.options.columns.key.is_none() {
            return Ok(derived_key(&row.source));
        }
        let refuse = |code, message: String| Err(Reject::new(row.source.clone(), code, message));
        let Some(text) = &row.key else { return refuse(code::KEY_NULL, "the key is null".to_owned()) };
        let key = match Key::new(text.as_str()) {
            Ok(key) => key,
            Err(error) => return refuse(code::KEY_INVALID, error.to_string()),
        };
        let digest: [u8; 32] = Sha256::digest(key.as_str()).into();
        let (short, _) = digest.as_chunks::<16>();
        if self.met.insert(short[0]) { Ok(key) } else { refuse(code::KEY_DUPLICATE, format!("an earlier row has the key {key}")) }
    }
}

/// A row whose name the pool knows for another pair. Never skipped in silence: it may be another file of the same name.
fn changed(source: SourceRef, key: &Key) -> Reject {
    let message = format!(
        "the pool has pair {key}, made from another picture or caption; if this is another file of the same name, ingest it under \
         another name (--source-root), and if the row was changed, let it take the other's place with --on-change upsert"
    );
    Reject::new(source, code::KEY_CHANGED, message)
}

/// The first 32 hexadecimal digits of SHA-256 over the file's name, a zero byte and the row's number (little-endian u64).
pub(crate) fn derived_key(source: &SourceRef) -> Key {
    let digest = Sha256::new().chain_update(&source.file).chain_update([0]).chain_update(source.row.to_le_bytes()).finalize();
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    Key::new(hex).expect("32 hexadecimal digits are a key")
}
