//! Pairs that a policy excludes by key, by words of the caption, by metadata.

use std::collections::HashSet;

use anchorite_index::{Key, Record};

use crate::{policy::Exclude, reason::Reason};

/// The policy's lists, ready to be asked.
pub(crate) struct Excluded<'a> {
    rules: &'a Exclude,
    keys: HashSet<&'a Key>,
    /// As given, and as looked for.
    phrases: Vec<(&'a str, String)>,
}

impl<'a> Excluded<'a> {
    pub(crate) fn new(rules: &'a Exclude) -> Self {
        let phrases = rules.words.iter().map(|word| (word.as_str(), spaced(word))).collect();
        Self { rules, keys: rules.keys.iter().collect(), phrases }
    }

    pub(crate) fn check(&self, record: &Record) -> Option<Reason> {
        if self.keys.contains(&record.key) {
            return Some(Reason::ExcludedKey);
        }
        let field = self.rules.fields.iter().find(|f| record.fields.get(&f.column) == Some(&f.value));
        if let Some(field) = field {
            return Some(Reason::ExcludedField { column: field.column.clone() });
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
