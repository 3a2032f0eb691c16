//! Goal: memory and cost per row of the pipeline do not depend on the number of rows. Each size is a process of its own, this program started again.
//!
//! By default sizes that a test run can bear; `ANCHORITE_SCALE_ROWS=1000,10000,100000` measures those and prints a table. The sink keeps keys and nothing
//! else, so that what is measured is reading, deciding and handing on; graphs are built by the index and measured there.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{collections::HashSet, env, fs, path::Path, process::Command, time::Instant};

use anchorite_index::{Cancel, ContentHash, Filter, Key, Pair, PairSink, StoreError, Upserted};
use anchorite_ingest::{IngestJob, IngestOptions, NoProgress, Vectors, ingest};
use support::{binary, encoder, text, write_groups};

const FILE: &str = "ANCHORITE_TEST_SCALE_FILE";
/// Bytes of a picture. A tenth of a dataset's, so that 100,000 of them fit where tests run.
const PICTURE: usize = 2_000;

/// Counts pairs and forgets them.
#[derive(Default)]
struct Counting {
    pairs: u64,
    progress: Vec<u8>,
}

impl PairSink for Counting {
    fn content(&self, _: &Key) -> Result<Option<ContentHash>, StoreError> {
        Ok(None)
    }

    fn append(&mut self, batch: &[Pair]) -> Result<(), StoreError> {
        let keys: HashSet<&str> = batch.iter().map(|pair| pair.key.as_str()).collect();
        self.pairs += keys.len() as u64;
        Ok(())
    }

    fn upsert(&mut self, _: &[Pair]) -> Result<Upserted, StoreError> {
        unreachable!("no key is known")
    }

    fn delete(&mut self, _: &[Key]) -> Result<u64, StoreError> {
        unreachable!("nothing is deleted")
    }

    fn delete_where(&mut self, _: &Filter, _: &Cancel) -> Result<u64, StoreError> {
        unreachable!("nothing is deleted")
    }

    fn progress(&self) -> &[u8] {
        &self.progress
    }

    fn commit_with(&mut self, progress: &[u8], _: &Cancel) -> Result<u64, StoreError> {
        self.progress = progress.to_vec();
        Ok(1)
    }

    fn commit(&mut self, _: &Cancel) -> Result<u64, StoreError> {
        Ok(1)
    }
}

/// What the other test starts.
#[test]
fn child() {
    let Some(folder) = env::var_os(FILE) else { return };
    let (encoder, options) = (encoder(), IngestOptions { workers: std::num::NonZero::new(2), ..Default::default() });
    let sources = [folder.into()];
    let mut sink = Counting::default();
    let start = Instant::now();
    let job = IngestJob { sources: &sources, vectors: Vectors::Encode(&encoder), options: &options };
    let report = ingest(job, &mut sink, &mut NoProgress, &Cancel::default()).unwrap();
    let took = start.elapsed().as_nanos() as f64 / report.accepted as f64;
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().split_whitespace().next().unwrap();
    println!("\nscale: {} {peak} {took}", sink.pairs);
}

/// Shards of 1,000 rows each, all of one kind: no two pictures are equal.
fn dataset(folder: &Path, rows: usize) {
    for shard in 0..rows.div_ceil(1_000) {
        let numbers = shard * 1_000..rows.min((shard + 1) * 1_000);
        let picture = |i: usize| {
            let mut bytes = b"\xff\xd8\xff".to_vec();
            bytes.extend((0..PICTURE).map(|at| (i.wrapping_mul(2_654_435_761) >> (at % 24)) as u8 ^ at as u8));
            bytes.extend((i as u64).to_le_bytes());
            Some(bytes)
        };
        let captions = numbers.clone().map(|i| Some(format!("the words of row {i}")));
        let columns = vec![("image", binary(numbers.clone().map(picture))), ("caption", text(captions))];
        write_groups(&folder.join(format!("{shard:05}.parquet")), columns, 500);
    }
}

/// Rows, peak KiB, nanoseconds a row.
fn measured(rows: usize) -> (u64, u64, f64) {
    let folder = tempfile::tempdir().unwrap();
    dataset(folder.path(), rows);
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(FILE, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said.lines().find_map(|line| line.strip_prefix("scale: ")).unwrap_or_else(|| panic!("{said}"));
    let parts: Vec<f64> = line.split(' ').map(|part| part.parse().unwrap()).collect();
    (parts[0] as u64, parts[1] as u64, parts[2])
}

#[test]
fn memory_is_the_same_for_ten_times_the_rows() {
    let sizes = env::var("ANCHORITE_SCALE_ROWS").unwrap_or_else(|_| "2000,20000".to_owned());
    let sizes: Vec<usize> = sizes.split(',').map(|size| size.parse().unwrap()).collect();
    let all: Vec<(u64, u64, f64)> = sizes.iter().map(|rows| measured(*rows)).collect();
    for (rows, peak, each) in &all {
        println!("{rows} rows: {:.1} MiB at most, {:.1} us a row", *peak as f64 / 1_024.0, each / 1_000.0);
    }
    assert_eq!(all.iter().map(|(rows, ..)| *rows as usize).collect::<Vec<_>>(), sizes);
    // The last two sizes: small ones do not fill the queues.
    let [.., (_, before, _), (_, after, _)] = &all[..] else { panic!("two sizes are compared") };
    assert!(*after as f64 <= 1.10 * *before as f64, "{before} KiB, then {after} KiB");
}
