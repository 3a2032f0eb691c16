//! An encoder and a store, asked together.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anchorite_anchors::{Ask, AskError, Found, Input, Limits, RetrieveError, Retriever};
use anchorite_encoder::{Embedding, Encode, EncodeError, ImageError, Pixels, TextError, Tokens, fake::FakeEncoder};
use anchorite_index::{
    Cancel, ContentHash, Effort, Hit, Key, Pair, PairSink as _, Parts, RowId, Side, SourceRef, Spec, StoreError,
    memory::MemoryStore,
};

const DIM: usize = 8;
const WORDS: [&str; 4] = ["red apple", "green apple", "blue sea", "yellow sun"];

/// The fake encoder, counting batches; told to, it loses the last item of every batch or has no image tower.
#[derive(Default)]
struct Counting {
    texts: AtomicUsize,
    images: AtomicUsize,
    loses_one: bool,
    blind: bool,
}

fn fake() -> FakeEncoder {
    FakeEncoder::new(DIM)
}

impl Encode for Counting {
    fn dim(&self) -> usize {
        DIM
    }
    fn fingerprint(&self) -> &str {
        "fake-8"
    }
    fn name(&self) -> &str {
        "counting"
    }
    fn prepare_image(&self, bytes: &[u8]) -> Result<Pixels, ImageError> {
        fake().prepare_image(bytes)
    }
    fn prepare_text(&self, text: &str) -> Result<Tokens, TextError> {
        fake().prepare_text(text)
    }
    fn encode_images(&self, batch: &[Pixels]) -> Result<Vec<Embedding>, EncodeError> {
        self.images.fetch_add(1, Ordering::Relaxed);
        if self.blind {
            return Err(EncodeError::NoTower { tower: "image" });
        }
        fake().encode_images(batch)
    }
    fn encode_texts(&self, batch: &[Tokens]) -> Result<Vec<Embedding>, EncodeError> {
        self.texts.fetch_add(1, Ordering::Relaxed);
        let mut embeddings = fake().encode_texts(batch)?;
        if self.loses_one {
            embeddings.pop();
        }
        Ok(embeddings)
    }
}

fn picture(row: u8) -> Vec<u8> {
    vec![0xff, 0xd8, 0xff, row]
}

fn image_vector(row: u8) -> Vec<f32> {
    fake().encode_images(&[fake().prepare_image(&picture(row)).expect("a picture")]).expect("encodes").remove(0).into_vec()
}

fn text_vector(text: &str) -> Vec<f32> {
    fake().encode_texts(&[fake().prepare_text(text).expect("a text")]).expect("encodes").remove(0).into_vec()
}

/// Four rows with both vectors, then one with a caption only.
fn store() -> Arc<MemoryStore> {
    let pair = |row: u8, caption: &str, image: Option<Vec<f32>>| Pair {
        key: Key::new(format!("k{row}")).expect("a key"),
        source: SourceRef { file: "four".to_owned(), row: row.into() },
        content: ContentHash([row; 32]),
        picture: image.is_some().then(|| picture(row)),
        image,
        text: Some(text_vector(caption)),
        caption: Some(caption.to_owned()),
        fields: BTreeMap::new(),
    };
    let mut pairs: Vec<Pair> = (0..).zip(WORDS).map(|(row, words)| pair(row, words, Some(image_vector(row)))).collect();
    pairs.push(pair(4, "only words", None));
    let mut store = MemoryStore::new(Spec { encoder: "fake-8".to_owned(), dim: DIM });
    store.append(&pairs).expect("appends");
    store.commit(&Cancel::default()).expect("commits");
    Arc::new(store)
}

fn retriever() -> Retriever {
    Retriever::new(Arc::new(fake()), store()).expect("they match")
}

fn first(retriever: &Retriever, ask: Ask) -> RowId {
    retriever.find(&[ask], &Cancel::default()).expect("an answer").found[0].hits[0].row
}

fn refused(asks: &[Ask]) -> RetrieveError {
    retriever().find(asks, &Cancel::default()).expect_err("refused")
}

#[test]
fn another_encoder_s_pool_is_refused() {
    let other = Retriever::new(Arc::new(FakeEncoder::new(9)), store()).expect_err("refused");
    assert!(matches!(other, StoreError::SpecMismatch { pool_dim: 8, encoder_dim: 9, .. }), "{other}");
    assert_eq!(RetrieveError::from(other).code(), "encoder_mismatch");
}

#[test]
fn each_kind_of_input_finds_its_pair() {
    let retriever = retriever();
    assert_eq!(first(&retriever, Ask { side: Side::Text, ..Ask::new(Input::Text("blue sea".into())) }), RowId(2));
    assert_eq!(first(&retriever, Ask::new(Input::Picture(picture(3)))), RowId(3));
    assert_eq!(first(&retriever, Ask::new(Input::Embedding(image_vector(1)))), RowId(1));
    assert_eq!(first(&retriever, Ask::new(Input::Row(RowId(2)))), RowId(2));
    assert_eq!(first(&retriever, Ask::new(Input::Key(Key::new("k0").expect("a key")))), RowId(0));
}

#[test]
fn a_stored_pair_asks_with_its_picture_unless_told_or_without_one() {
    let retriever = retriever();
    let ask = |row, from| Ask { side: Side::Text, from, ..Ask::new(Input::Row(RowId(row))) };
    let answers = retriever.find(&[ask(1, None), ask(1, Some(Side::Text)), ask(4, None)], &Cancel::default()).expect("an answer");
    let image = Ask { side: Side::Text, ..Ask::new(Input::Embedding(image_vector(1))) };
    let by_image = retriever.find(&[image], &Cancel::default()).expect("an answer");
    assert_eq!(answers.found[0], by_image.found[0]);
    assert_eq!(answers.found[1].hits[0].row, RowId(1));
    assert_eq!(answers.found[2].hits[0].row, RowId(4));
    let error = refused(&[ask(4, Some(Side::Image))]);
    assert_eq!(error.code(), "pair_without_vector");
}

#[test]
fn a_mixed_call_encodes_texts_together_and_pictures_together_and_keeps_the_order() {
    let encoder = Arc::new(Counting::default());
    let retriever = Retriever::new(Arc::clone(&encoder) as Arc<dyn Encode>, store()).expect("they match");
    let asks: Vec<Ask> = (0..4)
        .flat_map(|row| {
            [Input::Picture(picture(row)), Input::Text(WORDS[usize::from(row)].into()), Input::Row(RowId(row.into()))]
        })
        .map(|input| Ask {
            side: if matches!(input, Input::Text(_)) { Side::Text } else { Side::Image },
            k: 1,
            ..Ask::new(input)
        })
        .collect();
    let answers = retriever.find(&asks, &Cancel::default()).expect("an answer");
    let rows: Vec<u64> = answers.found.iter().map(|f| f.hits[0].row.0).collect();
    assert_eq!(rows, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]);
    assert_eq!((encoder.texts.load(Ordering::Relaxed), encoder.images.load(Ordering::Relaxed)), (1, 1));
    let limits = Limits { encode_batch: 3, ..Limits::default() };
    let small = Retriever::with_limits(Arc::clone(&encoder) as Arc<dyn Encode>, store(), limits).expect("they match");
    assert_eq!(small.find(&asks, &Cancel::default()).expect("an answer").found, answers.found);
    assert_eq!((encoder.texts.load(Ordering::Relaxed), encoder.images.load(Ordering::Relaxed)), (3, 3));
}

#[test]
fn a_call_without_questions_has_no_answers() {
    assert!(retriever().find(&[], &Cancel::default()).expect("an answer").found.is_empty());
}

#[test]
fn the_threshold_cuts_the_tail_and_counts_it() {
    let ask = Ask { threshold: Some(0.999), ..Ask::new(Input::Row(RowId(0))) };
    let found = retriever().find(&[ask], &Cancel::default()).expect("an answer").found.remove(0);
    assert_eq!((found.hits.len(), found.below_threshold, found.requested), (1, 3, 10));
    assert_eq!(found.hits[0].row, RowId(0));
}

#[test]
fn a_bad_question_is_named_by_position_and_code() {
    let good = || Ask::new(Input::Row(RowId(0)));
    let bad: Vec<(Ask, &str)> = vec![
        (Ask { k: 0, ..good() }, "k_out_of_range"),
        (Ask { k: 10_001, ..good() }, "k_out_of_range"),
        (Ask { threshold: Some(f32::NAN), ..good() }, "threshold_not_finite"),
        (Ask::new(Input::Text(" \t".into())), "text_empty"),
        (Ask::new(Input::Picture(Vec::new())), "image_empty"),
        (Ask::new(Input::Picture(b"GIF8".to_vec())), "image_unknown_format"),
        (Ask::new(Input::Embedding(vec![1.0])), "embedding_dimension"),
        (Ask::new(Input::Embedding(vec![f32::NAN; DIM])), "embedding_values"),
        (Ask::new(Input::Embedding(vec![0.0; DIM])), "embedding_values"),
        (Ask::new(Input::Row(RowId(5))), "pair_not_found"),
        (Ask::new(Input::Row(RowId(u64::MAX))), "pair_not_found"),
        (Ask::new(Input::Key(Key::new("nobody").expect("a key"))), "pair_not_found"),
    ];
    for (ask, code) in bad {
        let alone = refused(std::slice::from_ref(&ask));
        assert_eq!(alone.code(), code, "{ask:?}");
        assert!(!alone.to_string().starts_with("query"), "{alone}");
        let second = refused(&[good(), ask.clone()]);
        assert!(matches!(second, RetrieveError::Ask { ask: 1, asks: 2, .. }), "{second:?}");
        assert!(second.to_string().starts_with("query 1: "), "{second}");
    }
}

#[test]
fn what_the_encoder_cannot_do_is_an_error_and_no_panic() {
    let asked = |encoder: Counting, ask: Ask| {
        let retriever = Retriever::new(Arc::new(encoder), store()).expect("they match");
        retriever.find(&[ask], &Cancel::default()).expect_err("refused")
    };
    let loses = asked(Counting { loses_one: true, ..Counting::default() }, Ask::new(Input::Text("apple".into())));
    assert_eq!(loses.code(), "encoder_failed");
    let blind = asked(Counting { blind: true, ..Counting::default() }, Ask::new(Input::Picture(picture(0))));
    assert_eq!(blind.code(), "no_tower");
}

#[test]
fn a_raised_flag_ends_the_call_before_anything_is_encoded() {
    let encoder = Arc::new(Counting::default());
    let retriever = Retriever::new(Arc::clone(&encoder) as Arc<dyn Encode>, store()).expect("they match");
    let cancel = Cancel::default();
    cancel.cancel();
    for input in [Input::Text("apple".into()), Input::Picture(picture(0)), Input::Row(RowId(0))] {
        assert_eq!(retriever.find(&[Ask::new(input)], &cancel).expect_err("cancelled").code(), "cancelled");
    }
    assert_eq!((encoder.texts.load(Ordering::Relaxed), encoder.images.load(Ordering::Relaxed)), (0, 0));
}

#[test]
fn anchors_are_the_first_hits_with_what_the_pool_keeps_of_them() {
    let limits = Limits { read_batch: 2, ..Limits::default() };
    let retriever = Retriever::with_limits(Arc::new(fake()), store(), limits).expect("they match");
    let ask = Ask { effort: Effort::Exact, ..Ask::new(Input::Row(RowId(2))) };
    let found = retriever.find(&[ask], &Cancel::default()).expect("an answer").found.remove(0);
    let anchors = retriever.anchors(&found, Parts { picture: true, vectors: false }, 3).expect("records");
    let summary: Vec<(usize, RowId, f32)> = anchors.iter().map(|a| (a.rank, a.record.row, a.score)).collect();
    let hits: Vec<(usize, RowId, f32)> = found.hits.iter().enumerate().map(|(i, h)| (i, h.row, h.score)).take(3).collect();
    assert_eq!(summary, hits);
    assert_eq!((anchors[0].record.caption.as_deref(), &anchors[0].record.picture), (Some("blue sea"), &Some(picture(2))));
    assert_eq!(anchors[0].record.image, None, "not asked for");
    let rest = retriever.anchors_in(&found, Parts::default(), 3..100).expect("records");
    assert_eq!(rest.iter().map(|a| a.rank).collect::<Vec<_>>(), [3]);
    assert!(retriever.anchors_in(&found, Parts::default(), 50..60).expect("records").is_empty());
}

#[test]
fn a_row_that_has_gone_is_left_out_and_ranks_stay() {
    let hit = |row| Hit { row: RowId(row), score: 0.5 };
    let found = Found { hits: vec![hit(1), hit(77), hit(0)], requested: 3, ..Found::default() };
    let anchors = retriever().anchors(&found, Parts::default(), 3).expect("records");
    assert_eq!(anchors.iter().map(|a| (a.rank, a.record.row.0)).collect::<Vec<_>>(), [(0, 1), (2, 0)]);
}

#[test]
fn every_refusal_says_what_to_do() {
    let sentence = AskError::Dimension { expected: 512, found: 3 }.to_string();
    assert_eq!(sentence, "the embedding has 3 values; this pool's have 512, so make it with this pool's model");
    assert_eq!(AskError::K { k: 0, max: 10 }.to_string(), "k is 0; give a number between 1 and 10");
}
