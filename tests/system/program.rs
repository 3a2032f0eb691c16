//! Runs the program: to its end, or in the background with its output read line by line.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{OnceLock, mpsc},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;

/// How long anything may take. Far above what it does take: it only turns a hang into a failure.
const PATIENCE: Duration = Duration::from_secs(300);

/// The bundled data.
pub(crate) fn data() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/demo"))
}

/// The bundled model, as an argument.
pub(crate) fn model() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/demo/model")
}

pub(crate) fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_str().unwrap().to_owned()
}

/// The program with none of the caller's settings, besides those that find ONNX Runtime.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anchorite"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ANCHORITE_") && name != "ANCHORITE_CACHE" {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Asserts the exit code, and that nothing panicked.
    #[track_caller]
    pub(crate) fn with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "\nstdout: {}\nstderr: {}", self.stdout, self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }

    /// Asserts that standard error says each of `parts`.
    #[track_caller]
    pub(crate) fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.stderr.contains(part), "no {part:?} in: {}", self.stderr);
        }
        self
    }

    /// Standard output as one JSON document.
    #[track_caller]
    pub(crate) fn json(&self) -> Json {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}\n{}", self.stdout, self.stderr))
    }
}

/// Runs a command to its end.
#[track_caller]
pub(crate) fn finish(command: &mut Command) -> Ended {
    Running::start(command).ended()
}

/// Runs the program with `args` to its end.
#[track_caller]
pub(crate) fn run(args: &[&str]) -> Ended {
    finish(program().args(args))
}

/// A program in the background. Ended when dropped.
pub(crate) struct Running {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

impl Running {
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let stdout = Lines::of(child.stdout.take().expect("piped"));
        let stderr = Lines::of(child.stderr.take().expect("piped"));
        Self { child, stdout, stderr }
    }

    /// Writes a line to its standard input, which must be a pipe.
    #[track_caller]
    pub(crate) fn tell(&mut self, line: &str) {
        let pipe = self.child.stdin.as_mut().expect("standard input is a pipe");
        writeln!(pipe, "{line}").expect("it reads its standard input");
    }

    /// The first line of standard output that holds `part`.
    #[track_caller]
    pub(crate) fn stdout_line(&mut self, part: &str) -> String {
        self.stdout
            .until(part)
            .unwrap_or_else(|| panic!("no {part:?} on stdout: {:?}, stderr: {}", self.stdout.seen, self.stderr.rest()))
    }

    /// The first line of standard error that holds `part`.
    #[track_caller]
    pub(crate) fn stderr_line(&mut self, part: &str) -> String {
        self.stderr.until(part).unwrap_or_else(|| panic!("no {part:?} on stderr: {:?}", self.stderr.seen))
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Waits for the end.
    #[track_caller]
    pub(crate) fn ended(mut self) -> Ended {
        // Both pipes close when the program ends, so that waiting for it after them takes no time.
        let (stdout, stderr) = (self.stdout.rest(), self.stderr.rest());
        let code = self.child.wait().ok().as_ref().and_then(ExitStatus::code);
        Ended { code, stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails when it has ended already, which is the usual case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lines of a pipe, read by a thread so that waiting for one can end at a deadline.
struct Lines {
    coming: mpsc::Receiver<String>,
    seen: String,
}

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let (send, coming) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                if send.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
            }
        });
        Self { coming, seen: String::new() }
    }

    fn until(&mut self, part: &str) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.coming.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()?;
            self.seen = format!("{}{line}\n", self.seen);
            if line.contains(part) {
                return Some(line);
            }
        }
    }

    /// Everything there is, from the start.
    #[track_caller]
    fn rest(&mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.coming.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.seen = format!("{}{line}\n", self.seen),
                Err(mpsc::RecvTimeoutError::Disconnected) => return self.seen.clone(),
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("no end after {PATIENCE:?}: {}", self.seen),
            }
        }
    }
}

/// A served pool.
pub(crate) struct Server {
    running: Running,
    pub(crate) url: String,
}

impl Server {
    /// `anchorite serve` on a free port.
    #[track_caller]
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::of(Running::start(program().args(["serve", "--listen", "127.0.0.1:0"]).args(args)))
    }

    /// A server that was started, once it listens.
    #[track_caller]
    pub(crate) fn of(mut running: Running) -> Self {
        let line = running.stdout_line("listening on ");
        let url = line.trim_start_matches("listening on ").trim_end_matches('/').to_owned();
        Self { running, url }
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        Reply::of(agent().get(format!("{}{path}", self.url)).call())
    }

    pub(crate) fn post(&self, path: &str, body: &Json) -> Reply {
        Reply::of(agent().post(format!("{}{path}", self.url)).send_json(body))
    }

    /// With a key.
    pub(crate) fn post_as(&self, key: &str, path: &str, body: &Json) -> Reply {
        let request = agent().post(format!("{}{path}", self.url)).header("authorization", format!("Bearer {key}"));
        Reply::of(request.send_json(body))
    }

    /// The hits of a search that must succeed.
    #[track_caller]
    pub(crate) fn hits(&self, body: &Json) -> Vec<Json> {
        let reply = self.post("/v1/search", body);
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["results"][0]["hits"].as_array().unwrap().clone()
    }

    /// Ends it where it is.
    pub(crate) fn kill(self) {
        self.running.signal(Signal::KILL);
        let mut running = self.running;
        // Its pipes close when it is gone.
        running.stdout.rest();
        running.stderr.rest();
    }

    /// Asks it to stop and waits for the end.
    #[track_caller]
    pub(crate) fn stop(self) -> Ended {
        self.running.signal(Signal::TERM);
        self.running.ended()
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().new_agent()
}

/// An answer over HTTP.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    fn of(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Self {
        let mut response = result.unwrap();
        let content_type = response.headers().get("content-type").map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
        Self { status: response.status().as_u16(), content_type, body: response.body_mut().read_to_vec().unwrap() }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Json {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

/// The demo pool, and what `anchorite demo --check --json` printed while it made it.
pub(crate) struct Demo {
    pub(crate) pool: String,
    pub(crate) checked: Json,
}

impl Demo {
    /// The pool, served with its model.
    #[track_caller]
    pub(crate) fn serve(&self) -> Server {
        Server::start(&["--pool", &format!("demo={}", self.pool), "--model", model()])
    }
}

/// The demo pool, made by the first test that asks for it. Tests only read it.
pub(crate) fn demo() -> &'static Demo {
    static DEMO: OnceLock<Demo> = OnceLock::new();
    DEMO.get_or_init(|| {
        let folder = fresh_folder();
        let pool = text(folder.join("demo.pool"));
        let checked = run(&["demo", "--check", "--json", "--pool", &pool]).with(0).json();
        Demo { pool, checked }
    })
}

/// A folder for this process under Cargo's own; a static is never dropped, so those of earlier processes are removed here.
fn fresh_folder() -> PathBuf {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR")).join("system");
    std::fs::create_dir_all(&parent).unwrap();
    for entry in std::fs::read_dir(&parent).unwrap().flatten() {
        let alive = Path::new("/proc").join(entry.file_name()).exists();
        if !alive {
            // Another run may be removing it as well.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    let own = parent.join(std::process::id().to_string());
    let _ = std::fs::remove_dir_all(&own);
    std::fs::create_dir_all(&own).unwrap();
    own
}
