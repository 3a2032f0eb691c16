//! Progress on standard error: a bar on a terminal, a plain line now and then elsewhere.

use std::{
    io::{IsTerminal, Write},
    sync::Mutex,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a plain line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows one long task.
#[derive(Debug)]
pub(crate) struct Shown {
    name: &'static str,
    bar: Option<ProgressBar>,
    last_line: Mutex<Option<Instant>>,
}

impl Shown {
    /// Starts showing the task `name`; nothing is printed before the first [`Shown::at`].
    pub(crate) fn new(name: &'static str) -> Self {
        Self::with(name, "{prefix:>12} [{bar:32}] {pos}/{len} {msg} {eta}")
    }

    /// The same of a task whose remarks say how long the rest will take.
    pub(crate) fn saying_what_is_left(name: &'static str) -> Self {
        Self::with(name, "{prefix:>12} [{bar:32}] {pos}/{len} {msg}")
    }

    fn with(name: &'static str, template: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(template);
            ProgressBar::new(0).with_style(style.expect("the template is a constant")).with_prefix(name)
        });
        Self { name, bar, last_line: Mutex::new(None) }
    }

    /// `done` of `total` (0 when unknown), with a short remark.
    pub(crate) fn at(&self, done: u64, total: u64, remark: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_length(total);
                bar.set_position(done);
                bar.set_message(remark.to_owned());
            }
            None => self.line(done, total, remark),
        }
    }

    /// The task is about something else from now on: its next line is not held back.
    pub(crate) fn another_stage(&self) {
        *self.last_line.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
    }

    /// A line of its own, above the bar.
    pub(crate) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn line(&self, done: u64, total: u64, remark: &str) {
        let mut last = self.last_line.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if last.is_some_and(|at| at.elapsed() < LINE_EVERY) {
            return;
        }
        *last = Some(Instant::now());
        let total = if total == 0 { String::new() } else { format!("/{total}") };
        say(&format!("{}: {done}{total} {remark}", self.name));
    }
}

/// One line for people on standard error. Nobody can be told when that fails.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
