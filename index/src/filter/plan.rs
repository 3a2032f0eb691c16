//! A filter made ready: its leaves, each asked of every record in one pass, and the set algebra over their bits.

use std::{cmp::Ordering, convert::Infallible};

use super::{Bound, Column, ColumnRef, Filter, ValueRef};
use crate::{RowSet, Value};

/// A filter ready to be asked of records.
#[derive(Debug)]
pub(crate) struct Plan {
    leaves: Vec<Leaf>,
    root: Node,
}

#[derive(Debug)]
struct Leaf {
    column: Column,
    test: Test,
}

/// What is asked of one value.
#[derive(Debug)]
enum Test {
    /// It is there.
    Present,
    /// Sorted, all of one kind.
    AnyOf(Vec<Value>),
    Between(Option<Bound>, Option<Bound>),
    Prefix(String),
}

#[derive(Debug)]
enum Node {
    Leaf(usize),
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
}

impl Test {
    fn holds(&self, value: ValueRef<'_>) -> bool {
        match self {
            Self::Present => true,
            // Values of another kind, and NaN, have no order here and equal nothing.
            Self::AnyOf(values) => {
                value.compare((&values[0]).into()).is_some()
                    && values.binary_search_by(|v| ValueRef::from(v).compare(value).unwrap_or(Ordering::Less)).is_ok()
            }
            Self::Between(low, high) => {
                let inside = |bound: &Option<Bound>, side: Ordering| match bound {
                    None => true,
                    Some(bound) => match value.compare((&bound.value).into()) {
                        Some(Ordering::Equal) => bound.inclusive,
                        order => order == Some(side),
                    },
                };
                inside(low, Ordering::Greater) && inside(high, Ordering::Less)
            }
            Self::Prefix(start) => matches!(value, ValueRef::Text(text) if text.starts_with(start.as_str())),
        }
    }
}

impl Plan {
    pub(crate) fn new(filter: &Filter) -> Self {
        let mut leaves = Vec::new();
        let root = plan(filter, &mut leaves);
        Self { leaves, root }
    }

    /// The rows that match, among `rows`; `visit(row, take)` gives every value of a row.
    ///
    /// # Errors
    /// What `visit` says.
    pub(crate) fn select<E>(
        &self,
        rows: usize,
        visit: impl Fn(usize, &mut dyn FnMut(ColumnRef<'_>, ValueRef<'_>)) -> Result<(), E>,
    ) -> Result<RowSet, E> {
        let mut marks = vec![RowSet::empty(rows); self.leaves.len()];
        for row in 0..rows {
            visit(row, &mut |column, value| {
                for (leaf, marked) in self.leaves.iter().zip(&mut marks) {
                    if leaf.column.as_ref() == column && leaf.test.holds(value) {
                        marked.insert(row);
                    }
                }
            })?;
        }
        Ok(self.root.combine(&marks, rows))
    }

    /// As [`Plan::select`] over rows that cannot fail to be read.
    pub(crate) fn select_from(&self, rows: usize, visit: impl Fn(usize, &mut dyn FnMut(ColumnRef<'_>, ValueRef<'_>))) -> RowSet {
        let Ok(set) = self.select::<Infallible>(rows, |row, take| {
            visit(row, take);
            Ok(())
        });
        set
    }
}

fn plan(filter: &Filter, leaves: &mut Vec<Leaf>) -> Node {
    let mut leaf = |column: &Column, test| {
        leaves.push(Leaf { column: column.clone(), test });
        Node::Leaf(leaves.len() - 1)
    };
    match filter {
        Filter::In { field, values } => {
            let mut values = values.clone();
            values.sort_by(|a, b| ValueRef::from(a).compare(b.into()).unwrap_or(Ordering::Equal));
            leaf(field, Test::AnyOf(values))
        }
        Filter::Range { field, low, high } => leaf(field, Test::Between(low.clone(), high.clone())),
        Filter::Prefix { field, start } => leaf(field, Test::Prefix(start.clone())),
        Filter::IsNull { field } => Node::Not(Box::new(leaf(field, Test::Present))),
        Filter::And(parts) => Node::All(parts.iter().map(|part| plan(part, leaves)).collect()),
        Filter::Or(parts) => Node::Any(parts.iter().map(|part| plan(part, leaves)).collect()),
        Filter::Not(part) => Node::Not(Box::new(plan(part, leaves))),
    }
}

impl Node {
    fn combine(&self, marks: &[RowSet], rows: usize) -> RowSet {
        match self {
            Self::Leaf(leaf) => marks[*leaf].clone(),
            Self::All(parts) => parts.iter().fold(RowSet::full(rows), |mut set, part| {
                set.intersect(&part.combine(marks, rows));
                set
            }),
            Self::Any(parts) => parts.iter().fold(RowSet::empty(rows), |mut set, part| {
                set.unite(&part.combine(marks, rows));
                set
            }),
            Self::Not(part) => {
                let mut set = part.combine(marks, rows);
                set.complement();
                set
            }
        }
    }
}
