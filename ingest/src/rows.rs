//! Rows of sources for callers that do not fill a pool: the queries of a retrieval, a protected evaluation set.

use std::{path::PathBuf, sync::Arc, vec};

use crate::{
    ColumnOptions, Limits, Reach, RowResult, SourceError, VectorMode,
    source::{self, Settings, Shard},
};

/// Every row of some sources, in the order in which ingest reads them. A row that is none is a [`crate::Reject`]; damage ends the
/// rows with an error.
pub struct Rows {
    settings: Arc<Settings>,
    shards: vec::IntoIter<Shard>,
    open: Option<Box<dyn source::Rows>>,
    ready: vec::IntoIter<RowResult>,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("shards_left", &self.shards.len()).finish_non_exhaustive()
    }
}

impl Rows {
    /// Finds the files; none is read yet. Memory is bounded as [`Limits`] says of one record batch.
    ///
    /// # Errors
    /// A source that is not there, or a folder without any.
    pub fn open(sources: &[PathBuf], columns: ColumnOptions, mode: VectorMode, limits: Limits) -> Result<Self, SourceError> {
        let shards = source::find(sources, None, &limits, &Reach::default())?.shards.into_iter();
        let settings = Arc::new(Settings { columns, mode, limits, reach: Reach::default() });
        Ok(Self { settings, shards, open: None, ready: Vec::new().into_iter() })
    }

    /// The next row; none after the last.
    ///
    /// # Errors
    /// A file that cannot be read, is damaged, or has no usable column.
    pub fn next_row(&mut self) -> Result<Option<RowResult>, SourceError> {
        loop {
            if let Some(row) = self.ready.next() {
                return Ok(Some(row));
            }
            match &mut self.open {
                Some(rows) => match rows.next_rows()? {
                    Some(batch) => self.ready = batch.into_iter(),
                    None => self.open = None,
                },
                None => match self.shards.next() {
                    Some(shard) => self.open = Some(shard.open(&self.settings)?),
                    None => return Ok(None),
                },
            }
        }
    }
}
