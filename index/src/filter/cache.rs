//! The last few filter results of one open pool. A pool never changes while it is open, so nothing in here grows stale.

use std::sync::{Arc, Mutex, PoisonError};

use super::Filter;

/// Most results kept, whatever their size: a look-up compares with each of them.
const MOST: usize = 64;

/// Results by filter, newest last, within a budget of bytes.
#[derive(Debug)]
pub(crate) struct FilterCache<T> {
    kept: Mutex<Vec<Kept<T>>>,
    max_bytes: usize,
}

#[derive(Debug)]
struct Kept<T> {
    filter: Arc<Filter>,
    bytes: usize,
    result: Arc<T>,
}

impl<T> FilterCache<T> {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self { kept: Mutex::new(Vec::new()), max_bytes }
    }

    /// The result of an equal filter, if it is kept.
    pub(crate) fn get(&self, filter: &Arc<Filter>) -> Option<Arc<T>> {
        // A panic elsewhere cannot leave the list half changed, so a poisoned lock is used as it is.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |k: &Kept<T>| Arc::ptr_eq(&k.filter, filter) || k.filter == *filter;
        let place = kept.iter().position(same)?;
        let found = kept.remove(place);
        let result = Arc::clone(&found.result);
        kept.push(found);
        Some(result)
    }

    /// Keeps a result of `bytes`, and forgets the oldest that no longer fit beside it; one too large alone is not kept.
    pub(crate) fn put(&self, filter: &Arc<Filter>, result: &Arc<T>, bytes: usize) {
        if bytes > self.max_bytes {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|k| k.filter != *filter);
        while kept.len() >= MOST || kept.iter().map(|k| k.bytes).sum::<usize>() > self.max_bytes - bytes {
            kept.remove(0);
        }
        kept.push(Kept { filter: Arc::clone(filter), bytes, result: Arc::clone(result) });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Filter, FilterCache};
    use crate::Value;

    #[test]
    fn the_oldest_results_make_room_and_a_large_one_is_not_kept() {
        let cache = FilterCache::new(10);
        let filter = |n| Arc::new(Filter::eq("n", Value::Int(n)));
        for n in 0..3 {
            cache.put(&filter(n), &Arc::new(n), 4);
        }
        assert_eq!((cache.get(&filter(0)), cache.get(&filter(1)).as_deref()), (None, Some(&1)));
        cache.put(&filter(3), &Arc::new(3), 4);
        assert_eq!((cache.get(&filter(2)), cache.get(&filter(1)).as_deref()), (None, Some(&1)), "1 was used last");
        cache.put(&filter(4), &Arc::new(4), 11);
        assert_eq!((cache.get(&filter(4)), cache.get(&filter(3)).as_deref()), (None, Some(&3)));
    }
}
