//! One figure, printed as one JSON line the moment it is known.

use serde::Serialize;

/// A measured value, beside its peer and its goal.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Figure {
    /// What was measured.
    pub(crate) figure: String,
    /// The value.
    pub(crate) value: f64,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// Who or what it is compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<String>,
    /// The peer's value, same unit, same run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peer_value: Option<f64>,
    /// `value / peer_value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<f64>,
    /// What the issue asks for, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) goal: Option<&'static str>,
    /// Whether the goal is met; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) met: Option<bool>,
    /// The data.
    pub(crate) data: String,
    /// The seed, where data or order are drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seed: Option<u64>,
    /// Versions of what took part.
    pub(crate) versions: String,
}

impl Figure {
    /// A figure without peer or goal.
    pub(crate) fn new(figure: impl Into<String>, value: f64, unit: &'static str, data: impl Into<String>) -> Self {
        Self { figure: figure.into(), value, unit, data: data.into(), versions: versions(), ..Self::default() }
    }

    /// Adds the peer's value and the ratio to it.
    pub(crate) fn against(mut self, peer: impl Into<String>, peer_value: f64) -> Self {
        self.peer = Some(peer.into());
        self.peer_value = Some(peer_value);
        self.ratio = (peer_value != 0.0).then(|| self.value / peer_value);
        self
    }

    /// Adds the goal and whether it is met.
    pub(crate) fn goal(mut self, goal: &'static str, met: bool) -> Self {
        self.goal = Some(goal);
        self.met = Some(met);
        self
    }

    /// Adds the seed.
    pub(crate) fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }
}

/// Collects figures, printing each as it comes.
#[derive(Debug, Default)]
pub(crate) struct Sheet {
    figures: Vec<Figure>,
}

impl Sheet {
    /// Prints and keeps `figure`.
    #[expect(clippy::print_stdout, reason = "one JSON line per figure is this program's output")]
    pub(crate) fn add(&mut self, figure: Figure) {
        println!("{}", serde_json::to_string(&figure).expect("a figure is plain data"));
        self.figures.push(figure);
    }

    /// All figures, in order.
    pub(crate) fn into_figures(self) -> Vec<Figure> {
        self.figures
    }
}

fn versions() -> String {
    format!("anchorite {}, {} {}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, processor())
}

/// The processor's model name as the kernel gives it.
fn processor() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|l| l.strip_prefix("model name")).and_then(|l| l.split_once(':'));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{} ({cores} threads)", model.map_or("unknown processor", |(_, name)| name.trim()))
}
