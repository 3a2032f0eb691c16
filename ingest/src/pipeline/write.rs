//! Decided rows: into their order, into the sink and the reject list, committed and counted.

use std::time::{Duration, Instant};

use anchorite_index::Cancel;

use super::{Desk, IngestOptions, rejects_error};
use crate::{
    IngestError, IngestFailure, IngestReport, Outcome, ProgressUpdate, Reject, SourceError,
    prepare::{Accepted, DecidedChunk, Decision},
    reader::Total,
    reject::{code, is_filter},
    reject_list::RejectList,
};

impl Desk<'_> {
    /// Takes a decided chunk, and writes those whose turn it is.
    pub(super) fn settle(&mut self, chunk: DecidedChunk) -> Result<(), IngestError> {
        self.report.stages.preparing += chunk.preparing.as_secs_f64();
        self.report.stages.encoding += chunk.encoding.as_secs_f64();
        self.report.stages.workers_idle += chunk.idle.as_secs_f64();
        self.waiting.insert(chunk.sequence, chunk);
        while let Some(chunk) = self.waiting.remove(&self.next_to_write) {
            self.next_to_write += 1;
            self.write(chunk.shard, chunk.decisions)?;
        }
        Ok(())
    }

    fn write(&mut self, shard: usize, mut decisions: Vec<Decision>) -> Result<(), IngestError> {
        self.leave_out_near(&mut decisions)?;
        let counted = self.journal.count(shard, &decisions);
        let mut accepted = Vec::new();
        for (at, decision) in decisions.into_iter().enumerate() {
            match decision {
                Decision::Accepted(one) => accepted.push(*one),
                // What will be read again would be listed again.
                Decision::Rejected(_) if at >= counted => {}
                Decision::Rejected(reject) => self.reject(reject)?,
                Decision::Present => {
                    self.report.rows_read += 1;
                    self.report.already_present += 1;
                }
                Decision::Unfinished => {}
            }
        }
        self.append(accepted)?;
        let options = self.job.options;
        let due = self.uncommitted >= options.commit_rows.max(1) || self.committed_at.elapsed() >= options.commit_every;
        let due = due || self.near.as_ref().is_some_and(|near| near.uncommitted() >= options.limits.near_rows.max(1));
        if due && self.uncommitted > 0 {
            self.commit()?;
        }
        self.tell();
        self.give_up_on_a_broken_encoder()
    }

    fn leave_out_near(&mut self, decisions: &mut [Decision]) -> Result<(), IngestError> {
        let Some(near) = &mut self.near else { return Ok(()) };
        let start = Instant::now();
        near.sift(decisions, self.sink.searchable())?;
        self.report.stages.writing += start.elapsed().as_secs_f64();
        Ok(())
    }

    fn append(&mut self, accepted: Vec<Accepted>) -> Result<(), IngestError> {
        if accepted.is_empty() {
            return Ok(());
        }
        self.encoder_failures = 0;
        let truncated = accepted.iter().filter(|a| a.caption_truncated).count() as u64;
        let cut: u64 = accepted.iter().map(|a| a.fields_cut).sum();
        let replaces = accepted.iter().any(|a| a.replaces);
        let pairs: Vec<_> = accepted.into_iter().map(|a| a.pair).collect();
        let start = Instant::now();
        let replaced = if replaces { self.sink.upsert(&pairs)?.replaced } else { self.sink.append(&pairs).map(|()| 0)? };
        self.report.stages.writing += start.elapsed().as_secs_f64();
        let report = &mut self.report;
        report.rows_read += pairs.len() as u64;
        report.accepted += pairs.len() as u64 - replaced;
        report.replaced += replaced;
        report.images += pairs.iter().filter(|p| p.image.is_some()).count() as u64;
        report.truncated_captions += truncated;
        report.cut_fields += cut;
        self.uncommitted += pairs.len() as u64;
        Ok(())
    }

    fn reject(&mut self, reject: Reject) -> Result<(), IngestError> {
        self.report.rows_read += 1;
        count_left_out(&mut self.report, reject.code);
        if reject.code == code::ENCODE_FAILED {
            self.encoder_failures += 1;
            self.encoder_message = reject.message.to_string();
        }
        match &mut self.rejects {
            Some(list) => list.add(reject).map_err(|e| rejects_error(self.job.options, e)),
            None => Ok(()),
        }
    }

    fn give_up_on_a_broken_encoder(&self) -> Result<(), IngestError> {
        if self.encoder_failures < self.job.options.limits.max_encoder_failures {
            return Ok(());
        }
        Err(IngestError::EncoderFailing { rows: self.encoder_failures, last: self.encoder_message.clone() })
    }

    /// The list first, then rows and watermark at once: what the list has beyond them, the next run drops.
    fn commit(&mut self) -> Result<(), IngestError> {
        let listed = self.rejects.as_mut().map(RejectList::publish).transpose();
        let start = Instant::now();
        let generation = match &listed {
            Ok(mark) => {
                let progress = self.journal.watermark(*mark);
                if self.uncommitted == 0 && progress == self.sink.progress() {
                    return Ok(());
                }
                self.sink.commit_with(&progress, &Cancel::default())?
            }
            // The rows are kept under the old watermark: their sources are read again, and they are known.
            Err(_) => self.sink.commit(&Cancel::default())?,
        };
        self.report.stages.writing += start.elapsed().as_secs_f64();
        self.report.generation = Some(generation);
        if let Some(near) = &mut self.near {
            near.committed();
        }
        self.committing += start.elapsed();
        self.committed += std::mem::take(&mut self.uncommitted);
        self.committed_at = Instant::now();
        listed.map(|_| ()).map_err(|e| rejects_error(self.job.options, e))
    }

    fn tell(&mut self) {
        let report = &self.report;
        // Rows that were not read took no time, and say nothing of those that are left.
        let own_rows = report.rows_read.saturating_sub(report.rows_passed_over);
        let rows_per_second = per_second(own_rows, self.started.elapsed());
        let update = ProgressUpdate {
            rows_done: report.rows_read,
            rows_total: self.rows_total(),
            accepted: report.accepted,
            rejected: report.rejected,
            already_present: report.already_present,
            rows_per_second,
            remaining: self.remaining(own_rows),
            commits_counted: self.committed > 0,
            bottleneck: report.stages.slowest(self.workers),
        };
        self.progress.update(&update);
    }

    fn rows_total(&self) -> Option<u64> {
        match self.total? {
            Total::Rows(rows) => Some(self.report.rows_passed_over + rows),
            Total::Bytes(_) => None,
        }
    }

    /// Rows that are left when `done` have been decided; by their share of the bytes where files do not count them.
    fn rows_left(&self, done: u64) -> Option<u64> {
        match self.total? {
            Total::Rows(rows) => Some(rows.saturating_sub(done)),
            Total::Bytes(all) => {
                let read = self.bytes.0 + self.bytes.1;
                (read > 0).then(|| (done as f64 * all.saturating_sub(read) as f64 / read as f64) as u64)
            }
        }
    }

    /// Time for the rest when `done` rows have been decided: they go through at the rate of those, and every row that is not in a commit
    /// yet costs what those of this run's commits have.
    fn remaining(&self, done: u64) -> Option<Duration> {
        let left = self.rows_left(done)?;
        let going_through = self.started.elapsed().saturating_sub(self.committing);
        let rows = seconds_for(left, per_second(done, going_through));
        let commits = seconds_for(left + self.uncommitted, per_second(self.committed, self.committing));
        Some(if self.committed > 0 { rows + commits } else { rows })
    }

    /// Commits what was accepted, puts the reject list in its place, and closes the report.
    pub(super) fn finish(mut self, ended: Result<(), IngestError>, cancel: &Cancel) -> Result<IngestReport, IngestFailure> {
        let ended = match ended {
            Err(IngestError::Store(error)) => Err(IngestError::Store(error)),
            other => self.commit().and(other),
        };
        let took = self.started.elapsed();
        let mut report = self.report;
        report.seconds = took.as_secs_f64();
        report.images_per_second = per_second(report.images, took);
        report.outcome = outcome(&report, self.job.options, cancel);
        let empty = report.rows_read == 0 && report.outcome == Outcome::Done && self.job.options.part.is_none();
        match ended {
            Ok(()) if empty => {
                let sources = report.sources.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
                Err(SourceError::Empty { sources }.into())
            }
            Ok(()) => Ok(report),
            Err(error) => Err(IngestFailure { error, report: Some(Box::new(report)) }),
        }
    }
}

/// Counts a row that was rejected or filtered out.
pub(super) fn count_left_out(report: &mut IngestReport, code: &str) {
    let (count, by_reason) = match is_filter(code) {
        true => (&mut report.filtered, &mut report.filtered_by_reason),
        false => (&mut report.rejected, &mut report.rejected_by_reason),
    };
    *count += 1;
    *by_reason.entry(code.to_owned()).or_default() += 1;
}

fn outcome(report: &IngestReport, options: &IngestOptions, cancel: &Cancel) -> Outcome {
    if cancel.is_cancelled() {
        Outcome::Interrupted
    } else if options.max_rejects.is_some_and(|max| report.rejected > max) {
        Outcome::TooManyRejects
    } else {
        Outcome::Done
    }
}

/// Time that `rows` take at a rate; at most a thousand years.
fn seconds_for(rows: u64, rows_per_second: f64) -> Duration {
    Duration::from_secs_f64((rows as f64 / rows_per_second.max(1e-9)).min(3e10))
}

fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64().max(1e-9)
}
