//! Values by reference, and the one order in which filters compare them.

use std::{cmp::Ordering, collections::BTreeMap};

use super::{Column, Kind};
use crate::{Key, Pair, Record, SourceRef, Value};

/// A value without its memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ValueRef<'a> {
    Bool(bool),
    Int(i64),
    Float(f64),
    /// A count from outside the signed range, such as a source row.
    Count(u64),
    Text(&'a str),
}

impl<'a> From<&'a Value> for ValueRef<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Bool(v) => Self::Bool(*v),
            Value::Int(v) => Self::Int(*v),
            Value::Float(v) => Self::Float(*v),
            Value::Text(v) => Self::Text(v),
        }
    }
}

impl ValueRef<'_> {
    /// With memory of its own; a count beyond the signed range has no such form.
    pub(crate) fn to_value(self) -> Option<Value> {
        Some(match self {
            Self::Bool(v) => Value::Bool(v),
            Self::Int(v) => Value::Int(v),
            Self::Float(v) => Value::Float(v),
            Self::Count(v) => Value::Int(i64::try_from(v).ok()?),
            Self::Text(v) => Value::Text(v.to_owned()),
        })
    }

    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Bool(_) => Kind::Bool,
            Self::Int(_) | Self::Float(_) | Self::Count(_) => Kind::Number,
            Self::Text(_) => Kind::Text,
        }
    }

    /// Within a kind, by value; texts by their bytes. `None` between kinds and for NaN.
    pub(crate) fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(&b)),
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            (Self::Float(a), Self::Float(b)) => a.partial_cmp(&b),
            (Self::Float(a), b) => Some(compare_whole(b.whole()?, a)?.reverse()),
            (a, Self::Float(b)) => compare_whole(a.whole()?, b),
            (a, b) => Some(a.whole()?.cmp(&b.whole()?)),
        }
    }

    fn whole(self) -> Option<i128> {
        match self {
            Self::Int(v) => Some(v.into()),
            Self::Count(v) => Some(v.into()),
            _ => None,
        }
    }
}

/// A whole number of 64 bits against a fraction, without rounding either.
fn compare_whole(whole: i128, fraction: f64) -> Option<Ordering> {
    /// Above every 64-bit number, and exact in both types.
    const BEYOND: f64 = (1_u128 << 65) as f64;
    if fraction.is_nan() {
        return None;
    }
    if fraction.abs() >= BEYOND {
        return Some(if fraction > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    let floor = fraction.floor();
    let order = whole.cmp(&(floor as i128));
    Some(if order == Ordering::Equal && fraction > floor { Ordering::Less } else { order })
}

/// Which value of a pair, without its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ColumnRef<'a> {
    Key,
    Caption,
    SourceFile,
    SourceRow,
    Field(&'a str),
}

impl Column {
    /// By reference, as records give theirs.
    pub(crate) fn as_ref(&self) -> ColumnRef<'_> {
        match self {
            Self::Key => ColumnRef::Key,
            Self::Caption => ColumnRef::Caption,
            Self::SourceFile => ColumnRef::SourceFile,
            Self::SourceRow => ColumnRef::SourceRow,
            Self::Field(name) => ColumnRef::Field(name),
        }
    }

    /// The kind of a value that every pair has; `None` for a metadata field, which holds what the pool's rows hold.
    pub(crate) fn fixed_kind(&self) -> Option<Kind> {
        match self {
            Self::Key | Self::Caption | Self::SourceFile => Some(Kind::Text),
            Self::SourceRow => Some(Kind::Number),
            Self::Field(_) => None,
        }
    }
}

impl Pair {
    /// Gives every value that a filter can name.
    pub(crate) fn each_value(&self, take: &mut dyn FnMut(ColumnRef<'_>, ValueRef<'_>)) {
        each_value((&self.key, &self.source), self.caption.as_deref(), &self.fields, take);
    }
}

impl Record {
    /// Gives every value that a filter can name.
    pub(super) fn each_value(&self, take: &mut dyn FnMut(ColumnRef<'_>, ValueRef<'_>)) {
        each_value((&self.key, &self.source), self.caption.as_deref(), &self.fields, take);
    }
}

fn each_value(
    (key, source): (&Key, &SourceRef),
    caption: Option<&str>,
    fields: &BTreeMap<String, Value>,
    take: &mut dyn FnMut(ColumnRef<'_>, ValueRef<'_>),
) {
    take(ColumnRef::Key, ValueRef::Text(key.as_str()));
    take(ColumnRef::SourceFile, ValueRef::Text(&source.file));
    take(ColumnRef::SourceRow, ValueRef::Count(source.row));
    if let Some(caption) = caption {
        take(ColumnRef::Caption, ValueRef::Text(caption));
    }
    for (name, value) in fields {
        take(ColumnRef::Field(name), value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::{Ordering, ValueRef};

    #[test]
    fn whole_numbers_and_fractions_compare_without_rounding() {
        let order = |a, b| ValueRef::compare(a, b);
        let (int, float) = (ValueRef::Int, ValueRef::Float);
        assert_eq!(order(int(2), float(2.0)), Some(Ordering::Equal));
        assert_eq!(order(int(i64::MAX), float(9_223_372_036_854_775_808.0)), Some(Ordering::Less));
        assert_eq!(order(int((1 << 53) + 1), float(9_007_199_254_740_992.0)), Some(Ordering::Greater));
        assert_eq!(order(float(-0.5), int(0)), Some(Ordering::Less));
        assert_eq!(order(int(-1), float(-0.5)), Some(Ordering::Less));
        assert_eq!(order(int(0), float(-0.0)), Some(Ordering::Equal));
        assert_eq!(order(ValueRef::Count(u64::MAX), float(1e300)), Some(Ordering::Less));
        assert_eq!(order(ValueRef::Count(u64::MAX), int(i64::MAX)), Some(Ordering::Greater));
        assert_eq!(order(int(5), float(f64::NEG_INFINITY)), Some(Ordering::Greater));
        assert_eq!(order(int(5), float(f64::NAN)), None);
        assert_eq!(order(int(1), ValueRef::Bool(true)), None);
        assert_eq!(order(ValueRef::Text("10"), ValueRef::Text("9")), Some(Ordering::Less));
    }
}
