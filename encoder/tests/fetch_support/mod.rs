//! Shell scripts that stand in for the programs of a machine.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Makes an executable script. Another process writes it: if this one did, a child that another test starts at that moment
/// would hold the file open for writing, and running the script would fail with "text file busy".
pub(crate) fn script(path: &Path, body: &str) {
    let mut writer = Command::new("/bin/sh")
        .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("/bin/sh runs");
    writer.stdin.take().expect("piped").write_all(format!("#!/bin/sh\n{body}\n").as_bytes()).expect("the script is written");
    assert!(writer.wait().expect("/bin/sh ends").success());
}
