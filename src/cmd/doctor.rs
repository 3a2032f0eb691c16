//! `anchorite doctor`: what was found on this machine, and what to do about what was not. Fetches nothing.

use std::path::PathBuf;

use anchorite::{
    encoder::{Description, runtime::doctor},
    index::pool::inspect,
};
use anyhow::{Result, bail};
use clap::builder::FalseyValueParser;
use serde_json::{Value, json};

use crate::{
    exit::Exit,
    open::{ModelArgs, Use},
    output::{self, count, line},
};

/// What to look at besides the machine.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// A pool to look at.
    #[arg(long, value_name = "DIR", env = "ANCHORITE_POOL")]
    pool: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, env = "ANCHORITE_JSON", value_parser = FalseyValueParser::new())]
    json: bool,
    #[command(flatten)]
    model: ModelArgs,
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let machine = doctor::report(&args.model.runtime.options(), &args.model.runtime.hub_options());
    let model = args.model.model.is_some().then(|| describe_model(args));
    let pool = args.pool.as_ref().map(|dir| inspect(dir).map_err(|e| e.to_string()));
    let problems = [
        machine.onnx_runtime.problem.clone(),
        model.as_ref().and_then(|m| m.as_ref().err().cloned()),
        pool.as_ref().and_then(|p| p.as_ref().err().cloned()),
    ];
    if args.json {
        output::json(&json!({ "machine": machine, "model": result(model.as_ref()), "pool": result(pool.as_ref()) }))?;
    } else {
        print(&json!({ "machine": machine, "model": result(model.as_ref()), "pool": result(pool.as_ref()) }), 0);
    }
    match problems.into_iter().flatten().count() {
        0 => Ok(Exit::Done),
        n => bail!("{} found, see above", count(n, "problem")),
    }
}

fn describe_model(args: &Args) -> Result<Description, String> {
    // Nothing is fetched: a report must not change what it reports on.
    let mut model = args.model.clone();
    model.runtime.offline = true;
    model.open(Use::Ingest).map(|encoder| encoder.describe()).map_err(|e| format!("{e:#}"))
}

fn result<T: serde::Serialize>(found: Option<&Result<T, String>>) -> Value {
    match found {
        None => Value::Null,
        Some(Ok(value)) => json!(value),
        Some(Err(problem)) => json!({ "problem": problem }),
    }
}

/// Nested JSON as indented lines.
fn print(value: &Value, depth: usize) {
    let Value::Object(fields) = value else { return };
    for (name, value) in fields {
        let label = format!("{:indent$}{name}", "", indent = depth * 2);
        match value {
            Value::Null => {}
            Value::Object(_) => {
                line(&label);
                print(value, depth + 1);
            }
            Value::Array(items) if items.iter().all(|i| !i.is_object()) => {
                let items: Vec<String> = items.iter().map(plain).collect();
                line(&format!("{label:<28} {}", if items.is_empty() { "none".to_owned() } else { items.join(", ") }));
            }
            Value::Array(items) => {
                line(&label);
                items.iter().for_each(|item| print(item, depth + 1));
            }
            other => line(&format!("{label:<28} {}", plain(other))),
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
