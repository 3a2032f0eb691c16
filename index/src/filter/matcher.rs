//! A filter asked of records that were read: for those who must say of each pair whether it matches, and not only find those that do.

use super::{Field, Filter, FilterError, Plan, Schema};
use crate::Record;

/// A filter that fits a store's fields.
#[derive(Debug)]
pub struct Matcher(Plan);

impl Matcher {
    /// `fields` are the store's ([`crate::PairStore::fields`]).
    ///
    /// # Errors
    /// [`FilterError`] where it names a field that no pair has, or compares one with a kind of value that it never holds.
    pub fn new(filter: &Filter, fields: &[Field]) -> Result<Self, FilterError> {
        Schema::of(fields).check(filter)?;
        Ok(Self(Plan::new(filter)))
    }

    /// Whether the pair matches.
    #[must_use]
    pub fn matches(&self, record: &Record) -> bool {
        self.0.select_from(1, |_, take| record.each_value(take)).contains(0)
    }
}
