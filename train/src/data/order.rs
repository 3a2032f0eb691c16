//! Which rows a batch has: a pure function of seed, stream and the batch's number, so that a run can go on anywhere.

use std::sync::{Arc, Mutex, PoisonError};

use super::Draw;

/// A row in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The row.
    pub row: usize,
    /// The pass over the set in which it comes.
    pub epoch: u64,
}

/// Every row once an epoch, each epoch in another order; the rows that fill no whole batch are left out of that epoch.
#[derive(Debug)]
pub struct Order {
    seed: u64,
    stream: u64,
    rows: usize,
    batch: usize,
    /// The orders in use: batches of two epochs are made side by side at an epoch's end.
    known: Mutex<Vec<(u64, Arc<Vec<u32>>)>>,
}

impl Order {
    /// Of `rows` rows, `batch` at a time; `batch` is at least 1 and at most `rows`.
    #[must_use]
    pub fn new(seed: u64, stream: u64, rows: usize, batch: usize) -> Self {
        Self { seed, stream, rows, batch, known: Mutex::new(Vec::new()) }
    }

    /// Batches of an epoch.
    #[must_use]
    pub fn per_epoch(&self) -> u64 {
        (self.rows / self.batch.max(1)).max(1) as u64
    }

    /// The rows of batch `number`, counted from 0 over the whole run.
    #[must_use]
    pub fn batch(&self, number: u64) -> Vec<Place> {
        let (epoch, within) = (number / self.per_epoch(), number % self.per_epoch());
        let order = self.epoch(epoch);
        let first = within as usize * self.batch;
        order[first..first + self.batch].iter().map(|&row| Place { row: row as usize, epoch }).collect()
    }

    fn epoch(&self, epoch: u64) -> Arc<Vec<u32>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, order)) = known.iter().find(|(e, _)| *e == epoch) {
            return Arc::clone(order);
        }
        let order = Arc::new(Draw::at(&[self.seed, self.stream, epoch]).order(self.rows));
        known.retain(|(e, _)| e + 2 > epoch);
        known.push((epoch, Arc::clone(&order)));
        order
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_epoch_has_each_row_at_most_once_and_any_batch_can_be_asked_first() {
        let order = Order::new(3, 0, 103, 10);
        assert_eq!(order.per_epoch(), 10);
        let rows: BTreeSet<usize> = (10..20).flat_map(|n| order.batch(n)).map(|p| p.row).collect();
        assert_eq!(rows.len(), 100);
        let fresh = Order::new(3, 0, 103, 10);
        assert_eq!(fresh.batch(17), order.batch(17));
        assert_ne!(order.batch(0), order.batch(10));
        assert!(order.batch(17).iter().all(|p| p.epoch == 1));
    }
}
