//! Which metadata fields a store's pairs have, and of which kinds: what a filter is checked against before any row is.

use std::{collections::BTreeMap, fmt};

use super::{Column, ColumnRef, Field, Filter, FilterError, Kind, ValueRef};
use crate::limits::Limits;

/// A set of [`Kind`]s.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Kinds(u8);

impl Kinds {
    fn of(kind: Kind) -> Self {
        Self(1 << kind as u8)
    }

    fn has(self, kind: Kind) -> bool {
        self.0 & Self::of(kind).0 != 0
    }

    fn list(self) -> impl Iterator<Item = Kind> {
        [Kind::Bool, Kind::Number, Kind::Text].into_iter().filter(move |&kind| self.has(kind))
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.list().map(|kind| kind.to_string()).collect::<Vec<_>>().join(" or "))
    }
}

impl fmt::Debug for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The metadata fields of a store and the kinds of their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Schema {
    fields: BTreeMap<String, Kinds>,
}

impl Schema {
    /// What [`Schema::list`] listed.
    pub(super) fn of(fields: &[Field]) -> Self {
        let kinds = |field: &Field| field.kinds.iter().fold(Kinds::default(), |all, kind| Kinds(all.0 | Kinds::of(*kind).0));
        Self { fields: fields.iter().map(|field| (field.name.clone(), kinds(field))).collect() }
    }

    /// Notes one value of a pair.
    pub(crate) fn observe(&mut self, column: ColumnRef<'_>, value: ValueRef<'_>) {
        let ColumnRef::Field(name) = column else { return };
        let kind = Kinds::of(value.kind());
        match self.fields.get_mut(name) {
            Some(kinds) => kinds.0 |= kind.0,
            None => drop(self.fields.insert(name.to_owned(), kind)),
        }
    }

    pub(crate) fn unite(mut self, other: Self) -> Self {
        for (name, kinds) in other.fields {
            self.fields.entry(name).or_default().0 |= kinds.0;
        }
        self
    }

    /// Every field, by name.
    pub(crate) fn list(&self) -> Vec<Field> {
        let asked = |name: &str| Column::Field(name.to_owned()).to_string();
        let field =
            |(name, kinds): (&String, &Kinds)| Field { name: name.clone(), asked: asked(name), kinds: kinds.list().collect() };
        self.fields.iter().map(field).collect()
    }

    /// Refuses a filter that names a field no pair has, or compares one with a kind of value that it never holds.
    ///
    /// # Errors
    /// [`FilterError::UnknownField`], [`FilterError::Mistyped`].
    pub(crate) fn check(&self, filter: &Filter) -> Result<(), FilterError> {
        match filter {
            Filter::And(parts) | Filter::Or(parts) => parts.iter().try_for_each(|part| self.check(part)),
            Filter::Not(part) => self.check(part),
            Filter::In { field, values } => values.iter().try_for_each(|v| self.check_column(field, Some(kind_of(v)))),
            Filter::Range { field, low, high } => {
                low.iter().chain(high).try_for_each(|bound| self.check_column(field, Some(kind_of(&bound.value))))
            }
            Filter::Prefix { field, .. } => self.check_column(field, Some(Kind::Text)),
            Filter::IsNull { field } => self.check_column(field, None),
        }
    }

    fn check_column(&self, column: &Column, asked: Option<Kind>) -> Result<(), FilterError> {
        let found = match column {
            Column::Field(name) => self.fields.get(name).copied(),
            _ => column.fixed_kind().map(Kinds::of),
        };
        let field = column.to_string();
        match (found, asked) {
            (None, _) => {
                let (fields, more) = self.named();
                Err(FilterError::UnknownField { field, fields, more })
            }
            (Some(kinds), Some(asked)) if !kinds.has(asked) => {
                let (fields, more) = self.named();
                Err(FilterError::Mistyped { field, asked, found: kinds.to_string(), fields, more })
            }
            _ => Ok(()),
        }
    }

    /// The first fields by name, and how many more there are.
    fn named(&self) -> (Vec<String>, usize) {
        let most = Limits::STANDARD.fields_named;
        let name = |name: &String| Column::Field(name.clone()).to_string();
        (self.fields.keys().take(most).map(name).collect(), self.fields.len().saturating_sub(most))
    }
}

fn kind_of(value: &crate::Value) -> Kind {
    ValueRef::from(value).kind()
}
