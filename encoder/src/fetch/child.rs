//! A child process with a deadline: started in its own process group, its output bounded, ended with its whole group when
//! time is up. Used for package clients and for asking Python where it keeps a package.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The longest time between two looks at a running child, and so the longest delay after its end.
const TICK: Duration = Duration::from_millis(50);
/// How long its output is waited for after it has ended; a grandchild may hold the pipe open for ever.
const DRAIN: Duration = Duration::from_secs(2);

/// How a child ended, and the last bytes of both its outputs.
#[derive(Debug)]
pub(crate) struct Finished {
    /// `None`: ended at the deadline.
    pub(crate) status: Option<ExitStatus>,
    /// The first bytes of standard output.
    pub(crate) stdout: Vec<u8>,
    /// The last bytes of standard error, lossily decoded, one line.
    pub(crate) stderr: String,
}

/// Runs `command` to its end or to `deadline`; `tick` is called between looks with the time passed.
pub(crate) fn run(
    command: &mut Command,
    deadline: Instant,
    keep_bytes: usize,
    tick: &mut dyn FnMut(Duration),
) -> io::Result<Finished> {
    own_group(command);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let started = Instant::now();
    let stdout = child.stdout.take().map(|pipe| keep(pipe, keep_bytes, Keep::First));
    let stderr = child.stderr.take().map(|pipe| keep(pipe, keep_bytes, Keep::Last));
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() >= deadline {
            end_group(&mut child);
            break None;
        }
        // Short looks at first: most failures, and Python's answer, take milliseconds.
        let pause = TICK.min(started.elapsed() / 4 + Duration::from_millis(1));
        thread::park_timeout(pause.min(deadline.saturating_duration_since(Instant::now())));
        tick(started.elapsed());
    };
    let stdout = collect(stdout.as_ref());
    let stderr = one_line(&collect(stderr.as_ref()));
    Ok(Finished { status, stdout, stderr })
}

/// The executable file `name` in the folders of `search_path`; a relative folder in it is skipped.
pub(crate) fn find_program(name: &str, search_path: &OsStr) -> Option<PathBuf> {
    let names = program_names(name);
    std::env::split_paths(search_path)
        .filter(|folder| folder.is_absolute())
        .flat_map(|folder| names.iter().map(move |name| folder.join(name)).collect::<Vec<_>>())
        .find(|path| is_executable(path))
}

#[cfg(windows)]
fn program_names(name: &str) -> Vec<String> {
    vec![format!("{name}.exe"), format!("{name}.cmd")]
}

#[cfg(not(windows))]
fn program_names(name: &str) -> Vec<String> {
    vec![name.to_owned()]
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(path: &Path) -> bool {
    path.is_file()
}

#[cfg(unix)]
fn own_group(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    command.process_group(0);
}

#[cfg(not(unix))]
fn own_group(_: &mut Command) {}

/// The child is not reaped yet, so its id, which is also its group's, cannot have been given to another process.
#[cfg(unix)]
fn end_group(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        // Failure means that it has just ended by itself.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.wait();
}

#[cfg(not(unix))]
fn end_group(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

#[derive(Clone, Copy)]
enum Keep {
    First,
    Last,
}

/// What a pipe has given so far, and a channel that closes at its end.
struct Kept {
    bytes: Arc<Mutex<Vec<u8>>>,
    end: Receiver<()>,
}

fn keep(mut pipe: impl Read + Send + 'static, max: usize, which: Keep) -> Kept {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let (at_end, end) = mpsc::channel::<()>();
    let shared = Arc::clone(&bytes);
    // Reads to the end whatever is kept, so that a talkative child never blocks on a full pipe.
    thread::spawn(move || {
        let mut chunk = [0_u8; 4096];
        while let Ok(read @ 1..) = pipe.read(&mut chunk) {
            let mut kept = shared.lock().unwrap_or_else(PoisonError::into_inner);
            add(&mut kept, chunk.get(..read).unwrap_or_default(), max, which);
        }
        drop(at_end);
    });
    Kept { bytes, end }
}

fn add(kept: &mut Vec<u8>, chunk: &[u8], max: usize, which: Keep) {
    kept.extend_from_slice(chunk);
    match which {
        Keep::First => kept.truncate(max),
        Keep::Last => {
            let surplus = kept.len().saturating_sub(max);
            kept.drain(..surplus);
        }
    }
}

fn collect(output: Option<&Kept>) -> Vec<u8> {
    let Some(kept) = output else { return Vec::new() };
    // Closed or timed out: either way what has come so far is what there is.
    let _ = kept.end.recv_timeout(DRAIN);
    std::mem::take(&mut kept.bytes.lock().unwrap_or_else(PoisonError::into_inner))
}

fn one_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" | ")
}
