//! One set of promises, two stores: the one in memory that compares every row, and the pool on disk.
#![expect(clippy::unwrap_used, reason = "tests")]

mod changes;
#[path = "../pool/medium.rs"]
#[expect(dead_code, reason = "power is not cut here")]
mod medium;

use std::{collections::BTreeMap, sync::Arc};

use anchorite_index::{
    Cancel, ContentHash, Effort, Field, Key, Kind, Pair, PairSink, PairStore, Parts, Query, RowId, Side, SourceRef, Spec,
    StoreError, Value,
    memory::MemoryStore,
    pool::{OpenOptions, Pool, PoolWriter, WriterOptions},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const DIM: usize = 20;

/// A store that can be written, and read as of the last commit.
trait Store {
    fn sink(&mut self) -> &mut dyn PairSink;
    fn reader(&self) -> Box<dyn PairStore + '_>;
}

struct Borrowed<'a>(&'a MemoryStore);

impl PairStore for Borrowed<'_> {
    fn spec(&self) -> &Spec {
        self.0.spec()
    }
    fn precision(&self) -> anchorite_index::Precision {
        self.0.precision()
    }
    fn max_k(&self) -> usize {
        self.0.max_k()
    }
    fn status(&self) -> anchorite_index::StoreStatus {
        self.0.status()
    }
    fn search(&self, q: &[Query], c: &Cancel) -> Result<Vec<anchorite_index::Answer>, StoreError> {
        self.0.search(q, c)
    }
    fn get(&self, rows: &[RowId], parts: Parts) -> Result<Vec<Option<anchorite_index::Record>>, StoreError> {
        self.0.get(rows, parts)
    }
    fn find(&self, keys: &[Key]) -> Result<Vec<Option<RowId>>, StoreError> {
        self.0.find(keys)
    }
    fn fields(&self, c: &Cancel) -> Result<Vec<Field>, StoreError> {
        self.0.fields(c)
    }
}

impl Store for MemoryStore {
    fn sink(&mut self) -> &mut dyn PairSink {
        self
    }
    fn reader(&self) -> Box<dyn PairStore + '_> {
        Box::new(Borrowed(self))
    }
}

struct OnDisk {
    dir: tempfile::TempDir,
    writer: PoolWriter,
}

impl Store for OnDisk {
    fn sink(&mut self) -> &mut dyn PairSink {
        &mut self.writer
    }
    fn reader(&self) -> Box<dyn PairStore + '_> {
        Box::new(Pool::open(self.dir.path(), &OpenOptions::default()).unwrap())
    }
}

fn spec() -> Spec {
    Spec { encoder: "tests".into(), dim: DIM }
}

/// Runs a promise on both stores, the pool also with segments of five rows, and on the medium by which other tests cut the power, which
/// holds then what the folder does.
fn on_every_store(promise: impl Fn(&mut dyn Store)) {
    promise(&mut MemoryStore::new(spec()));
    for segment_rows in [5, 1_000_000] {
        let dir = tempfile::tempdir().unwrap();
        let options = WriterOptions { segment_rows, ..WriterOptions::default() };
        let writer = PoolWriter::open(dir.path(), &spec(), &options).unwrap();
        promise(&mut OnDisk { dir, writer });
    }
    let (dir, medium) = (tempfile::tempdir().unwrap(), medium::Remembering::default());
    let options = WriterOptions { segment_rows: 5, medium: Arc::new(medium.clone()), ..WriterOptions::default() };
    let mut store = OnDisk { writer: PoolWriter::open(dir.path(), &spec(), &options).unwrap(), dir };
    promise(&mut store);
    assert_eq!(medium.differs(store.dir.path()), [""; 0], "the medium holds something else than the folder");
}

fn key(n: usize) -> Key {
    Key::new(format!("k-{n:03}")).unwrap()
}

fn unit(rng: &mut ChaCha8Rng) -> Vec<f32> {
    let v: Vec<f32> = (0..DIM).map(|_| rng.random_range(-1.0..1.0)).collect();
    let length = v.iter().map(|x| x * x).sum::<f32>().sqrt();
    v.into_iter().map(|x| x / length).collect()
}

/// Pairs of every shape: both vectors, one of them, with and without caption, picture, fields.
fn pairs(count: usize) -> Vec<Pair> {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let pair = |n: usize| {
        let (image, text) = (unit(&mut rng), unit(&mut rng));
        let mut fields = BTreeMap::new();
        if n.is_multiple_of(2) {
            fields.insert("width".into(), Value::Int(n as i64 - 3));
            fields.insert("score".into(), Value::Float(n as f64 / 7.0));
            fields.insert("whole".into(), Value::Float(2.0));
            fields.insert("nsfw".into(), Value::Bool(n.is_multiple_of(4)));
            fields.insert("licence".into(), Value::Text("CC0 \u{00e9}".into()));
        }
        Pair {
            key: key((n * 7) % 100),
            source: SourceRef { file: "a/b.parquet".into(), row: n as u64 },
            content: ContentHash([n as u8; 32]),
            image: (n % 3 != 1).then_some(image),
            text: (n % 3 != 2).then_some(text),
            caption: (!n.is_multiple_of(5)).then(|| if n % 5 == 1 { String::new() } else { format!("caption {n}") }),
            fields,
            picture: (n % 4 != 3).then(|| vec![n as u8; n]),
        }
    };
    (0..count).map(pair).collect()
}

fn query(vector: Vec<f32>, k: usize, effort: Effort) -> Query {
    Query::new(Side::Image, vector, k, effort)
}

fn ask(store: &dyn PairStore, q: Query) -> Result<anchorite_index::Answer, StoreError> {
    store.search(&[q], &Cancel::default()).map(|mut a| a.remove(0))
}

#[test]
fn it_lists_the_fields_of_its_pairs_with_the_kinds_of_their_values() {
    on_every_store(|store| {
        assert_eq!(store.reader().fields(&Cancel::default()).unwrap(), []);
        let mut batch = pairs(6);
        batch[3].fields.insert("width".into(), Value::Text("wide".into()));
        batch[5].fields.insert("caption".into(), Value::Int(1));
        store.sink().append(&batch).unwrap();
        store.sink().commit(&Cancel::default()).unwrap();
        let fields = store.reader().fields(&Cancel::default()).unwrap();
        let listed: Vec<(&str, &[Kind])> = fields.iter().map(|f| (f.asked.as_str(), f.kinds.as_slice())).collect();
        assert_eq!(fields[0].name, "caption");
        let (number, text): (&[Kind], &[Kind]) = (&[Kind::Number], &[Kind::Text]);
        let mixed: &[Kind] = &[Kind::Number, Kind::Text];
        assert_eq!(
            listed,
            [
                ("fields.caption", number),
                ("licence", text),
                ("nsfw", &[Kind::Bool]),
                ("score", number),
                ("whole", number),
                ("width", mixed)
            ]
        );
    });
}

#[test]
fn an_empty_store_answers_with_nothing() {
    on_every_store(|store| {
        let reader = store.reader();
        let status = reader.status();
        assert_eq!((status.rows, status.generation), (0, 0));
        assert!(ask(&*reader, query(pairs(1)[0].image.clone().unwrap(), 3, Effort::Normal)).unwrap().hits.is_empty());
        assert_eq!(reader.get(&[RowId(0)], Parts::default()).unwrap(), [None]);
        assert_eq!(reader.find(&[key(1)]).unwrap(), [None]);
    });
}

#[test]
fn appended_pairs_appear_at_the_commit_and_come_back_as_they_were() {
    on_every_store(|store| {
        let pairs = pairs(23);
        store.sink().append(&pairs).unwrap();
        assert_eq!(store.reader().status().rows, 0);
        assert_eq!(store.sink().commit(&Cancel::default()).unwrap(), 1);
        let reader = store.reader();
        let status = reader.status();
        let count = |f: fn(&Pair) -> bool| pairs.iter().filter(|p| f(p)).count() as u64;
        assert_eq!(
            (status.rows, status.image_rows, status.text_rows, status.generation),
            (23, count(|p| p.image.is_some()), count(|p| p.text.is_some()), 1)
        );
        let rows: Vec<RowId> = (0..24).map(RowId).collect();
        let records = reader.get(&rows, Parts { picture: true, vectors: true }).unwrap();
        assert_eq!(records[23], None);
        for (pair, record) in pairs.iter().zip(&records) {
            let record = record.as_ref().unwrap();
            assert_eq!((&record.key, &record.source, record.content), (&pair.key, &pair.source, pair.content));
            assert_eq!((&record.caption, &record.fields, &record.picture), (&pair.caption, &pair.fields, &pair.picture));
            for (given, got) in [(&pair.image, &record.image), (&pair.text, &record.text)] {
                assert_eq!(given.is_some(), got.is_some());
                let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-3;
                assert!(given.iter().flatten().zip(got.iter().flatten()).all(close));
            }
        }
        let bare = reader.get(&[RowId(2)], Parts::default()).unwrap().remove(0).unwrap();
        assert_eq!((bare.picture, bare.image, bare.text), (None, None, None));
        let keys: Vec<Key> = pairs.iter().map(|p| p.key.clone()).chain([Key::new("absent").unwrap()]).collect();
        let found = reader.find(&keys).unwrap();
        assert!((0..23).all(|n| found[n] == Some(RowId(n as u64))) && found[23].is_none());
    });
}

#[test]
fn hits_are_the_nearest_by_cosine_with_ties_by_row_at_every_effort() {
    let mut oracle = MemoryStore::new(spec());
    oracle.append(&pairs(60)).unwrap();
    oracle.commit(&Cancel::default()).unwrap();
    on_every_store(|store| {
        store.sink().append(&pairs(31)).unwrap();
        store.sink().commit(&Cancel::default()).unwrap();
        store.sink().append(&pairs(60)[31..]).unwrap();
        assert_eq!(store.sink().commit(&Cancel::default()).unwrap(), 2);
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for effort in [Effort::Fast, Effort::Normal, Effort::High, Effort::Exact] {
            for (side, k) in [(Side::Image, 1), (Side::Text, 7), (Side::Image, 10_000)] {
                let vector: Vec<f32> = unit(&mut rng).iter().map(|v| v * 3.0).collect();
                let q = Query::new(side, vector, k, effort);
                let expected = oracle.search(std::slice::from_ref(&q), &Cancel::default()).unwrap().remove(0);
                let answer = ask(&*store.reader(), q).unwrap();
                assert!(!answer.degraded);
                let rows = |a: &anchorite_index::Answer| a.hits.iter().map(|h| h.row).collect::<Vec<_>>();
                assert_eq!(rows(&answer), rows(&expected));
                assert!(answer.hits.iter().zip(&expected.hits).all(|(a, b)| (a.score - b.score).abs() < 2e-3));
            }
        }
    });
}

#[test]
fn one_row_answers() {
    on_every_store(|store| {
        store.sink().append(&pairs(1)).unwrap();
        store.sink().commit(&Cancel::default()).unwrap();
        let vector = pairs(1)[0].image.clone().unwrap();
        for effort in [Effort::Fast, Effort::Exact] {
            let answer = ask(&*store.reader(), query(vector.clone(), 5, effort)).unwrap();
            assert_eq!(answer.hits.len(), 1);
            assert!((answer.hits[0].score - 1.0).abs() < 1e-3 && answer.hits[0].score <= 1.0);
        }
    });
}

#[test]
fn bad_queries_are_named() {
    on_every_store(|store| {
        let good = pairs(1)[0].image.clone().unwrap();
        let only_text: Vec<Pair> = pairs(9).into_iter().filter(|p| p.image.is_none()).collect();
        store.sink().append(&only_text).unwrap();
        store.sink().commit(&Cancel::default()).unwrap();
        let reader = store.reader();
        let text = |vector: Vec<f32>, k| Query::new(Side::Text, vector, k, Effort::Normal);
        let mut nan = good.clone();
        nan[3] = f32::NAN;
        assert!(matches!(ask(&*reader, text(nan, 1)), Err(StoreError::NotFinite { position: 3 })));
        let short = ask(&*reader, text(good[1..].to_vec(), 1));
        assert!(matches!(short, Err(StoreError::Dimension { expected: DIM, found }) if found == DIM - 1));
        assert!(matches!(ask(&*reader, text(vec![0.0; DIM], 1)), Err(StoreError::Length { .. })));
        assert!(matches!(ask(&*reader, text(good.clone(), 0)), Err(StoreError::K { k: 0, .. })));
        let most = reader.max_k();
        assert!(ask(&*reader, text(good.clone(), most)).is_ok());
        assert!(matches!(ask(&*reader, text(good.clone(), most + 1)), Err(StoreError::K { .. })));
        assert!(matches!(ask(&*reader, query(good.clone(), 1, Effort::Normal)), Err(StoreError::NoSide { side: Side::Image })));
        let cancel = Cancel::default();
        cancel.cancel();
        assert!(matches!(reader.search(&[text(good, 1)], &cancel), Err(StoreError::Cancelled)));
    });
}

#[test]
fn a_refused_batch_leaves_the_store_as_it_was() {
    on_every_store(|store| {
        let good = pairs(8);
        store.sink().append(&good[..2]).unwrap();
        let mut bad = [good[2].clone(), good[3].clone()];
        bad[1].image = None;
        bad[1].text = None;
        assert!(matches!(store.sink().append(&bad), Err(StoreError::NoVector { .. })));
        bad[1].text = Some(vec![f32::INFINITY; DIM]);
        assert!(matches!(store.sink().append(&bad), Err(StoreError::NotFinite { position: 0 })));
        bad[1].text = Some(vec![0.5; DIM]);
        assert!(matches!(store.sink().append(&bad), Err(StoreError::Length { .. })));
        bad[1].text = Some(vec![1.0]);
        assert!(matches!(store.sink().append(&bad), Err(StoreError::Dimension { .. })));
        assert!(matches!(store.sink().append(&[good[4].clone(), good[4].clone()]), Err(StoreError::Duplicate { .. })));
        assert!(matches!(store.sink().append(&good[1..3]), Err(StoreError::Duplicate { .. })));
        assert_eq!(store.sink().content(&good[1].key).unwrap(), Some(good[1].content));
        assert_eq!(store.sink().content(&good[2].key).unwrap(), None);
        store.sink().commit(&Cancel::default()).unwrap();
        assert!(matches!(store.sink().append(&good[..1]), Err(StoreError::Duplicate { .. })));
        assert_eq!(store.sink().content(&good[0].key).unwrap(), Some(good[0].content));
        assert_eq!(store.reader().status().rows, 2);
        store.sink().append(&good[2..]).unwrap();
        store.sink().commit(&Cancel::default()).unwrap();
        assert_eq!(store.reader().status().rows, 8);
    });
}

#[test]
fn a_commit_of_nothing_changes_nothing() {
    on_every_store(|store| {
        assert_eq!(store.sink().commit(&Cancel::default()).unwrap(), 0);
        store.sink().append(&pairs(3)).unwrap();
        assert_eq!(store.sink().commit(&Cancel::default()).unwrap(), 1);
        assert_eq!(store.sink().commit(&Cancel::default()).unwrap(), 1);
        assert_eq!(store.reader().status().generation, 1);
    });
}

/// What the filter language means, said a second time and as plainly as possible: values of the pair by name, no index, no plan.
mod reference {
    use std::cmp::Ordering;

    use super::{Pair, Value};
    use serde_json::Value as Json;

    fn value(pair: &Pair, field: &str) -> Option<Value> {
        match field {
            "key" => Some(Value::Text(pair.key.to_string())),
            "caption" => pair.caption.clone().map(Value::Text),
            "source" => Some(Value::Text(pair.source.file.clone())),
            "source.row" => Some(Value::Int(pair.source.row as i64)),
            other => pair.fields.get(other.strip_prefix("fields.").unwrap_or(other)).cloned(),
        }
    }

    /// The order of two values of one kind. The tests' numbers are small, so f64 holds them.
    fn order(a: &Value, b: &Json) -> Option<Ordering> {
        match (a, b) {
            (Value::Bool(a), Json::Bool(b)) => Some(a.cmp(b)),
            (Value::Text(a), Json::String(b)) => Some(a.as_str().cmp(b)),
            (Value::Int(a), Json::Number(b)) => (*a as f64).partial_cmp(&b.as_f64()?),
            (Value::Float(a), Json::Number(b)) => a.partial_cmp(&b.as_f64()?),
            _ => None,
        }
    }

    pub(crate) fn matches(filter: &Json, pair: &Pair) -> bool {
        let (form, body) = filter.as_object().unwrap().iter().next().unwrap();
        let list = |body: &Json| body.as_array().unwrap().clone();
        let found = body["field"].as_str().and_then(|field| value(pair, field));
        match form.as_str() {
            "and" => list(body).iter().all(|part| matches(part, pair)),
            "or" => list(body).iter().any(|part| matches(part, pair)),
            "not" => !matches(body, pair),
            "eq" => found.is_some_and(|v| order(&v, &body["value"]).is_some_and(Ordering::is_eq)),
            "in" => found.is_some_and(|v| list(&body["values"]).iter().any(|one| order(&v, one).is_some_and(Ordering::is_eq))),
            "prefix" => matches!(found, Some(Value::Text(t)) if t.starts_with(body["value"].as_str().unwrap())),
            "is_null" => found.is_none(),
            "range" => found.is_some_and(|v| {
                let holds =
                    |end: &str, is: fn(Ordering) -> bool| body.get(end).is_none_or(|bound| order(&v, bound).is_some_and(is));
                holds("gt", Ordering::is_gt)
                    && holds("gte", Ordering::is_ge)
                    && holds("lt", Ordering::is_lt)
                    && holds("lte", Ordering::is_le)
            }),
            _ => unreachable!("no such form: {form}"),
        }
    }
}

/// A filter over the fields of [`pairs`], as JSON.
fn random_filter(rng: &mut ChaCha8Rng, depth: usize) -> serde_json::Value {
    use serde_json::json;
    let parts = |rng: &mut ChaCha8Rng| (0..rng.random_range(0..4)).map(|_| random_filter(rng, depth - 1)).collect::<Vec<_>>();
    let number = |rng: &mut ChaCha8Rng| {
        let whole = rng.random_range(-4..60);
        if rng.random() { json!(whole) } else { json!(f64::from(whole) / 7.0) }
    };
    let field = |rng: &mut ChaCha8Rng, of: &[&str]| of[rng.random_range(0..of.len())].to_owned();
    let numeric = ["width", "score", "whole", "source.row", "fields.width"];
    match rng.random_range(0..if depth == 0 { 6 } else { 9 }) {
        0 => json!({ "eq": { "field": "nsfw", "value": rng.random::<bool>() } }),
        1 => {
            let values: Vec<_> = (0..rng.random_range(1..9)).map(|_| number(rng)).collect();
            json!({ "in": { "field": field(rng, &numeric), "values": values } })
        }
        2 => json!({ "eq": { "field": field(rng, &numeric), "value": number(rng) } }),
        3 => {
            let mut range = serde_json::Map::from_iter([("field".to_owned(), json!(field(rng, &numeric)))]);
            let ends = [["gt", "gte"], ["lt", "lte"]].map(|end| end[usize::from(rng.random::<bool>())]);
            for (end, there) in ends.into_iter().zip([[true, false], [false, true], [true, true]][rng.random_range(0..3)]) {
                there.then(|| range.insert(end.to_owned(), number(rng)));
            }
            json!({ "range": range })
        }
        4 => {
            let start = field(rng, &["k-0", "caption 1", "caption", "", "CC0 \u{e9}", "a/"]);
            json!({ "prefix": { "field": field(rng, &["key", "caption", "source", "licence"]), "value": start } })
        }
        5 => json!({ "is_null": { "field": field(rng, &["caption", "width", "key", "nsfw"]) } }),
        6 => json!({ "not": random_filter(rng, depth - 1) }),
        7 => json!({ "and": parts(rng) }),
        _ => json!({ "or": parts(rng) }),
    }
}

fn filter(json: serde_json::Value) -> Arc<anchorite_index::Filter> {
    Arc::new(json.try_into().unwrap())
}

#[test]
fn a_filtered_search_finds_the_nearest_of_those_that_match_at_every_effort() {
    let pairs = pairs(60);
    on_every_store(|store| {
        store.sink().append(&pairs).unwrap();
        store.sink().commit(&Cancel::default()).unwrap();
        let reader = store.reader();
        let mut rng = ChaCha8Rng::seed_from_u64(23);
        let mut sizes = std::collections::BTreeSet::new();
        for case in 0..400 {
            let json = random_filter(&mut rng, 3);
            let of = |side: Side| move |p: &Pair| if side == Side::Image { p.image.is_some() } else { p.text.is_some() };
            let shared = filter(json.clone());
            let again: serde_json::Value = serde_json::to_value(&*shared).unwrap();
            assert_eq!(*filter(again), *shared, "{json} comes back as another filter");
            let effort = [Effort::Fast, Effort::Normal, Effort::High, Effort::Exact][case % 4];
            let k = [1, 3, 100][case % 3];
            let side = Side::ALL[case % 2];
            let with = Query { filter: Some(shared), ..Query::new(side, unit(&mut rng), k, effort) };
            let without = Query { filter: None, k: 10_000, effort: Effort::Exact, ..with.clone() };
            let mut answers = reader.search(&[with, without], &Cancel::default()).unwrap();
            let all = answers.pop().unwrap();
            let answer = answers.pop().unwrap();
            let matching = |row: RowId| reference::matches(&json, &pairs[row.0 as usize]);
            let expected: Vec<_> = all.hits.into_iter().filter(|h| matching(h.row)).take(k).collect();
            assert_eq!(answer.hits, expected, "{json}");
            assert!(!answer.degraded);
            sizes.insert(pairs.iter().filter(|p| of(side)(p) && reference::matches(&json, p)).count());
        }
        assert!(sizes.len() > 12 && sizes.contains(&0), "the filters are of many selectivities: {sizes:?}");
    });
}

#[test]
fn a_filter_that_cannot_be_meant_is_refused_by_name() {
    use anchorite_index::{Filter, FilterError};
    use serde_json::json;
    on_every_store(|store| {
        let vector = pairs(1)[0].image.clone().unwrap();
        let with = |json| Query { filter: Some(filter(json)), ..query(vector.clone(), 3, Effort::Normal) };
        let unknown = json!({ "not": { "eq": { "field": "colour", "value": 1 } } });
        assert!(ask(&*store.reader(), with(unknown.clone())).unwrap().hits.is_empty(), "an empty store has no fields to miss");
        store.sink().append(&pairs(20)).unwrap();
        store.sink().commit(&Cancel::default()).unwrap();
        let reader = store.reader();
        let refused = |json| match ask(&*reader, with(json)) {
            Err(StoreError::Filter(error)) => error,
            other => panic!("{other:?}"),
        };
        let error = refused(unknown);
        assert!(matches!(&error, FilterError::UnknownField { field, .. } if field == "colour"));
        assert_eq!(
            error.to_string(),
            "no pair of this pool has a field \"colour\"; there are licence, nsfw, score, whole, width"
        );
        let error =
            refused(json!({ "or": [{ "is_null": { "field": "width" } }, { "prefix": { "field": "width", "value": "1" } }] }));
        assert!(matches!(&error, FilterError::Mistyped { field, .. } if field == "width"));
        assert!(
            error.to_string().starts_with("field \"width\" holds a number in this pool, and the filter compares it with text;")
        );
        for (field, value) in [("caption", json!(1)), ("source.row", json!("1")), ("nsfw", json!(1)), ("licence", json!(true))] {
            let error = refused(json!({ "eq": { "field": field, "value": value } }));
            assert!(matches!(&error, FilterError::Mistyped { field: named, .. } if named == field), "{error}");
        }
    });
    let refused = |text: &str| Filter::from_json(text).unwrap_err().to_string();
    for (text, says) in [
        ("{", "it is not JSON"),
        ("[]", "filter: give an object with one of and, or, not, eq, in, range, prefix, is_null"),
        ("{}", "filter: there are 0 members; give exactly one"),
        (r#"{"eq": 1}"#, "filter.eq: give an object with field and value"),
        (r#"{"and": [{"equals": {}}]}"#, "filter.and[0].equals: there is no such form; give one of and"),
        (r#"{"eq": {"field": "a"}}"#, "filter.eq: value is missing"),
        (r#"{"eq": {"field": "a", "value": 1, "case": 2}}"#, "filter.eq.case: unknown; field, value may stand here"),
        (
            r#"{"eq": {"field": "a", "value": null}}"#,
            "filter.eq.value: null is not compared; is_null finds pairs without the field",
        ),
        (r#"{"in": {"field": "a", "values": []}}"#, "filter.in.values: give a list of at least one value"),
        (r#"{"in": {"field": "a", "values": [1, 2.5, "3"]}}"#, "filter.in.values[2]: give a number like the first of the list"),
        (r#"{"range": {"field": "a"}}"#, "filter.range: give at least one of gt, gte, lt, lte"),
        (r#"{"range": {"field": "a", "gt": 1, "gte": 2}}"#, "filter.range: give gt or gte, not both"),
        (r#"{"range": {"field": "a", "gt": 1, "lt": "b"}}"#, "filter.range: both ends must be numbers, or both texts"),
        (r#"{"range": {"field": "a", "gt": true}}"#, "filter.range.gt: give a number or a text"),
        (r#"{"range": {"field": "", "gt": 1}}"#, "filter.range.field: give the name of a field"),
        (r#"{"not": {"or": {}}}"#, "filter.not.or: give a list of filters"),
    ] {
        assert!(refused(text).contains(says), "{text}: {}", refused(text));
    }
    let nested = |depth: usize| format!("{}{}{}", "{\"not\":".repeat(depth), r#"{"is_null":{"field":"a"}}"#, "}".repeat(depth));
    assert!(Filter::from_json(&nested(15)).is_ok());
    assert!(refused(&nested(16)).contains("a depth of 17; at most 16"));
    let many = |count: usize| json!({ "and": vec![json!({ "is_null": { "field": "a" } }); count] }).to_string();
    assert!(Filter::from_json(&many(1_023)).is_ok());
    assert!(refused(&many(1_024)).contains("this many terms: 1025; at most 1024"));
    let listed = |count: usize| json!({ "in": { "field": "a", "values": vec![1; count] } }).to_string();
    assert!(Filter::from_json(&listed(65_536)).is_ok());
    assert!(refused(&listed(65_537)).contains("65537; at most 65536"));
}
