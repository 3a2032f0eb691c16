//! Promise: a disk that fills up during a commit, a compaction or a snapshot is a named error; the pool opens to its last commit, and works
//! again when there is room.
//!
//! A small tmpfs in a mount namespace of its own is the disk. Where a user may not mount one, the test says so and ends; the same is then
//! left to `index/tests/pool/` (`commit`, `power`, `stream`), which fail each call with "no space" through a medium of their own.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    pools::{ingest_args, write_rows},
    program::{Ended, finish, program, text},
};

/// Bytes of the disk. 2 MiB: some thousand rows of 16 values.
const DISK: &str = "2m";

/// A shell that runs in a namespace where `disk` is a tmpfs.
fn on_small_disk(disk: &Path, script: &str) -> Ended {
    let mut command = Command::new("unshare");
    // As root of the machine or, where that is allowed, of a namespace of users.
    command.args(["--mount", "--map-root-user", "sh", "-euc"]);
    command.arg(format!("mount -t tmpfs -o size={DISK} none {}; {script}", text(disk)));
    let settings = program();
    settings.get_envs().for_each(|(name, value)| match value {
        Some(value) => drop(command.env(name, value)),
        None => drop(command.env_remove(name)),
    });
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(&mut command)
}

fn may_mount(disk: &Path) -> bool {
    let there = Command::new("unshare").arg("--version").output().is_ok_and(|out| out.status.success());
    there && on_small_disk(disk, "true").code == Some(0)
}

/// A command of the program as the shell takes it; our paths have no quotes in them.
fn shell(args: &[&str]) -> String {
    let program = env!("CARGO_BIN_EXE_anchorite");
    let quoted: Vec<String> = std::iter::once(program).chain(args.iter().copied()).map(|word| format!("'{word}'")).collect();
    quoted.join(" ")
}

#[test]
fn a_full_disk_is_named_and_costs_nothing_that_was_committed() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    if !may_mount(&disk) {
        eprintln!(
            "skipped: no tmpfs can be mounted here (unshare --mount --map-root-user is refused); see index/tests/pool/commit.rs"
        );
        return;
    }
    let path = |name: &str| text(folder.path().join(name));
    let on_disk = |name: &str| text(disk.join(name));
    for (name, rows) in [("a", 0..600), ("b", 600..1_200), ("c", 1_200..2_400)] {
        write_rows(&folder.path().join(format!("{name}.parquet")), rows, "row");
    }
    let (pool, rejects) = (on_disk("pool"), path("rejects.parquet"));
    let ingest = |name: &str| {
        let file = path(&format!("{name}.parquet"));
        shell(&[ingest_args(&file, &pool).as_slice(), &["--rejects", &rejects]].concat())
    };
    // Says what was tried, then fails with 1 and a word of space; the pool is then what it was.
    let full = |story: &str, command: &str| {
        format!(
            "echo '== {story}' >&2; set +e; {command} >/dev/null 2>{log}; code=$?; set -e; cat {log} >&2; \
             test $code = 1 || {{ echo \"{story}: exit code $code\" >&2; df {disk} >&2; exit 9; }}; \
             grep -q 'No space left on device' {log} || {{ echo '{story}: space is not named' >&2; exit 9; }}; \
             {info} | grep -q '\"rows\":1190,' || {{ echo '{story}: rows were lost' >&2; {info} >&2; exit 9; }}; {verify}; ",
            log = path("log"),
            disk = text(&disk),
            info = shell(&["pool", "info", &pool, "--json"]),
            verify = shell(&["pool", "verify", &pool]),
        )
    };
    let delete = shell(&[
        "pool", "delete", &pool, "--key", "k-1", "--key", "k-2", "--key", "k-3", "--key", "k-4", "--key", "k-5", "--key",
        "k-601", "--key", "k-602", "--key", "k-603", "--key", "k-604", "--key", "k-605",
    ]);
    let (compact, snapshot) = (shell(&["pool", "compact", &pool]), shell(&["pool", "snapshot", &pool, &on_disk("copy")]));
    let tar = shell(&["pool", "snapshot", &pool, &on_disk("copy.tar")]);
    let whole = shell(&["pool", "snapshot", &pool, &path("whole.tar")]);
    let restore = shell(&["pool", "restore", &path("whole.tar"), &on_disk("again")]);
    // Leaves 64 KiB: every command can begin, none can end.
    let fill = format!(
        "left=$(df --output=avail -k {0} | tail -1); head -c $(((left - 64) * 1024)) /dev/zero > {0}/ballast; ",
        text(&disk)
    );
    let nothing_left = format!(
        "test ! -e {0}/copy.tar; test ! -e {0}/copy.tar.part; test -z \"$(find {0}/copy {0}/again -type f ! -name LOCK)\"; ",
        text(&disk)
    );
    let script = [
        format!("{}; {}; {delete}; {whole}; ", ingest("a"), ingest("b")),
        fill,
        full("commit", &ingest("c")),
        full("compaction", &compact),
        full("snapshot", &snapshot),
        full("snapshot as a tar", &tar),
        full("restore", &restore),
        nothing_left,
        format!("rm {}/ballast; ", text(&disk)),
        format!("{compact}; {}; {snapshot}; ", shell(&["pool", "verify", &pool])),
        // The same ingest does the rest.
        format!("rm -r {}; {}; {}; ", on_disk("copy"), ingest("c"), shell(&["pool", "verify", &pool])),
        format!("{} >&2; echo done", shell(&["pool", "info", &pool])),
    ]
    .concat();
    let ended = on_small_disk(&disk, &script).with(0);
    assert!(ended.stdout.trim_end().ends_with("done"), "{}", ended.stdout);
    assert!(ended.stderr.contains("rows        2390"), "{}", ended.stderr);
}
