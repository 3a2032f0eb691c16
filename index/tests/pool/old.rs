//! Pools of earlier versions are read as they are: rows in the order of arrival, no sketches, no table of efforts.

use std::path::Path;

use anchorite_index::{
    Cancel, Effort, PairStore, Parts, Query, RowId, Side,
    pool::{OpenOptions, Pool, Verify, inspect, verify},
};

#[test]
fn a_pool_without_near_order_sketches_and_efforts_is_searched_by_its_graph() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pool-v1");
    assert!(verify(&dir).unwrap().is_sound());
    let efforts = inspect(&dir).unwrap().graphs[0].efforts;
    assert!(efforts.image.is_none() && efforts.text.is_none());

    let pool = Pool::open(&dir, &OpenOptions { verify: Verify::Full, ..OpenOptions::default() }).unwrap();
    let mut shared = 0;
    for row in 0..80 {
        let parts = Parts { vectors: true, ..Parts::default() };
        let record = pool.get(&[RowId(row)], parts).unwrap().remove(0).unwrap();
        assert_eq!(record.key.as_str(), format!("row-{row}"));
        let query = |effort| Query::new(Side::Image, record.image.clone().unwrap(), 5, effort);
        // 80 nodes are more than four times this beam, so the graph answers.
        let found = pool.search_ef(&query(Effort::Normal), 16, &Cancel::default()).unwrap();
        let truth = pool.search(&[query(Effort::Exact)], &Cancel::default()).unwrap().remove(0);
        assert_eq!((found.hits[0].row, truth.hits[0].row), (RowId(row), RowId(row)));
        assert!(pool.search(&[query(Effort::Normal)], &Cancel::default()).unwrap()[0].hits[0].row == RowId(row));
        shared += found.hits.iter().filter(|hit| truth.hits.contains(hit)).count();
    }
    assert!(shared >= 80 * 5 * 9 / 10, "{shared} of 400");
}
