//! The retrieval policy: everything that decides which pairs become anchors, as data. A policy and a pool give one answer.
//!
//! Read from JSON or TOML; a field that is not known is refused, a field that is left out has the default written here.
//!
//! | file | subject |
//! |---|---|
//! | `mod` | [`Policy`], directions and controls; reading and writing |
//! | `queries` | rows to queries, class names to prompts |
//! | `select` | counts, bounds, thresholds, diversity |
//! | `barred` | exclusions and protected sets |
//! | `check` | what each field may say |
//! | `switch` | numbers that can be `false` |

mod barred;
mod check;
mod queries;
mod select;
mod switch;

use anchorite_index::{Effort, Side};
use serde::{Deserialize, Serialize};

use crate::PolicyError;

pub use barred::{Exclude, FieldValue, Protect, ProtectedSource};
pub(crate) use check::require;
pub use queries::{Per, Prompts, Queries, TemplateSet, Templates, TextSource, VectorSource};
pub use select::{ClassBounds, Diversity, Percentile, PercentileScope, Select};

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
}
