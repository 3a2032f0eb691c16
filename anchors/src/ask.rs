//! The question and the answer.

use std::{sync::Arc, time::Duration};

use anchorite_index::{Effort, Filter, Hit, Key, Record, RowId, Side};

/// What to look for.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Words, for the text tower.
    Text(String),
    /// An encoded JPEG, PNG or WebP picture, for the image tower.
    Picture(Vec<u8>),
    /// A vector of this encoder's space; any length but zero.
    Embedding(Vec<f32>),
    /// The stored vector of the pair at this position.
    Row(RowId),
    /// The stored vector of the pair of this name.
    Key(Key),
}

/// A further input of a question.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// What to look for, or not to.
    pub input: Input,
    /// Its share, as [`Ask::weight`].
    pub weight: f32,
    /// As [`Ask::from`].
    pub from: Option<Side>,
}

/// One question.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// What to look for.
    pub input: Input,
    /// The share of `input`: any finite number, below zero for "not like this". Default 1.
    pub weight: f32,
    /// Further inputs. The question's vector is the sum of all inputs' unit vectors times their weights. Default: none.
    pub and: Vec<Part>,
    /// Which vectors are searched. Default: the pictures'.
    pub side: Side,
    /// How many hits, at least 1. Default 10.
    pub k: usize,
    /// How hard to try.
    pub effort: Effort,
    /// Hits that score below this are dropped. Default: none are.
    pub threshold: Option<f32>,
    /// Which stored vector of a [`Input::Row`] or [`Input::Key`] is the question. Default: the picture's, or the caption's
    /// where the pair has no picture vector. Of an [`Input::Embedding`] it says which tower it came from; without it that is told by
    /// where the pool's own vectors lie, and where that does not tell, the search is as wide as the harder of the two needs, which takes longer.
    pub from: Option<Side>,
    /// A hit this near (cosine of the searched vectors) to a better hit, or made from the same content, is left out, and further ones are
    /// fetched in its place. Default: none is.
    pub near_duplicate: Option<f32>,
    /// Which pairs may be found. Default: all. Questions that share it have it evaluated once.
    pub filter: Option<Arc<Filter>>,
}

impl Ask {
    /// A question with the defaults.
    #[must_use]
    pub fn new(input: Input) -> Self {
        Self {
            input,
            weight: 1.0,
            and: Vec::new(),
            side: Side::Image,
            k: 10,
            effort: Effort::Normal,
            threshold: None,
            from: None,
            near_duplicate: None,
            filter: None,
        }
    }
}

/// The hits of one [`Ask`], best first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// At most `requested` hits; ties by row.
    pub hits: Vec<Hit>,
    /// True when the search was cut short, so that rows which belong here may be missing.
    pub degraded: bool,
    /// The `k` that was asked for.
    pub requested: usize,
    /// Of the hits asked for, those that are missing since what was found instead scores below the threshold.
    pub below_threshold: usize,
    /// Hits left out as near duplicates of better ones.
    pub near_duplicates: usize,
}

/// Where the time of one call went. Stages that did not run took no time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Cleaning and tokenizing captions.
    pub prepare_texts: Duration,
    /// Decoding and preprocessing pictures.
    pub prepare_pictures: Duration,
    /// The text tower.
    pub encode_texts: Duration,
    /// The image tower.
    pub encode_pictures: Duration,
    /// Reading stored vectors for questions by row or key.
    pub look_up: Duration,
    /// The store's search.
    pub search: Duration,
}

/// What [`crate::Retriever::find`] gives back.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answers {
    /// One for each question, in order.
    pub found: Vec<Found>,
    /// Where the time went.
    pub times: Times,
}

/// A hit with what the pool keeps of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Anchor {
    /// Place among the hits, counted from 0.
    pub rank: usize,
    /// Cosine in [-1, 1].
    pub score: f32,
    /// The pair.
    pub record: Record,
}
