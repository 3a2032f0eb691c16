//! The results of an evaluation, as they are written and read again.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{
    Unreadable,
    config::{EvalConfig, Task},
};

/// A figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of images whose label scores highest.
    Top1,
    /// Share of images whose label is among the five that score highest.
    Top5,
    /// Mean of the labels' own shares: every label counts the same.
    MeanPerClass,
    /// Mean of the labels' F1.
    MacroF1,
    /// Expected calibration error, 15 bins of equal width. Lower is better.
    Ece,
    /// Captions whose picture is found first.
    TextToImageR1,
    /// Captions whose picture is among the first 5.
    TextToImageR5,
    /// Captions whose picture is among the first 10.
    TextToImageR10,
    /// Pictures of which a caption is found first.
    ImageToTextR1,
    /// Pictures of which a caption is among the first 5.
    ImageToTextR5,
    /// Pictures of which a caption is among the first 10.
    ImageToTextR10,
}

impl Metric {
    pub(crate) const TEXT_TO_IMAGE: [Self; 3] = [Self::TextToImageR1, Self::TextToImageR5, Self::TextToImageR10];
    pub(crate) const IMAGE_TO_TEXT: [Self; 3] = [Self::ImageToTextR1, Self::ImageToTextR5, Self::ImageToTextR10];

    /// The name in tables.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Top1 => "top-1",
            Self::Top5 => "top-5",
            Self::MeanPerClass => "mean per class",
            Self::MacroF1 => "macro F1",
            Self::Ece => "ECE",
            Self::TextToImageR1 => "text→image R@1",
            Self::TextToImageR5 => "text→image R@5",
            Self::TextToImageR10 => "text→image R@10",
            Self::ImageToTextR1 => "image→text R@1",
            Self::ImageToTextR5 => "image→text R@5",
            Self::ImageToTextR10 => "image→text R@10",
        }
    }

    /// Whether resampling images tells how far its value may be from the truth. Not for macro F1 and calibration: a resample has fewer labels and
    /// fewer images in each bin, which moves them one way (the value itself often lies outside the resamples' middle 95 %), and no correction
    /// within the resamples reaches beyond them.
    #[must_use]
    pub fn has_interval(self) -> bool {
        !matches!(self, Self::MacroF1 | Self::Ece)
    }

    /// The one figure by which sets of its kind are compared.
    #[must_use]
    pub fn leads(self) -> bool {
        matches!(self, Self::Top1 | Self::TextToImageR1)
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A value between 0 and 1, and the ends of its bootstrap interval where there were resamples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Over all images.
    pub value: f64,
    /// Lower end.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

/// A model as it was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelRecord {
    /// What it is called here.
    pub name: String,
    /// Hex SHA-256 over its files.
    pub fingerprint: String,
    /// Values of an embedding.
    pub dim: usize,
    /// What cosines are multiplied by before the softmax.
    pub scale: f64,
    /// Whether the model does not say, so that CLIP's 100 was taken: its calibration error then means little.
    pub scale_assumed: bool,
}

/// A set as it was read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetRecord {
    /// Its name.
    pub name: String,
    /// The group it is averaged in.
    pub group: Option<String>,
    /// What it is for.
    pub task: Task,
    /// Images that were evaluated.
    pub images: u64,
    /// Captions, for retrieval.
    pub captions: u64,
    /// Labels that compete; 0 for retrieval.
    pub labels: usize,
    /// Rows left out because their label does not compete.
    pub outside: u64,
    /// Rows that could not be read.
    pub unreadable: u64,
    /// The first of them.
    pub unreadable_rows: Vec<Unreadable>,
    /// SHA-256 over pictures and labels.
    pub content: String,
}

/// One model on one set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SetResult {
    /// The model's name.
    pub model: String,
    /// The set's name.
    pub set: String,
    /// Its figures.
    pub figures: BTreeMap<Metric, Estimate>,
}

/// One model on a group of sets: the plain mean of the sets' figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Average {
    /// The model's name.
    pub model: String,
    /// The group's name.
    pub group: String,
    /// Those figures that every set of the group has.
    pub figures: BTreeMap<Metric, Estimate>,
}

/// `model` minus `baseline`, resampled with the same draws.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The model.
    pub model: String,
    /// What it is compared with.
    pub baseline: String,
    /// The set's name, or the group's.
    pub on: String,
    /// Whether `on` is a group.
    pub group: bool,
    /// The figure.
    pub metric: Metric,
    /// The difference and its interval.
    #[serde(flatten)]
    pub estimate: Estimate,
    /// Twice the share of resamples on the rarer side of zero. Not corrected for the number of comparisons.
    pub p: Option<f64>,
}

impl Evaluation {
    /// A p-value as it is printed: never 0, which no number of resamples can show.
    pub(crate) fn p_text(&self, p: Option<f64>) -> String {
        let least = 1.0 / self.config.bootstrap.max(1) as f64;
        match p {
            None => String::new(),
            Some(p) if p < least => format!("< {least}"),
            Some(p) => format!("{p:.3}"),
        }
    }
}

/// A linear probe of one model on one set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbeRecord {
    /// The probe's name.
    pub probe: String,
    /// The model's name.
    pub model: String,
    /// The set it was measured on.
    pub set: String,
    /// The `l2` that was taken.
    pub l2: f64,
    /// The value of the fitted objective.
    pub loss: f64,
    /// Steps of the optimiser.
    pub steps: usize,
    /// Its figures.
    pub figures: BTreeMap<Metric, Estimate>,
}

/// All results.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Version of this format: 1.
    pub format: u32,
    /// What wrote it.
    pub written_by: String,
    /// The configuration in full.
    pub config: EvalConfig,
    /// The models, in the order of the tables.
    pub models: Vec<ModelRecord>,
    /// The sets, in the order of the tables.
    pub sets: Vec<SetRecord>,
    /// Each model on each set.
    pub results: Vec<SetResult>,
    /// Each model on each group.
    pub averages: Vec<Average>,
    /// Compared models.
    pub differences: Vec<Difference>,
    /// Linear probes.
    pub probes: Vec<ProbeRecord>,
}

impl Evaluation {
    /// Version of the format.
    pub const FORMAT: u32 = 1;

    /// A model's figure on a set.
    #[must_use]
    pub fn figure(&self, model: &str, set: &str, metric: Metric) -> Option<&Estimate> {
        self.results.iter().find(|r| r.model == model && r.set == set)?.figures.get(&metric)
    }

    /// A model's figure on a group.
    #[must_use]
    pub fn average(&self, model: &str, group: &str, metric: Metric) -> Option<&Estimate> {
        self.averages.iter().find(|a| a.model == model && a.group == group)?.figures.get(&metric)
    }

    /// The groups whose mean says something of its own: those of several sets.
    #[must_use]
    pub fn means(&self) -> Vec<&str> {
        let sets = |group: &str| self.sets.iter().filter(|set| set.group.as_deref() == Some(group)).count();
        self.groups().into_iter().filter(|group| sets(group) > 1).collect()
    }

    /// The differences that tables show: of the figures that sets are compared by, and of groups whose mean is none of a set's.
    pub fn shown_differences(&self) -> impl Iterator<Item = &Difference> {
        let means = self.means();
        self.differences.iter().filter(move |d| d.metric.leads() && (!d.group || means.contains(&d.on.as_str())))
    }

    /// The groups, in the order of the sets.
    #[must_use]
    pub fn groups(&self) -> Vec<&str> {
        let mut groups: Vec<&str> = Vec::new();
        for group in self.sets.iter().filter_map(|s| s.group.as_deref()) {
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        groups
    }
}
