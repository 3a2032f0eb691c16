//! Pairs that a policy excludes by key, by words of the caption, by metadata or by a filter.

use std::collections::HashSet;

use anchorite_index::{Cancel, Key, Matcher, PairStore, Record, StoreError};

use crate::{policy::Exclude, reason::Reason};

/// The policy's lists, ready to be asked.
pub(crate) struct Excluded<'a> {
    rules: &'a Exclude,
    keys: HashSet<&'a Key>,
    /// As given, and as looked for.
    phrases: Vec<(&'a str, String)>,
    filter: Option<Matcher>,
}

impl<'a> Excluded<'a> {
    /// # Errors
    /// [`StoreError::Filter`] for a filter that does not fit what the store holds; damage met on the way.
    pub(crate) fn new(rules: &'a Exclude, store: &dyn PairStore, cancel: &Cancel) -> Result<Self, StoreError> {
        let phrases = rules.words.iter().map(|word| (word.as_str(), spaced(word))).collect();
        // Nothing is known of the fields of no pairs, and nothing is found there.
        let filter = match &rules.filter {
            Some(filter) if store.status().rows > 0 => Some(Matcher::new(filter, &store.fields(cancel)?)?),
            _ => None,
        };
        Ok(Self { rules, keys: rules.keys.iter().collect(), phrases, filter })
    }

    pub(crate) fn check(&self, record: &Record) -> Option<Reason> {
        if self.keys.contains(&record.key) {
            return Some(Reason::ExcludedKey);
        }
        let field = self.rules.fields.iter().find(|f| record.fields.get(&f.column) == Some(&f.value));
        if let Some(field) = field {
            return Some(Reason::ExcludedField { column: field.column.clone() });
        }
        if self.filter.as_ref().is_some_and(|filter| filter.matches(record)) {
            return Some(Reason::ExcludedFilter);
        }
        if self.phrases.is_empty() {
            return None;
        }
        let caption = spaced(record.caption.as_deref()?);
        let word = self.phrases.iter().find(|(_, phrase)| has(&caption, phrase))?.0;
        Some(Reason::ExcludedWord { word: word.to_owned() })
    }
}

/// Lower-case words with one space around each.
pub(crate) fn spaced(text: &str) -> String {
    let mut out = String::from(" ");
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()) {
        out.extend(word.chars().flat_map(char::to_lowercase));
        out.push(' ');
    }
    out
}

/// Whether the words stand in the caption, in this order, also as a plural with `s`.
fn has(caption: &str, phrase: &str) -> bool {
    caption.contains(phrase) || caption.contains(&format!("{}s ", phrase.trim_end()))
}
