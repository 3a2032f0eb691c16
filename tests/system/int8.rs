//! Promise: `--int8` is checked on the rows at hand before a pool is touched, and such a pool is asked the same way.

use crate::{
    program::{finish, program, run, text},
    tiny_clip::{tiny_clip, write_pairs},
};

#[test]
fn int8_is_checked_on_the_first_rows_and_kept_apart_from_the_model_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (model, pool) = (text(tiny_clip(folder.path())), text(folder.path().join("int8.pool")));
    let (few, enough) = (folder.path().join("few.parquet"), folder.path().join("enough.parquet"));
    write_pairs(&few, 5);
    write_pairs(&enough, 80);
    let fill = |data| run(&["ingest", &text(data), "--pool", &pool, "--model", &model, "--int8"]);
    fill(&few).with(1).says(&["--int8 is refused on these rows", "5 items could be compared"]);
    assert!(!std::path::Path::new(&pool).exists(), "nothing was made");
    fill(&enough).with(0).says(&["int8 against the model itself on 80 pictures", "recall@10"]);
    let ask = ["search", "--pool", &pool, "--model", &model, "--text", "w3 w41"];
    run(&[&ask[..], &["--int8"]].concat()).with(0);
    run(&ask).with(1);

    let tasks = |shards: &[&std::path::Path]| {
        let names: String = shards.iter().map(|shard| format!("{}\n", shard.display())).collect();
        let list = folder.path().join("shards.txt");
        std::fs::write(&list, names).unwrap();
        let mut command = program();
        command.args(["ingest", "--tasks", "-", "--pool", &pool, "--model", &model, "--int8"]);
        finish(command.stdin(std::fs::File::open(&list).unwrap()))
    };
    tasks(&[&few, &enough]).with(1).says(&["--int8 is refused on these rows", "5 items could be compared"]);
    tasks(&[&enough, &few]).with(0).says(&["int8 against the model itself on 80 pictures"]);
}
