//! [`Published`]: the place where every request takes the generation it will see, and where the next one is put.
//!
//! ```text
//!   request ─► get() ─► a clone, kept as long as the request lasts
//!   reload  ─► renew(): its turn ─► look for a newer one (slow, nobody who asks waits) ─► put it there
//! ```
//!
//! The locks come from `super::sync`, so that `tests/published.rs` can compile this file with a model checker's locks and try every
//! order of the steps.

use std::mem;

use super::sync::{Mutex, PoisonError, RwLock};

/// A value that is replaced while others hold clones of it. Clones are cheap: a few reference counts.
pub(crate) struct Published<T> {
    current: RwLock<T>,
    /// Of whoever replaces it. Two at once could end in the other order than they began, and put an older value after a newer.
    turn: Mutex<()>,
}

/// What answers after [`Published::renew`].
pub(crate) struct Renewed<T> {
    pub(crate) present: T,
    /// Whether this call put it there.
    pub(crate) changed: bool,
}

impl<T: Clone> Published<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { current: RwLock::new(value), turn: Mutex::new(()) }
    }

    /// What is published at this moment.
    pub(crate) fn get(&self) -> T {
        // A thread that panicked while holding this lock cannot have left half a value behind.
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts what `newer` finds in the place of the value it is asked about. One call at a time; [`Published::get`] goes on meanwhile.
    ///
    /// # Errors
    /// Those of `newer`; what is published stays.
    pub(crate) fn renew<E>(&self, newer: impl FnOnce(&T) -> Result<Option<T>, E>) -> Result<Renewed<T>, E> {
        // It guards no value that a panic could have left half changed.
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let present = self.get();
        let Some(next) = newer(&present)? else { return Ok(Renewed { present, changed: false }) };
        let mut place = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let before = mem::replace(&mut *place, next.clone());
        drop(place);
        // May unmap gigabytes: nobody who asks waits for that.
        drop((before, present));
        Ok(Renewed { present: next, changed: true })
    }
}
