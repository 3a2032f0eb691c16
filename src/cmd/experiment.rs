//! `anchorite experiment`: an experiment as a whole, from its data to its page.

use std::path::{Path, PathBuf};

use anchorite::train::runner::Machine;
use anyhow::{Context, Result, bail};
use clap::{ValueEnum, builder::FalseyValueParser};

use crate::{
    exit::Exit,
    experiment::{self, Arm, Setting, Size, Style, packages},
    interrupt,
    open::RuntimeArgs,
    output::line,
    progress::say,
};

/// Experiments that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    /// ARF's claims on drawings of packages, with heads over frozen towers.
    ArfMini,
}

/// Which experiment, and how much of it.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The experiment.
    #[arg(value_enum)]
    which: Which,
    /// The folder with pool.parquet and bench.parquet, as experiment/README.md says how to make them.
    #[arg(long, env = "ANCHORITE_EXPERIMENT_DATA", value_name = "DIR", default_value = "experiment/data")]
    data: PathBuf,
    /// The folder for everything that comes out. What is there already is used.
    #[arg(long, value_name = "DIR", default_value = "experiment/out")]
    out: PathBuf,
    /// The model whose towers are taken. Default: `demo/model` here, or where the program was built.
    #[arg(long, env = "ANCHORITE_MODEL", value_name = "DIR")]
    model: Option<PathBuf>,
    /// Paired seeds.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first of them: another gives seeds that no earlier run has seen.
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u64).range(..1_000_000))]
    first_seed: u64,
    /// Arms, with commas. The base is always measured. Default: all.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "ARM")]
    arms: Vec<Arm>,
    /// The drawings that the finetune sees; other styles are shifts.
    #[arg(long, value_enum, default_value_t)]
    style: Style,
    /// Steps of the base, in place of the experiment's own.
    #[arg(long, value_name = "N")]
    base_steps: Option<u64>,
    /// Steps of each arm, in place of the experiment's own.
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// One learning rate for every arm, in place of those chosen by validation.
    #[arg(long, value_name = "X", value_parser = positive)]
    rate: Option<f64>,
    /// Where the data are not there, build them first: Python, 290 MB of npm and Debian 12 packages with pinned hashes, some six minutes.
    #[arg(long)]
    build_data: bool,
    /// The Python that --build-data makes its environment with.
    #[arg(long, value_name = "FILE", default_value = "python3")]
    python: PathBuf,
    /// A few rows and steps: to see that everything runs, not to see an effect.
    #[arg(long)]
    quick: bool,
    /// Say what would be done, and do nothing.
    #[arg(long, env = "ANCHORITE_DRY_RUN", value_parser = FalseyValueParser::new())]
    dry_run: bool,
    /// Threads that compute. Default: every core.
    #[arg(long, env = "ANCHORITE_THREADS", value_name = "N")]
    threads: Option<usize>,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

pub(crate) fn run(args: &Args) -> Result<Exit> {
    let setting = args.setting()?;
    let absent = packages::missing(&setting.data);
    match absent {
        Some(_) if args.build_data && args.dry_run => line("the data are not there and would be built"),
        Some(_) if args.build_data && args.runtime.offline => bail!("--build-data fetches packages, and --offline forbids it"),
        Some(_) if args.build_data => packages::build(&setting.data, &args.python)?,
        Some(file) => bail!(
            "no {file} in {}; --build-data makes it (experiment/README.md says of what), or name its folder with --data",
            setting.data.display()
        ),
        None => {}
    }
    if args.dry_run {
        let Which::ArfMini = args.which;
        describe(&setting);
        return Ok(Exit::Done);
    }
    let cancel = interrupt::on_signal()?;
    let machine = Machine { runtime: args.runtime.load()?, provider: args.runtime.provider };
    match experiment::run(&setting, machine, &cancel) {
        Ok(Some(page)) => {
            say(&format!("the report: {}", page.display()));
            Ok(Exit::Done)
        }
        Ok(None) => Ok(Exit::Interrupted),
        Err(_) if cancel.is_cancelled() => Ok(Exit::Interrupted),
        Err(error) => Err(error),
    }
}

impl Args {
    fn setting(&self) -> Result<Setting> {
        let mut arms = if self.arms.is_empty() { Arm::FINETUNED.to_vec() } else { self.arms.clone() };
        // What forgetting is counted from and seen on.
        arms.extend([Arm::ZeroShot, Arm::Flyp]);
        arms.sort();
        arms.dedup();
        let size = if self.quick { Size::QUICK } else { Size::FULL };
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        Ok(Setting {
            data: self.data.clone(),
            out: self.out.clone(),
            model: find_model(self.model.as_deref())?,
            seeds: self.seeds,
            first_seed: self.first_seed,
            arms,
            style: self.style,
            size: Size {
                base_steps: self.base_steps.unwrap_or(size.base_steps),
                steps: self.steps.unwrap_or(size.steps),
                ..size
            },
            threads: self.threads.unwrap_or_else(cores),
            rate: self.rate,
        })
    }
}

fn positive(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0).ok_or_else(|| "give a number above 0".to_owned())
}

fn find_model(named: Option<&Path>) -> Result<PathBuf> {
    let places = match named {
        Some(dir) => vec![dir.to_owned()],
        None => vec![PathBuf::from("demo/model"), Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/model")],
    };
    let found = places.iter().find(|dir| dir.join("config.json").is_file()).cloned();
    found.with_context(|| format!("no model in {places:?}; name its folder with --model"))
}

fn describe(setting: &Setting) {
    line(&format!("data {}, towers of {}", setting.data.display(), setting.model.display()));
    let arms: Vec<String> = setting.arms.iter().map(ToString::to_string).collect();
    line(&format!("{} seeds from {} of {}", setting.seeds, setting.first_seed, arms.join(", ")));
    let size = &setting.size;
    line(&format!("base: {} steps of {}; each arm: {} steps of {}", size.base_steps, size.base_batch, size.steps, size.batch));
    line(&format!("dry run: nothing was done; results would be in {}", setting.out.display()));
}
