//! Promise: event files are those that TensorBoard reads. `fixtures/make_events.py` wrote the golden file without our code, and TensorBoard's own
//! reader found in it what `events.json` says.

use std::{fs, path::Path};

use anchorite_train::runner::EventWriter;
use serde_json::Value;

#[test]
fn the_writer_gives_the_bytes_that_tensorboard_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = EventWriter::create(folder.path(), 1_700_000_000.5, 7).unwrap();
    let scalars = |loss: f64| vec![("train/loss".to_owned(), loss), ("train/logit_scale".to_owned(), 100.0)];
    writer.scalars(1_700_000_001.25, 8, &scalars(2.5)).unwrap();
    writer.scalars(1_700_000_002.0, 300, &scalars(0.125)).unwrap();
    let entry = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap();
    assert_eq!(entry.file_name(), "events.out.tfevents.1700000000.anchorite");
    let written = fs::read(entry.path()).unwrap();

    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    assert_eq!(written, fs::read(fixtures.join("events.golden")).unwrap());
    let found: Value = serde_json::from_slice(&fs::read(fixtures.join("events.json")).unwrap()).unwrap();
    assert_eq!(found[0]["file_version"], "brain.Event:2");
    assert_eq!((&found[1]["session_log"], &found[1]["step"]), (&1.into(), &7.into()));
    assert_eq!((&found[2]["step"], &found[2]["scalars"]["train/loss"]), (&8.into(), &2.5.into()));
    assert_eq!((&found[3]["step"], &found[3]["scalars"]["train/loss"]), (&300.into(), &0.125.into()));
    assert_eq!(found[2]["wall_time"], 1_700_000_001.25);
}
