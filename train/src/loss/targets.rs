//! Which pairs of a batch attract, repel or ignore each other, as matrices that loss graphs are fed.

use std::collections::HashMap;

/// What a pair is to another pair of its group (the same class, the same caption, the same picture).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SameGroup {
    /// Neither positive nor negative: left out of the softmax. The default: a caption that fits is no negative, and one drawn for
    /// another picture is no positive of this one either.
    #[default]
    Ignore,
    /// As good as its own: the target is shared equally among the group.
    Positive,
    /// A negative like any other, as CLIP and FLYP train.
    Negative,
}

/// Added to a logit that is to be ignored: beyond any scaled cosine (100 at most), far from float32's end.
const IGNORED: f32 = -1e9;

/// What the caption of pair j is to the picture of pair i.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Own,
    Positive,
    Ignored,
    Negative,
}

/// The relations of a batch of pairs. All matrices are symmetric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets {
    groups: Vec<u64>,
    pictures: Option<Vec<usize>>,
    same: SameGroup,
}

impl Targets {
    /// `groups[i]` is the group of pair i. Pairs without a group get one of their own.
    #[must_use]
    pub fn new(groups: Vec<u64>, same: SameGroup) -> Self {
        Self { groups, pictures: None, same }
    }

    /// Pairs that show the same picture (equal numbers) ignore each other where their groups say nothing else.
    #[must_use]
    pub fn with_pictures(mut self, pictures: Vec<usize>) -> Self {
        self.pictures = Some(pictures);
        self
    }

    /// Number of pairs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether there is no pair.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    fn relation(&self, i: usize, j: usize) -> Relation {
        let same_picture = || self.pictures.as_ref().is_some_and(|pictures| pictures[i] == pictures[j]);
        match (i == j, self.groups[i] == self.groups[j], self.same) {
            (true, ..) => Relation::Own,
            (_, true, SameGroup::Positive) => Relation::Positive,
            (_, true, SameGroup::Ignore) => Relation::Ignored,
            _ if same_picture() => Relation::Ignored,
            _ => Relation::Negative,
        }
    }

    fn matrix(&self, entry: impl Fn(usize, Relation) -> f32) -> Vec<f32> {
        let n = self.len();
        (0..n * n).map(|cell| entry(cell / n, self.relation(cell / n, cell % n))).collect()
    }

    /// Softmax targets, row-major `[n, n]`, rows summing to one.
    #[must_use]
    pub fn positives(&self) -> Vec<f32> {
        let mut sizes: HashMap<u64, f32> = HashMap::new();
        let shared = self.same == SameGroup::Positive;
        self.groups.iter().filter(|_| shared).for_each(|group| *sizes.entry(*group).or_default() += 1.0);
        let share = |i: usize| sizes.get(&self.groups[i]).map_or(1.0, |size| size.recip());
        self.matrix(|i, relation| if matches!(relation, Relation::Own | Relation::Positive) { share(i) } else { 0.0 })
    }

    /// What is added to logits, `[n, n]`: zero, or for what is ignored a number that no logit reaches.
    #[must_use]
    pub fn penalties(&self) -> Vec<f32> {
        self.matrix(|_, relation| if relation == Relation::Ignored { IGNORED } else { 0.0 })
    }

    /// Sigmoid signs, `[n, n]`: +1 positive, -1 negative, 0 ignored.
    #[must_use]
    pub fn signs(&self) -> Vec<f32> {
        self.matrix(|_, relation| match relation {
            Relation::Own | Relation::Positive => 1.0,
            Relation::Ignored => 0.0,
            Relation::Negative => -1.0,
        })
    }
}
