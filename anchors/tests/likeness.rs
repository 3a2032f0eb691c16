//! A bare vector is searched for as what it is like: the store hears which tower it came from wherever that can be told.

mod common;

use std::sync::{Arc, Mutex};

use anchorite_anchors::{Ask, Input, Part, Retriever};
use anchorite_index::{
    Answer, Cancel, Field, Key, Pair, PairStore, Parts, Precision, Query, Record, RowId, Side, Spec, StoreError, StoreStatus,
    memory::MemoryStore,
};
use common::{DIM, caption, encoder, pair, picture, store};

/// A store that remembers of which tower it was told each query comes.
struct Watched {
    store: MemoryStore,
    told: Mutex<Vec<Option<Side>>>,
}

impl PairStore for Watched {
    fn spec(&self) -> &Spec {
        self.store.spec()
    }
    fn precision(&self) -> Precision {
        self.store.precision()
    }
    fn max_k(&self) -> usize {
        self.store.max_k()
    }
    fn status(&self) -> StoreStatus {
        self.store.status()
    }
    fn search(&self, queries: &[Query], cancel: &Cancel) -> Result<Vec<Answer>, StoreError> {
        self.told.lock().expect("no test panics with it").extend(queries.iter().map(|query| query.asked));
        self.store.search(queries, cancel)
    }
    fn get(&self, rows: &[RowId], parts: Parts) -> Result<Vec<Option<Record>>, StoreError> {
        self.store.get(rows, parts)
    }
    fn find(&self, keys: &[Key]) -> Result<Vec<Option<RowId>>, StoreError> {
        self.store.find(keys)
    }
    fn fields(&self, cancel: &Cancel) -> Result<Vec<Field>, StoreError> {
        self.store.fields(cancel)
    }
}

/// Pictures lie about the first axis, captions about the second; `number` says where.
fn vector(side: Side, number: u32) -> Vec<f32> {
    let axis = if side == Side::Image { 0 } else { 1 };
    let noise = |place: usize| ((f64::from(number) * 12.9898 + place as f64 * 78.233).sin() * 43_758.545).fract() as f32 / 2.0;
    let values: Vec<f32> = (0..DIM).map(|place| noise(place) * 0.4 + if place == axis { 1.0 } else { 0.0 }).collect();
    let length = values.iter().map(|v| v * v).sum::<f32>().sqrt();
    values.into_iter().map(|v| v / length).collect()
}

fn pool(rows: u32, texts: bool) -> (Retriever, Arc<Watched>) {
    let one = |n: u32| Pair {
        image: Some(vector(Side::Image, n)),
        text: texts.then(|| vector(Side::Text, n)),
        ..pair(&format!("p{n}"), &picture(n), &caption(n), "photo")
    };
    let pairs: Vec<Pair> = (0..rows).map(one).collect();
    let watched = Arc::new(Watched { store: store(&pairs), told: Mutex::default() });
    let shared: Arc<dyn PairStore> = watched.clone();
    (Retriever::new(Arc::new(encoder()), shared).expect("they belong together"), watched)
}

/// What the store is told of each ask.
fn told((retriever, watched): &(Retriever, Arc<Watched>), asks: &[Ask]) -> Vec<Option<Side>> {
    retriever.find(asks, &Cancel::default()).expect("answers");
    std::mem::take(&mut watched.told.lock().expect("no test panics with it"))
}

fn bare(vector: Vec<f32>) -> Ask {
    Ask::new(Input::Embedding(vector))
}

#[test]
fn a_vector_of_any_length_is_told_by_where_the_pools_own_lie() {
    for texts in [false, true] {
        let pool = pool(200, texts);
        let long = vector(Side::Image, 1_001).into_iter().map(|v| v * 250.0).collect();
        let found = told(&pool, &[bare(vector(Side::Image, 1_000)), bare(long), bare(vector(Side::Text, 1_000))]);
        let text = texts.then_some(Side::Text);
        assert_eq!(found, [Some(Side::Image), Some(Side::Image), text], "a pool without captions knows only what is no picture");
    }
}

#[test]
fn what_lies_in_no_cone_or_in_a_small_pool_is_not_told() {
    let mut elsewhere = vec![0.0; DIM];
    elsewhere[5] = -1.0;
    assert_eq!(told(&pool(200, true), &[bare(elsewhere)]), [None]);
    assert_eq!(told(&pool(20, true), &[bare(vector(Side::Image, 1_000))]), [None]);
}

#[test]
fn what_the_question_says_comes_first_and_a_stored_vector_is_what_it_is() {
    let pool = pool(200, true);
    let said = Ask { from: Some(Side::Text), ..bare(vector(Side::Image, 1_000)) };
    let row = Ask::new(Input::Row(RowId(3)));
    let words = Ask { from: Some(Side::Text), ..row.clone() };
    assert_eq!(told(&pool, &[said, row, words]), [Some(Side::Text), Some(Side::Image), Some(Side::Text)]);
}

#[test]
fn a_blend_comes_from_a_tower_only_where_all_of_it_does() {
    let pool = pool(200, true);
    let with = |side, weight| {
        let part = Part { input: Input::Embedding(vector(side, 1_001)), weight, from: None };
        Ask { and: vec![part], ..bare(vector(Side::Image, 1_000)) }
    };
    let asks = [with(Side::Image, 1.0), with(Side::Text, 1.0), with(Side::Image, -0.5)];
    assert_eq!(told(&pool, &asks), [Some(Side::Image), None, None]);
}
