//! Batches made ahead by threads and delivered in order. At most `ahead` are made or waiting, so memory is bounded; what a batch holds
//! does not depend on which thread made it.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::DataError;

/// What makes an item from its number.
type Make<T> = dyn Fn(u64) -> Result<T, DataError> + Send + Sync;

/// An item, and how long it was waited for.
#[derive(Debug)]
pub struct Prefetched<T> {
    /// The item.
    pub item: T,
    /// Time that the caller was held up.
    pub waited: Duration,
}

/// Items `first..` in order.
#[derive(Debug)]
pub struct Prefetch<T> {
    orders: Option<Sender<u64>>,
    /// The workers' own end of `orders`, to take back what nobody has begun.
    waiting: Receiver<u64>,
    made: Receiver<(u64, Result<T, DataError>)>,
    early: BTreeMap<u64, Result<T, DataError>>,
    next: u64,
    ordered: u64,
    end: u64,
    workers: Vec<JoinHandle<()>>,
}

impl<T: Send + 'static> Prefetch<T> {
    /// Starts `workers` threads (at least one) that make items `first..end`, up to `ahead` of the caller.
    #[must_use]
    pub fn start(
        range: std::ops::Range<u64>,
        workers: usize,
        ahead: usize,
        make: impl Fn(u64) -> Result<T, DataError> + Send + Sync + 'static,
    ) -> Self {
        let make: Arc<Make<T>> = Arc::new(make);
        // Neither channel needs a bound: there are never more orders than `ahead`.
        let (orders, incoming) = unbounded();
        let (outgoing, made) = unbounded();
        let work = |incoming: Receiver<u64>, outgoing: Sender<(u64, Result<T, DataError>)>, make: Arc<Make<T>>| {
            move || {
                for number in incoming {
                    // A panic must not leave the caller waiting for an item that never comes.
                    let made = catch_unwind(AssertUnwindSafe(|| make(number))).unwrap_or(Err(DataError::Panicked { number }));
                    if outgoing.send((number, made)).is_err() {
                        return;
                    }
                }
            }
        };
        let spawn = |_| std::thread::spawn(work(incoming.clone(), outgoing.clone(), Arc::clone(&make)));
        let workers = (0..workers.max(1)).map(spawn).collect();
        let (next, end) = (range.start, range.end);
        let mut prefetch =
            Self { orders: Some(orders), waiting: incoming, made, early: BTreeMap::new(), next, ordered: next, end, workers };
        (0..ahead.max(1)).for_each(|_| prefetch.order());
        prefetch
    }

    fn order(&mut self) {
        if let (true, Some(orders)) = (self.ordered < self.end, &self.orders) {
            // The workers are there as long as this is.
            let _ = orders.send(self.ordered);
            self.ordered += 1;
        }
    }

    /// The next item; none after the last.
    ///
    /// # Errors
    /// What the item's making failed with.
    pub fn take(&mut self) -> Result<Option<Prefetched<T>>, DataError> {
        if self.next >= self.end {
            return Ok(None);
        }
        let started = Instant::now();
        let result = loop {
            if let Some(result) = self.early.remove(&self.next) {
                break result;
            }
            // Workers live as long as this does, and answer every order.
            let (number, result) = self.made.recv().map_err(|_| DataError::Panicked { number: self.next })?;
            self.early.insert(number, result);
        };
        let waited = started.elapsed();
        self.next += 1;
        self.order();
        result.map(|item| Some(Prefetched { item, waited }))
    }
}

impl<T> Drop for Prefetch<T> {
    fn drop(&mut self) {
        self.orders = None;
        while self.waiting.try_recv().is_ok() {}
        self.workers.drain(..).for_each(|worker| drop(worker.join()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn items_come_in_order_and_no_more_than_asked_are_made_ahead() {
        let made = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&made);
        let make = move |n: u64| {
            counter.fetch_add(1, Ordering::SeqCst);
            Ok(n * n)
        };
        let mut prefetch = Prefetch::start(5..40, 3, 4, make);
        for n in 5..40 {
            assert_eq!(prefetch.take().unwrap().unwrap().item, n * n);
            assert!(made.load(Ordering::SeqCst) <= n - 5 + 1 + 4);
        }
        assert!(prefetch.take().unwrap().is_none());
    }

    #[test]
    fn a_panic_is_an_error_and_no_endless_wait() {
        let make = |n: u64| if n == 1 { panic!("a defect") } else { Ok(n) };
        let mut prefetch = Prefetch::start(0..3, 2, 2, make);
        assert_eq!(prefetch.take().unwrap().unwrap().item, 0);
        assert!(matches!(prefetch.take(), Err(DataError::Panicked { number: 1 })));
    }

    #[test]
    fn an_error_comes_in_its_place() {
        let make = |n: u64| if n == 3 { Err(DataError::Cancelled) } else { Ok(n) };
        let mut prefetch = Prefetch::start(0..10, 2, 8, make);
        (0..3).for_each(|n| assert_eq!(prefetch.take().unwrap().unwrap().item, n));
        assert!(matches!(prefetch.take(), Err(DataError::Cancelled)));
        assert_eq!(prefetch.take().unwrap().unwrap().item, 4);
    }
}
