//! What is done to pairs between two commits: where a key lies, what replaces what, what dies.

use std::collections::HashSet;

use super::{accept::check_pair, writer::PoolWriter};
use crate::{
    Cancel, ContentHash, Filter, Key, Pair, PairSink, PairStore, RowSet, StoreError, Upserted,
    filter::Plan,
    format::manifest::Manifest,
    segment::{RowsBySegment, Segment},
};

/// A pair that is alive for the writer: where it lies and what it was made from.
struct Place {
    segment: u64,
    row: u32,
    content: ContentHash,
}

impl PoolWriter {
    fn is_buried(&self, segment: u64, row: u32) -> bool {
        self.deaths.get(&segment).is_some_and(|rows| rows.contains(row as usize))
    }

    /// Where the pair of a key is, if it is alive.
    fn locate(&self, key: &Key) -> Result<Option<Place>, StoreError> {
        if let Some(pending) = &self.pending
            && let Some((row, content)) = pending.find(key)
        {
            return Ok(Some(Place { segment: pending.id(), row, content }));
        }
        for sealed in &self.sealed {
            let segment = sealed.entry().id;
            if let Some((row, content)) = sealed.find(key, |row| !self.is_buried(segment, row))? {
                return Ok(Some(Place { segment, row, content }));
            }
        }
        for (entry, segment) in self.committed.segments() {
            if let Some(row) = segment.find_local(key, |row| !self.is_buried(entry.id, row))? {
                return Ok(Some(Place { segment: entry.id, row, content: segment.content(row)? }));
            }
        }
        Ok(None)
    }

    fn bury_place(&mut self, key: &Key, place: &Place) {
        if let Some(pending) = self.pending.as_mut().filter(|pending| pending.id() == place.segment) {
            pending.bury(key);
        }
        let dead = self.deaths.entry(place.segment).or_default();
        dead.grow(place.row as usize + 1);
        dead.insert(place.row as usize);
    }

    /// Rows that match and are alive; the pending segment must be sealed.
    fn matching(&self, filter: &Filter, cancel: &Cancel) -> Result<RowsBySegment, StoreError> {
        let mut schema = self.committed.schema(cancel)?.clone();
        for sealed in &self.sealed {
            schema = schema.unite(sealed.pairs().schema(cancel)?);
        }
        schema.check(filter)?;
        let plan = Plan::new(filter);
        let mut found = RowsBySegment::new();
        for sealed in &self.sealed {
            found.insert(sealed.entry().id, sealed.pairs().select(&plan, cancel)?);
        }
        for (entry, segment) in self.committed.segments() {
            found.insert(entry.id, segment.select(&plan, cancel)?);
        }
        for (segment, rows) in &mut found {
            self.deaths.get(segment).into_iter().flat_map(RowSet::iter).for_each(|row| rows.remove(row));
        }
        Ok(found)
    }

    /// Writes the dead rows of every segment that has new ones.
    pub(super) fn bury(&self, manifest: &mut Manifest) -> Result<(), StoreError> {
        let (dir, dim, generation) = (self.disk.dir(), manifest.spec.dim, manifest.generation);
        for entry in &mut manifest.segments {
            if let Some(rows) = self.deaths.get(&entry.id) {
                *entry = Segment::open(dir, entry, 0, dim)?.bury(&self.disk, entry, rows, generation)?;
            }
        }
        Ok(())
    }

    fn check_batch(&self, batch: &[Pair]) -> Result<(), StoreError> {
        if self.latched {
            return Err(StoreError::Latched);
        }
        let mut seen = HashSet::with_capacity(batch.len());
        for pair in batch {
            check_pair(pair, self.committed.spec().dim)?;
            if !seen.insert(&pair.key) {
                return Err(StoreError::Duplicate { key: pair.key.clone() });
            }
        }
        Ok(())
    }
}

impl PairSink for PoolWriter {
    fn searchable(&self) -> Option<&dyn PairStore> {
        Some(self.committed())
    }

    fn content(&self, key: &Key) -> Result<Option<ContentHash>, StoreError> {
        Ok(self.locate(key)?.map(|place| place.content))
    }

    fn append(&mut self, batch: &[Pair]) -> Result<(), StoreError> {
        self.check_batch(batch)?;
        for pair in batch {
            if self.locate(&pair.key)?.is_some() {
                return Err(StoreError::Duplicate { key: pair.key.clone() });
            }
        }
        self.latching(|this| batch.iter().try_for_each(|pair| this.put(pair)))
    }

    fn upsert(&mut self, batch: &[Pair]) -> Result<Upserted, StoreError> {
        self.check_batch(batch)?;
        // Looked up first: damage met on the way must not leave half a batch.
        let places = batch.iter().map(|pair| self.locate(&pair.key)).collect::<Result<Vec<_>, _>>()?;
        self.latching(|this| {
            let mut done = Upserted::default();
            for (pair, place) in batch.iter().zip(places) {
                match place {
                    Some(place) if place.content == pair.content => {
                        done.unchanged += 1;
                        continue;
                    }
                    Some(place) => {
                        this.bury_place(&pair.key, &place);
                        done.replaced += 1;
                    }
                    None => done.added += 1,
                }
                this.put(pair)?;
            }
            Ok(done)
        })
    }

    fn delete(&mut self, keys: &[Key]) -> Result<u64, StoreError> {
        if self.latched {
            return Err(StoreError::Latched);
        }
        let mut places = Vec::new();
        let mut seen = HashSet::new();
        for key in keys.iter().filter(|key| seen.insert(*key)) {
            places.extend(self.locate(key)?.map(|place| (key, place)));
        }
        places.iter().for_each(|(key, place)| self.bury_place(key, place));
        Ok(places.len() as u64)
    }

    fn delete_where(&mut self, filter: &Filter, cancel: &Cancel) -> Result<u64, StoreError> {
        // Records of pending pairs are in their file alone, which can be read once it is sealed.
        self.latching(Self::seal)?;
        if self.committed.status().positions == 0 && self.sealed.is_empty() {
            return Ok(0);
        }
        let found = self.matching(filter, cancel)?;
        let count = found.values().map(|rows| rows.count() as u64).sum();
        for (segment, rows) in found.iter().filter(|(_, rows)| !rows.is_empty()) {
            let dead = self.deaths.entry(*segment).or_default();
            dead.grow(rows.positions());
            dead.unite(rows);
        }
        Ok(count)
    }

    fn progress(&self) -> &[u8] {
        &self.progress
    }

    fn commit_with(&mut self, progress: &[u8], cancel: &Cancel) -> Result<u64, StoreError> {
        self.set_progress(progress)?;
        self.commit(cancel)
    }

    fn commit(&mut self, cancel: &Cancel) -> Result<u64, StoreError> {
        let unchanged = self.pending_rows() == 0 && self.deaths.is_empty() && self.progress == self.committed.progress();
        if unchanged && !self.latched {
            return Ok(self.committed.manifest().generation);
        }
        self.latching(|this| this.publish(cancel))
    }
}
