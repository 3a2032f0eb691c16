//! Replacing, deleting, watermarks: the same on both stores.

use anchorite_index::{
    Cancel, ContentHash, Effort, Key, Pair, PairSink, PairStore, Parts, RowId, Side, StoreError, Upserted, Value,
    filter::{Column, Filter},
    memory::MemoryStore,
};

use super::{Store, ask, key, on_every_store, pairs, query, spec};

fn commit(store: &mut dyn Store) -> u64 {
    store.sink().commit(&Cancel::default()).unwrap()
}

/// The pair with another caption, vector and content.
fn changed(pair: &Pair, donor: &Pair) -> Pair {
    Pair { key: pair.key.clone(), content: ContentHash([0xEE; 32]), ..donor.clone() }
}

fn source(name: &str) -> Filter {
    Filter::In { field: Column::SourceFile, values: vec![Value::Text(name.into())] }
}

fn source_prefix(start: &str) -> Filter {
    Filter::Prefix { field: Column::SourceFile, start: start.into() }
}

fn keys_of(store: &dyn PairStore) -> Vec<Key> {
    let rows: Vec<RowId> = (0..store.status().positions).map(RowId).collect();
    store.get(&rows, Parts::default()).unwrap().into_iter().flatten().map(|record| record.key).collect()
}

/// Every side and effort gives what a plain comparison of `alive` gives.
fn same_answers(store: &dyn PairStore, alive: &[Pair]) {
    let mut oracle = MemoryStore::new(spec());
    oracle.append(alive).unwrap();
    oracle.commit(&Cancel::default()).unwrap();
    let keys = |store: &dyn PairStore, hits: &anchorite_index::Answer| -> Vec<Key> {
        let rows: Vec<RowId> = hits.hits.iter().map(|hit| hit.row).collect();
        store.get(&rows, Parts::default()).unwrap().into_iter().map(|record| record.unwrap().key).collect()
    };
    for effort in [Effort::Fast, Effort::Normal, Effort::Exact] {
        for (n, side) in [(0, Side::Image), (3, Side::Text), (6, Side::Image)] {
            let vector = pairs(60)[n].image.clone().unwrap();
            let asked = anchorite_index::Query { side, ..query(vector, 12, effort) };
            let (found, expected) = (ask(store, asked.clone()).unwrap(), ask(&oracle, asked).unwrap());
            assert!(!found.degraded);
            assert_eq!(keys(store, &found), keys(&oracle, &expected), "{effort:?} {side}");
        }
    }
}

#[test]
fn deleted_pairs_are_gone_from_everything_at_the_commit_and_keep_no_key() {
    on_every_store(|store| {
        let all = pairs(40);
        store.sink().append(&all).unwrap();
        commit(store);
        let doomed: Vec<Key> = all[5..25].iter().map(|pair| pair.key.clone()).chain([Key::new("absent").unwrap()]).collect();
        assert_eq!(store.sink().delete(&doomed).unwrap(), 20);
        assert_eq!(store.sink().delete(&doomed).unwrap(), 0);
        assert_eq!(store.sink().content(&doomed[0]).unwrap(), None);
        assert_eq!(store.reader().status().rows, 40, "nothing is visible before the commit");
        same_answers(&*store.reader(), &all);
        assert_eq!(commit(store), 2);
        let alive = [&all[..5], &all[25..]].concat();
        let reader = store.reader();
        let status = reader.status();
        let count = |side: fn(&Pair) -> bool| alive.iter().filter(|pair| side(pair)).count() as u64;
        assert_eq!((status.rows, status.positions), (20, 40));
        assert_eq!((status.image_rows, status.text_rows), (count(|p| p.image.is_some()), count(|p| p.text.is_some())));
        assert!(reader.find(&doomed).unwrap().iter().all(Option::is_none));
        assert_eq!(keys_of(&*reader), alive.iter().map(|pair| pair.key.clone()).collect::<Vec<_>>());
        same_answers(&*reader, &alive);
        drop(reader);
        // The key is free again.
        store.sink().append(&all[5..7]).unwrap();
        commit(store);
        assert_eq!(store.reader().find(&doomed[..2]).unwrap(), [Some(RowId(40)), Some(RowId(41))]);
        same_answers(&*store.reader(), &[&all[..5], &all[25..], &all[5..7]].concat());
    });
}

#[test]
fn an_upsert_replaces_what_differs_adds_what_is_new_and_leaves_the_rest() {
    on_every_store(|store| {
        let all = pairs(30);
        store.sink().append(&all[..20]).unwrap();
        commit(store);
        let batch = [all[2].clone(), changed(&all[3], &all[9]), changed(&all[15], &all[0]), all[25].clone()];
        let done = store.sink().upsert(&batch).unwrap();
        assert_eq!(done, Upserted { added: 1, replaced: 2, unchanged: 1 });
        assert_eq!(store.sink().content(&all[3].key).unwrap(), Some(batch[1].content));
        assert_eq!(store.reader().find(&[all[3].key.clone()]).unwrap(), [Some(RowId(3))], "before the commit");
        commit(store);
        let reader = store.reader();
        assert_eq!((reader.status().rows, reader.status().positions), (21, 23));
        let rows = reader.find(&[all[3].key.clone(), all[15].key.clone(), all[2].key.clone()]).unwrap();
        assert_eq!(rows, [Some(RowId(20)), Some(RowId(21)), Some(RowId(2))]);
        let record = reader.get(&[RowId(20)], Parts::default()).unwrap().remove(0).unwrap();
        assert_eq!((record.content, record.caption), (batch[1].content, batch[1].caption.clone()));
        assert_eq!(reader.get(&[RowId(3)], Parts::default()).unwrap(), [None]);
        let kept = (0..20).filter(|n| ![3, 15].contains(n)).map(|n| all[n].clone());
        same_answers(&*reader, &kept.chain(batch[1..].iter().cloned()).collect::<Vec<_>>());
    });
}

#[test]
fn a_pair_may_be_replaced_and_deleted_many_times_within_one_commit() {
    on_every_store(|store| {
        let all = pairs(12);
        let one = |n: u8| Pair { content: ContentHash([n; 32]), caption: Some(format!("version {n}")), ..all[4].clone() };
        store.sink().append(&all).unwrap();
        for n in 100..107 {
            let done = store.sink().upsert(&[one(n)]).unwrap();
            assert_eq!(done, Upserted { replaced: 1, ..Upserted::default() });
        }
        assert_eq!(store.sink().delete(&[all[4].key.clone()]).unwrap(), 1);
        assert_eq!(store.sink().upsert(&[one(107)]).unwrap(), Upserted { added: 1, ..Upserted::default() });
        commit(store);
        let reader = store.reader();
        assert_eq!(reader.status().rows, 12);
        let row = reader.find(&[all[4].key.clone()]).unwrap()[0].unwrap();
        let record = reader.get(&[row], Parts::default()).unwrap().remove(0).unwrap();
        assert_eq!(record.caption.as_deref(), Some("version 107"));
        drop(reader);
        store.sink().upsert(&[one(108)]).unwrap();
        commit(store);
        assert_eq!(store.reader().status().rows, 12);
        let row = store.reader().find(&[all[4].key.clone()]).unwrap()[0].unwrap();
        let record = store.reader().get(&[row], Parts::default()).unwrap().remove(0).unwrap();
        assert_eq!(record.caption.as_deref(), Some("version 108"));
    });
}

#[test]
fn a_refused_upsert_leaves_the_store_as_it_was() {
    on_every_store(|store| {
        let all = pairs(8);
        store.sink().append(&all[..4]).unwrap();
        commit(store);
        let twice = [changed(&all[0], &all[5]), changed(&all[0], &all[6])];
        assert!(matches!(store.sink().upsert(&twice), Err(StoreError::Duplicate { .. })));
        let bad = Pair { image: None, text: None, ..all[5].clone() };
        assert!(matches!(store.sink().upsert(&[changed(&all[0], &all[5]), bad]), Err(StoreError::NoVector { .. })));
        assert_eq!(commit(store), 1);
        assert_eq!(store.sink().content(&all[0].key).unwrap(), Some(all[0].content));
    });
}

#[test]
fn sources_are_deleted_by_name_and_by_prefix_committed_or_not() {
    on_every_store(|store| {
        let from = |source: &str, pair: &Pair| {
            let mut pair = pair.clone();
            pair.source.file = source.into();
            pair
        };
        let all = pairs(24);
        let sourced: Vec<Pair> =
            all.iter().enumerate().map(|(n, pair)| from(["a/1", "a/2", "b/1", "b/1"][n % 4], pair)).collect();
        store.sink().append(&sourced[..15]).unwrap();
        commit(store);
        store.sink().append(&sourced[15..]).unwrap();
        let cancelled = Cancel::default();
        cancelled.cancel();
        let refused = store.sink().delete_where(&source_prefix("a/"), &cancelled);
        assert!(matches!(refused, Err(StoreError::Cancelled)));
        assert_eq!(store.sink().delete_where(&source("a/"), &Cancel::default()).unwrap(), 0);
        assert_eq!(store.sink().delete_where(&source("a/1"), &Cancel::default()).unwrap(), 6);
        assert_eq!(store.sink().delete_where(&source_prefix("a/"), &Cancel::default()).unwrap(), 6);
        commit(store);
        let left: Vec<Pair> = sourced.iter().filter(|pair| pair.source.file == "b/1").cloned().collect();
        assert_eq!(keys_of(&*store.reader()), left.iter().map(|pair| pair.key.clone()).collect::<Vec<_>>());
        same_answers(&*store.reader(), &left);
        assert_eq!(store.sink().delete_where(&source_prefix(""), &Cancel::default()).unwrap(), 12);
        commit(store);
        let reader = store.reader();
        assert_eq!((reader.status().rows, reader.status().image_rows), (0, 0));
        assert!(ask(&*reader, query(all[0].image.clone().unwrap(), 3, Effort::Normal)).unwrap().hits.is_empty());
    });
}

#[test]
fn a_side_whose_last_row_died_is_said_to_be_missing() {
    on_every_store(|store| {
        let all = pairs(9);
        store.sink().append(&all).unwrap();
        commit(store);
        let with_image: Vec<Key> = all.iter().filter(|p| p.image.is_some()).map(|p| p.key.clone()).collect();
        store.sink().delete(&with_image).unwrap();
        commit(store);
        let asked = ask(&*store.reader(), query(all[0].image.clone().unwrap(), 3, Effort::Normal));
        assert!(matches!(asked, Err(StoreError::NoSide { side: Side::Image })));
    });
}

#[test]
fn a_watermark_is_stored_with_the_rows_and_alone() {
    on_every_store(|store| {
        let all = pairs(4);
        assert_eq!(store.sink().progress(), b"");
        store.sink().append(&all[..2]).unwrap();
        assert_eq!(store.sink().commit_with(b"two", &Cancel::default()).unwrap(), 1);
        assert_eq!(store.sink().progress(), b"two");
        assert_eq!(store.sink().commit_with(b"two", &Cancel::default()).unwrap(), 1);
        assert_eq!(store.sink().commit_with(b"none left", &Cancel::default()).unwrap(), 2);
        assert_eq!(store.sink().commit(&Cancel::default()).unwrap(), 2);
        assert_eq!(store.sink().progress(), b"none left");
    });
}

#[test]
fn a_delete_of_nothing_is_no_commit() {
    on_every_store(|store| {
        store.sink().append(&pairs(3)).unwrap();
        commit(store);
        assert_eq!(store.sink().delete(&[key(99)]).unwrap(), 0);
        assert_eq!(store.sink().delete_where(&source_prefix("z"), &Cancel::default()).unwrap(), 0);
        assert_eq!(commit(store), 1);
    });
}
