//! The retrieval policy: everything that decides which pairs become anchors, as data. A policy and a pool give one answer.
//!
//! Read from JSON or TOML; a field that is not known is refused, a field that is left out has the default written here.

use serde::{Deserialize, Serialize};

use anchorite_index::{Effort, Key, Side, Value};

use crate::{Limits, PolicyError, templates};

/// Which pairs of a pool become anchors. [`Policy::default`] takes the four nearest pictures of each query picture.
///
/// ```
/// use anchorite_anchors::Policy;
///
/// let policy = Policy::from_toml(
///     r#"
///     [queries]
///     text = "class-name"
///     class_column = "label"
///     [select]
///     k = 8
///     class = { minimum = 20, maximum = 100 }
///     [exclude]
///     words = ["golden retriever"]
///     "#,
/// )?;
/// assert_eq!(policy.select.near_duplicate, Some(0.95));
/// # Ok::<(), anchorite_anchors::PolicyError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Version of this format: 1.
    pub format: u32,
    /// Decides every random draw. Default 0.
    pub seed: u64,
    /// How rows of the query file become queries.
    pub queries: Queries,
    /// What is compared with what. Default: the query's picture with the pool's pictures.
    pub directions: Vec<Direction>,
    /// Draw from the pool instead of retrieving, to show what retrieval itself is worth. Default: none.
    pub control: Control,
    /// How hard the search tries. Default `exact`: the same answer every time.
    pub effort: Effort,
    /// How many of the hits, and which.
    pub select: Select,
    /// Pairs that must not become anchors.
    pub exclude: Exclude,
    /// Evaluation sets whose pictures must not be among the anchors.
    pub protect: Protect,
    /// Share of the anchors set aside for validation, from 0 to below 1. Default 0. Pairs of one caption stay together.
    pub validation: f64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            format: Self::FORMAT,
            seed: 0,
            queries: Queries::default(),
            directions: vec![Direction::default()],
            control: Control::None,
            effort: Effort::Exact,
            select: Select::default(),
            exclude: Exclude::default(),
            protect: Protect::default(),
            validation: 0.0,
        }
    }
}

/// How rows of the query file become queries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Queries {
    /// One query a row, or one a class: the mean of its rows' vectors. Default: a row.
    pub per: Per,
    /// The words of a query, where a direction starts from text. Default: the row's caption.
    pub text: TextSource,
    /// The column of class labels. Default: `label`, where there is one.
    pub class_column: Option<String>,
    /// Names of numbered labels: label 0 is the first. Default: labels are names.
    pub class_names: Vec<String>,
    /// Prompts made of class names.
    pub templates: Templates,
    /// Whether a class's prompts are averaged into one query, or each is a query. Default: averaged.
    pub prompts: Prompts,
    /// Whether vectors are made from pictures and words, or are in the file (by the pool's model). Default: made.
    pub vectors: VectorSource,
}

/// What one query stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Per {
    /// A row of the query file.
    #[default]
    Row,
    /// All rows of a class.
    Class,
}

/// Where a query's words come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextSource {
    /// The row's caption.
    #[default]
    Caption,
    /// The row's class name, through the prompt templates.
    ClassName,
}

/// What becomes of a class's prompts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prompts {
    /// One vector: the mean of the prompts' unit vectors.
    #[default]
    Mean,
    /// One query a prompt.
    Each,
}

/// Where a query's vectors come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VectorSource {
    /// The encoder makes them.
    #[default]
    Encode,
    /// The query file has them.
    Ready,
}

/// Prompts with `{}` where the class name goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Templates {
    /// A list that ships with the program.
    Named(TemplateSet),
    /// The caller's own.
    Own(Vec<String>),
}

impl Default for Templates {
    fn default() -> Self {
        Self::Named(TemplateSet::OpenaiImagenet80)
    }
}

/// The lists that ship with the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TemplateSet {
    /// The 80 prompts OpenAI used for ImageNet.
    #[default]
    #[serde(rename = "openai-imagenet-80")]
    OpenaiImagenet80,
    /// The seven of them that do best together.
    #[serde(rename = "openai-imagenet-7")]
    OpenaiImagenet7,
    /// `a photo of a {}.` alone.
    #[serde(rename = "a-photo-of")]
    APhotoOf,
}

impl Templates {
    /// The prompts for one class.
    #[must_use]
    pub fn prompts(&self, class: &str) -> Vec<String> {
        let own: Vec<&str> = match self {
            Self::Named(set) => templates::of(*set),
            Self::Own(list) => list.iter().map(String::as_str).collect(),
        };
        own.into_iter().map(|template| template.replace("{}", class)).collect()
    }
}

/// One comparison. Several are fused: the score is the weighted mean of their cosines.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Direction {
    /// The query's side.
    pub from: Side,
    /// The pool's side.
    pub to: Side,
    /// Its share of the score, above 0. Default 1.
    #[serde(default = "one")]
    pub weight: f32,
}

fn one() -> f32 {
    1.0
}

impl Default for Direction {
    fn default() -> Self {
        Self { from: Side::Image, to: Side::Image, weight: 1.0 }
    }
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}->{}", self.from, self.to)
    }
}

/// Anchors drawn without looking at the queries. Exclusions, protection and de-duplication hold for them as well.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, tag = "kind")]
pub enum Control {
    /// No control: retrieve.
    #[default]
    None,
    /// As many pairs as retrieval is asked for, any pair of the pool as likely as any other.
    Random,
    /// The same, but with fixed shares for the values of a metadata column.
    StratifiedRandom {
        /// The column; pairs without it are a stratum of their own.
        column: String,
        /// Whose shares. Default: those of the pairs that retrieval finds, so that only the choice within a value differs.
        #[serde(default)]
        shares: Shares,
    },
}

/// Whose mix a stratified draw repeats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shares {
    /// The retrieved anchors'.
    #[default]
    Retrieved,
    /// The pool's.
    Pool,
}

/// How many of the hits, and which.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Select {
    /// Anchors a query takes at most; `false` for as many as the target or the class bounds ask for. Default 4.
    #[serde(with = "switch")]
    pub k: Option<usize>,
    /// Anchors in all, at most. Default: any number.
    pub target: Option<usize>,
    /// Bounds for each class of queries.
    pub class: ClassBounds,
    /// Hits that score below this are dropped. It belongs to this encoder: other encoders' cosines differ. Default: none.
    pub threshold: Option<f32>,
    /// Hits below a share of the scores are dropped. Default: none.
    pub percentile: Option<Percentile>,
    /// A pair this near to one already taken (cosine) is dropped. Default 0.95; `false` to leave it out.
    #[serde(with = "switch")]
    pub near_duplicate: Option<f32>,
    /// Which vectors tell near duplicates and diversity; the other side's where a pair lacks it. Default: the pictures'.
    pub compare: Side,
    /// Order in which a query takes its hits. Default: by score.
    pub diversity: Diversity,
}

impl Default for Select {
    fn default() -> Self {
        Self {
            k: Some(4),
            target: None,
            class: ClassBounds::default(),
            threshold: None,
            percentile: None,
            near_duplicate: Some(0.95),
            compare: Side::Image,
            diversity: Diversity::None,
        }
    }
}

/// Bounds for each class of queries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClassBounds {
    /// Served first, beyond `k` if need be; what the pool cannot give is reported.
    pub minimum: Option<usize>,
    /// Exactly this many: minimum and maximum at once.
    pub quota: Option<usize>,
    /// Never more.
    pub maximum: Option<usize>,
}

impl ClassBounds {
    /// Served first.
    #[must_use]
    pub fn least(&self) -> usize {
        self.quota.or(self.minimum).unwrap_or(0)
    }

    /// Never more.
    #[must_use]
    pub fn most(&self) -> usize {
        self.quota.or(self.maximum).unwrap_or(usize::MAX)
    }

    /// Whether there are any.
    #[must_use]
    pub fn any(&self) -> bool {
        self.minimum.is_some() || self.quota.is_some() || self.maximum.is_some()
    }
}

/// Keeps the best share of the scores. The population is each query's first `k` hits that are not excluded or protected.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Percentile {
    /// The share kept, above 0 and at most 1.
    pub keep: f64,
    /// Whose scores are ranked together. Default: a class's.
    #[serde(default)]
    pub per: PercentileScope,
}

/// Whose scores are ranked together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PercentileScope {
    /// Each class's.
    #[default]
    Class,
    /// Everything.
    All,
}

/// Order in which a query takes its hits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, tag = "kind")]
pub enum Diversity {
    /// By score.
    #[default]
    None,
    /// Maximal marginal relevance: `lambda * score - (1 - lambda) * nearest already taken`, over the query's best hits.
    Mmr {
        /// 1 is by score alone, 0 by difference alone. Default 0.5.
        #[serde(default = "half")]
        lambda: f32,
        /// How many of the best hits are reordered. Default 50.
        #[serde(default = "fifty")]
        shortlist: usize,
    },
    /// Greedy facility location: each step takes the hit that best covers the shortlist, weighed against its own score.
    Coverage {
        /// Weight of the score against the gain in coverage. Default 0.5.
        #[serde(default = "half")]
        lambda: f32,
        /// How many of the best hits are reordered. Default 50.
        #[serde(default = "fifty")]
        shortlist: usize,
    },
}

fn half() -> f32 {
    0.5
}

fn fifty() -> usize {
    50
}

impl Diversity {
    /// How many hits are reordered; 0 without diversity.
    #[must_use]
    pub fn shortlist(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Mmr { shortlist, .. } | Self::Coverage { shortlist, .. } => *shortlist,
        }
    }
}

/// Pairs that must not become anchors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Exclude {
    /// By key.
    pub keys: Vec<Key>,
    /// By words of the caption: whole words in any case, also with an `s` behind; several words stand in this order. For
    /// held-out class names and their synonyms.
    pub words: Vec<String>,
    /// By the value of a metadata column.
    pub fields: Vec<FieldValue>,
}

/// A metadata column and a value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldValue {
    /// The column.
    pub column: String,
    /// Its value.
    pub value: Value,
}

/// Evaluation sets whose pictures must not be among the anchors, and what counts as the same picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Protect {
    /// The sets.
    pub sets: Vec<ProtectedSource>,
    /// The same picture bytes. Default: on.
    pub exact: bool,
    /// Perceptual hashes at most this unlike, from 0 (equal) to 64. Default 12: of 22 matches of drawings looked at by eye, 11 of the 12 up
    /// to there were the same picture, and 4 of the 10 between 12 and 14. `false` to leave it out.
    #[serde(with = "switch")]
    pub perceptual: Option<u32>,
    /// Descriptors this near (cosine), where a copy-detection model is given beside the policy. Default 0.604169, the threshold that "The Unmet
    /// Promise of Synthetic Training Images" took for the descriptor of ISC21's winner; other models need their own. `false` to leave it out.
    #[serde(with = "switch")]
    pub copy_similarity: Option<f32>,
    /// Image vectors this near (cosine). Default 0.95; `false` to leave it out.
    #[serde(with = "switch")]
    pub similarity: Option<f32>,
    /// Also drop a pair that is nearer to a protected picture than to every query picture. Default: off.
    pub nearer_than_queries: bool,
    /// Report matches and drop nothing. Default: off.
    pub audit: bool,
}

impl Default for Protect {
    fn default() -> Self {
        Self {
            sets: Vec::new(),
            exact: true,
            perceptual: Some(12),
            copy_similarity: Some(0.604_169),
            similarity: Some(0.95),
            nearer_than_queries: false,
            audit: false,
        }
    }
}

/// One evaluation set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProtectedSource {
    /// What reports call it.
    pub name: String,
    /// A parquet file or a folder of them, with a picture column.
    pub source: String,
}

impl Policy {
    /// The version of the format that this program reads.
    pub const FORMAT: u32 = 1;

    /// Reads JSON and checks it.
    ///
    /// # Errors
    /// [`PolicyError`] names the field.
    pub fn from_json(text: &str) -> Result<Self, PolicyError> {
        serde_json::from_str::<Self>(text).map_err(|e| PolicyError::Syntax { reason: e.to_string() })?.checked()
    }

    /// Reads TOML and checks it.
    ///
    /// # Errors
    /// [`PolicyError`] names the field.
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        toml::from_str::<Self>(text).map_err(|e| PolicyError::Syntax { reason: e.to_string() })?.checked()
    }

    /// In full, every default written out; [`Policy::from_json`] reads it back to the same policy.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a policy is strings and finite numbers")
    }

    /// This policy, if it can be carried out on some pool.
    ///
    /// # Errors
    /// [`PolicyError::Value`] names the field and what it may be.
    pub fn checked(self) -> Result<Self, PolicyError> {
        if self.format != Self::FORMAT {
            return Err(PolicyError::Format { found: self.format, supported: Self::FORMAT });
        }
        self.check_directions()?;
        self.check_select()?;
        self.check_rest()?;
        Ok(self)
    }

    fn check_directions(&self) -> Result<(), PolicyError> {
        require(!self.directions.is_empty(), "directions", "names at least one direction")?;
        for (i, direction) in self.directions.iter().enumerate() {
            require(direction.weight.is_finite() && direction.weight > 0.0, "directions.weight", "is above 0")?;
            let twice = self.directions[..i].iter().any(|d| (d.from, d.to) == (direction.from, direction.to));
            require(!twice, "directions", "names each direction once")?;
        }
        Ok(())
    }

    fn check_select(&self) -> Result<(), PolicyError> {
        let select = &self.select;
        require(select.k != Some(0), "select.k", "is at least 1, or left out")?;
        require(select.target != Some(0), "select.target", "is at least 1, or left out")?;
        let bounded = select.k.is_some() || select.target.is_some() || select.class.most() < usize::MAX;
        require(bounded, "select", "has a k, a target or a class maximum, so that it ends")?;
        let class = select.class;
        let alone = class.quota.is_none() || (class.minimum.is_none() && class.maximum.is_none());
        require(alone, "select.class.quota", "stands alone: it is minimum and maximum")?;
        require(class.most() > 0, "select.class", "allows at least 1")?;
        require(class.least() <= class.most(), "select.class.minimum", "is not above the maximum")?;
        require(cosine(select.threshold), "select.threshold", "is a cosine between -1 and 1")?;
        require(cosine(select.near_duplicate), "select.near_duplicate", "is a cosine between -1 and 1")?;
        let share = select.percentile.is_none_or(|p| p.keep > 0.0 && p.keep <= 1.0);
        require(share, "select.percentile.keep", "is above 0 and at most 1")?;
        if let Diversity::Mmr { lambda, shortlist } | Diversity::Coverage { lambda, shortlist } = select.diversity {
            require((0.0..=1.0).contains(&lambda), "select.diversity.lambda", "is between 0 and 1")?;
            let max = Limits::default().max_shortlist;
            require((1..=max).contains(&shortlist), "select.diversity.shortlist", "is between 1 and 10,000")?;
        }
        Ok(())
    }

    fn check_rest(&self) -> Result<(), PolicyError> {
        require((0.0..1.0).contains(&self.validation), "validation", "is at least 0 and below 1")?;
        if let Templates::Own(list) = &self.queries.templates {
            let fine = !list.is_empty() && list.iter().all(|t| t.contains("{}"));
            require(fine, "queries.templates", "has prompts with {} where the class name goes")?;
        }
        require(self.exclude.words.iter().all(|w| w.chars().any(char::is_alphanumeric)), "exclude.words", "has letters")?;
        let protect = &self.protect;
        require(protect.perceptual.is_none_or(|bits| bits <= 64), "protect.perceptual", "is at most 64")?;
        require(cosine(protect.similarity), "protect.similarity", "is a cosine between -1 and 1")?;
        require(cosine(protect.copy_similarity), "protect.copy_similarity", "is a cosine between -1 and 1")?;
        for (i, set) in protect.sets.iter().enumerate() {
            let twice = protect.sets[..i].iter().any(|s| s.name == set.name);
            require(!twice && !set.name.is_empty(), "protect.sets.name", "names each set, and each by another name")?;
        }
        Ok(())
    }
}

/// Whether it is a cosine, where it is there.
fn cosine(value: Option<f32>) -> bool {
    value.is_none_or(|v| (-1.0..=1.0).contains(&v))
}

pub(crate) fn require(holds: bool, field: &'static str, rule: &'static str) -> Result<(), PolicyError> {
    if holds { Ok(()) } else { Err(PolicyError::Value { field, rule }) }
}

/// A number that has a default and can be switched off: `false`, because TOML has no null.
mod switch {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Switch<T> {
        Off(bool),
        On(T),
    }

    pub(super) fn serialize<T: Serialize + Copy, S: Serializer>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
        value.map_or(Switch::Off(false), Switch::On).serialize(to)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
        match Option::<Switch<T>>::deserialize(from)? {
            None | Some(Switch::Off(false)) => Ok(None),
            Some(Switch::On(value)) => Ok(Some(value)),
            Some(Switch::Off(true)) => Err(D::Error::custom("give a number, or false to leave it out")),
        }
    }
}
