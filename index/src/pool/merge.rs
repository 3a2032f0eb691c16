//! Joining segments: their living rows are copied into one new segment with a fresh graph, the dead ones are left behind.
//!
//! ```text
//!   segments of a run ──Source: living rows, one by one──► Pending ──seal, graphs──► one segment ──switch_to──► next generation
//! ```
//!
//! Runs are of neighbouring segments, so that living rows keep their order. Memory is that of a segment being written; the old
//! files stay until the generation that no longer names them is two behind.

use super::writer::PoolWriter;
use crate::{
    Cancel, PairSink, StoreError,
    format::manifest::SegmentEntry,
    segment::{Pending, Sealed, Source},
};

/// Rows copied between two looks at the cancel flag, and between two reports.
const STEP: u64 = 4_096;

/// When a commit joins segments: as soon as `factor` of the newest are of one size class, they and smaller ones among them
/// become one.
///
/// Classes are `floor_rows`, then `factor` times as much each. A row is copied once per class, and a pool has at most `factor`
/// segments of each class and about as many of full size as [`super::WriterOptions::segment_rows`] gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergePolicy {
    /// Segments of a class before they are joined, at least 2. 8.
    pub factor: usize,
    /// Rows up to which segments count as of the smallest class. 4,096: so few are scanned about as fast as a graph is walked.
    pub floor_rows: u64,
}

impl Default for MergePolicy {
    fn default() -> Self {
        Self { factor: 8, floor_rows: 4_096 }
    }
}

impl MergePolicy {
    fn class(&self, rows: u64) -> u32 {
        let mut class = 0;
        let mut most = self.floor_rows.max(1);
        while rows > most {
            most = most.saturating_mul(self.factor.max(2) as u64);
            class += 1;
        }
        class
    }

    /// Which segments to join, as the number of those before them that stay; `rows` are the living rows of each.
    fn keep(&self, rows: &[u64], most: u64) -> Option<usize> {
        let classes: Vec<u32> = rows.iter().map(|rows| self.class(*rows)).collect();
        let highest = classes.iter().copied().max().unwrap_or(0);
        let run = |class: u32| classes.iter().rev().take_while(move |of| **of <= class);
        let is_full = |class: &u32| run(*class).filter(|of| *of == class).count() >= self.factor.max(2);
        let fits = |count: usize| {
            let sizes = rows.iter().rev().take(count);
            let fitting = sizes.scan(0u64, |sum, rows| {
                *sum = sum.saturating_add(*rows);
                Some(*sum)
            });
            fitting.take_while(|sum| *sum <= most).count()
        };
        let full = (0..=highest).filter(is_full).map(|class| run(class).count());
        let count = full.map(fits).max().filter(|count| *count > 1)?;
        Some(rows.len() - count)
    }
}

/// How far [`PoolWriter::compact`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacting {
    /// Rows copied; their graph is built after the last of a segment.
    pub done: u64,
    /// Rows to copy.
    pub total: u64,
}

/// What [`PoolWriter::compact`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Compacted {
    /// Generation after it.
    pub generation: u64,
    /// Segments before and after.
    pub segments: [u64; 2],
    /// Dead rows that are gone.
    pub dropped_rows: u64,
    /// Bytes before and after, of the files that the newest generation names.
    pub bytes: [u64; 2],
}

/// Segments that take the place of the last of the manifest's.
pub(super) struct Joined {
    /// Segments of the manifest that stay.
    pub(super) kept: usize,
    pub(super) segments: Vec<Sealed>,
}

/// Rewriting one run gives one segment.
struct Run {
    first: usize,
    count: usize,
    rows: u64,
}

impl PoolWriter {
    /// Joins the newest segments as the policy says; those not yet published have no graphs then, which are never built.
    pub(super) fn join_tail(&mut self, cancel: &Cancel) -> Result<Option<Joined>, StoreError> {
        let Some(policy) = self.options.merge else { return Ok(None) };
        let entries = self.all_entries();
        let rows: Vec<u64> = entries.iter().map(|entry| self.living(entry)).collect();
        let Some(kept) = policy.keep(&rows, self.options.segment_rows) else { return Ok(None) };
        let published = self.committed.manifest().segments.len();
        if kept >= published {
            // Those before the run among the unpublished ones stay as they are, and joining them is of no hurry.
            return Ok(None);
        }
        let joined = self.join(&entries[kept..], cancel, &mut |_| {})?;
        Ok(Some(Joined { kept, segments: joined.into_iter().collect() }))
    }

    fn all_entries(&self) -> Vec<SegmentEntry> {
        let published = self.committed.manifest().segments.iter();
        published.chain(self.sealed.iter().map(Sealed::entry)).cloned().collect()
    }

    /// Rows that will be alive after the commit under way.
    fn living(&self, entry: &SegmentEntry) -> u64 {
        let dying = self.deaths.get(&entry.id).map_or(0, |rows| rows.count() as u64);
        entry.live_rows().saturating_sub(dying)
    }

    /// Copies the living rows of `entries` into one segment; none when no row lives.
    fn join(
        &mut self,
        entries: &[SegmentEntry],
        cancel: &Cancel,
        report: &mut dyn FnMut(u64),
    ) -> Result<Option<Sealed>, StoreError> {
        let mut pending: Option<Pending> = None;
        let mut copied = 0u64;
        for entry in entries {
            let source = Source::open(self.disk.dir(), entry, self.committed.manifest().spec.dim, self.deaths.get(&entry.id))?;
            for row in source.rows() {
                if copied.is_multiple_of(STEP) {
                    report(copied);
                    if cancel.is_cancelled() {
                        return Err(StoreError::Cancelled);
                    }
                }
                let target = match &mut pending {
                    Some(pending) => pending,
                    none => none.insert(self.begin_segment()?),
                };
                target.put(&source.pair(row)?)?;
                copied += 1;
            }
        }
        report(copied);
        pending.map(Pending::seal).transpose()
    }

    /// Rewrites segments so that no dead row is left and there are as few as [`super::WriterOptions::segment_rows`] allows, after committing
    /// what is pending. Each rewritten run is published by itself: cancelled, what was done stays. Readers keep their generation.
    ///
    /// # Errors
    /// Damage met on the way, a failed write, or [`StoreError::Cancelled`].
    pub fn compact(&mut self, cancel: &Cancel, report: &mut dyn FnMut(Compacting)) -> Result<Compacted, StoreError> {
        self.commit(cancel)?;
        let before = self.committed.manifest().segments.clone();
        let runs = runs(&before, self.options.segment_rows);
        let total = runs.iter().map(|run| run.rows).sum();
        let (mut done, mut gone) = (0, 0);
        for run in &runs {
            // Runs before this one became one segment each.
            let first = run.first - gone;
            let after_run = done + run.rows;
            let kept = self.latching(|this| {
                this.rewrite(first, run.count, cancel, &mut |rows| report(Compacting { done: done + rows, total }))
            })?;
            gone += run.count - kept;
            done = after_run;
            report(Compacting { done, total });
        }
        if !runs.is_empty() {
            // Once more under another number: the generation before then names the same files, and the old ones can go.
            self.latching(|this| this.switch_to(this.committed.manifest().segments.clone()))?;
        }
        let after = self.committed.manifest();
        let bytes = |segments: &[SegmentEntry]| segments.iter().map(SegmentEntry::bytes).sum();
        Ok(Compacted {
            generation: after.generation,
            segments: [before.len() as u64, after.segments.len() as u64],
            dropped_rows: before.iter().map(|entry| entry.dead.rows).sum(),
            bytes: [bytes(&before), bytes(&after.segments)],
        })
    }

    /// Publishes a generation in which one segment, or none, has taken the place of `count`; returns how many.
    fn rewrite(&mut self, first: usize, count: usize, cancel: &Cancel, report: &mut dyn FnMut(u64)) -> Result<usize, StoreError> {
        let mut segments = self.committed.manifest().segments.clone();
        let mut joined = self.join(&segments[first..first + count], cancel, report)?;
        let plan = self.plan(cancel);
        joined.iter_mut().try_for_each(|sealed| sealed.build_graphs(&self.disk, &plan))?;
        segments.splice(first..first + count, joined.iter().map(|sealed| sealed.entry().clone()));
        self.switch_to(segments)?;
        Ok(usize::from(joined.is_some()))
    }
}

/// Runs of neighbours that together fit one segment and gain by it: two or more, or one with dead rows.
fn runs(segments: &[SegmentEntry], most: u64) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (place, entry) in segments.iter().enumerate() {
        match runs.last_mut() {
            Some(run) if run.rows.saturating_add(entry.live_rows()) <= most => {
                run.count += 1;
                run.rows += entry.live_rows();
            }
            _ => runs.push(Run { first: place, count: 1, rows: entry.live_rows() }),
        }
    }
    runs.retain(|run| run.count > 1 || segments[run.first].dead.rows > 0);
    runs
}

#[cfg(test)]
mod tests {
    use super::MergePolicy;

    #[test]
    fn the_newest_of_a_class_are_joined_when_there_are_enough() {
        let policy = MergePolicy { factor: 4, floor_rows: 10 };
        let keep = |rows: &[u64]| policy.keep(rows, 1_000);
        assert_eq!(keep(&[]), None);
        assert_eq!(keep(&[5, 5, 5]), None);
        assert_eq!(keep(&[5, 5, 5, 5]), Some(0));
        assert_eq!(keep(&[900, 5, 0, 7, 10]), Some(1));
        assert_eq!(keep(&[40, 40, 40, 5, 5, 5]), None, "three of each class");
        assert_eq!(keep(&[900, 40, 40, 5, 40, 5, 40]), Some(1), "four of the second class, and what lies between");
        assert_eq!(keep(&[600, 600, 600, 600]), None, "too large together");
        assert_eq!(keep(&[500, 500, 300, 300]), Some(2), "as many as fit");
    }

    #[test]
    fn a_pool_of_many_small_commits_keeps_few_segments_and_copies_each_row_a_few_times() {
        let policy = MergePolicy::default();
        let (mut segments, mut copied, mut most) = (Vec::new(), 0u64, 0);
        for _ in 0..10_000 {
            segments.push(100u64);
            if let Some(kept) = policy.keep(&segments, 1_000_000) {
                let sum = segments.drain(kept..).sum();
                copied += sum;
                segments.push(sum);
            }
            most = most.max(segments.len());
        }
        assert_eq!(segments.iter().sum::<u64>(), 1_000_000);
        assert!(most <= 8 * 4 && copied <= 6 * 1_000_000, "{most} segments, {copied} rows copied");
    }
}
