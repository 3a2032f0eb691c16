//! How the next words are chosen, as data.

use serde::{Deserialize, Serialize};

use super::CaptionError;

/// The strategy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The likeliest word each time. The default.
    #[default]
    Greedy,
    /// The likeliest whole captions among so many that are kept.
    Beam {
        /// How many are kept.
        beams: usize,
        /// Whether to stop as soon as that many are finished.
        early_stopping: bool,
        /// Exponent of the length that a caption's log-probability is divided by. transformers: 1.
        length_penalty: f32,
    },
    /// Drawn from the smallest set of words that holds `top_p` of the probability (Holtzman et al. 2020).
    Nucleus {
        /// That share, above 0 and at most 1.
        top_p: f32,
        /// What logits are divided by; below 1 is more cautious.
        temperature: f32,
        /// Decides the draws.
        seed: u64,
    },
}

/// The strategy and its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Decoding {
    /// The strategy.
    pub method: Method,
    /// Tokens of a caption, the end token included. Default 30: COCO's captions have about 13.
    pub max_new_tokens: usize,
    /// Captions of each picture. Default 1; greedy has no second.
    pub captions: usize,
    /// Above 1 makes words that are there already less likely (Keskar et al. 2019). Default 1.
    pub repetition_penalty: f32,
    /// No run of so many tokens comes twice. Default 0: no such rule.
    pub no_repeat_ngram: usize,
}

impl Default for Decoding {
    fn default() -> Self {
        Self { method: Method::Greedy, max_new_tokens: 30, captions: 1, repetition_penalty: 1.0, no_repeat_ngram: 0 }
    }
}

impl Decoding {
    /// Checks that the settings make sense together.
    ///
    /// # Errors
    /// [`CaptionError::Setting`].
    pub fn checked(self) -> Result<Self, CaptionError> {
        let refuse = |field, reason: &str| Err(CaptionError::Setting { field, reason: reason.to_owned() });
        match self.method {
            Method::Greedy if self.captions > 1 => return refuse("captions", "greedy gives one caption; use beam or nucleus"),
            Method::Beam { beams, .. } if beams == 0 || beams > 64 => return refuse("beams", "give 1 to 64"),
            Method::Beam { beams, .. } if self.captions > beams => return refuse("captions", "at most as many as beams"),
            Method::Beam { length_penalty, .. } if !length_penalty.is_finite() => {
                return refuse("length_penalty", "give a number");
            }
            Method::Nucleus { top_p, .. } if !(top_p > 0.0 && top_p <= 1.0) => {
                return refuse("top_p", "give a share above 0 and at most 1");
            }
            Method::Nucleus { temperature, .. } if !(temperature > 0.0 && temperature.is_finite()) => {
                return refuse("temperature", "give a number above 0");
            }
            _ => {}
        }
        if self.captions == 0 || self.captions > 64 {
            return refuse("captions", "give 1 to 64");
        }
        if self.max_new_tokens == 0 || self.max_new_tokens > 1_024 {
            return refuse("max_new_tokens", "give 1 to 1024");
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return refuse("repetition_penalty", "give a number above 0");
        }
        Ok(self)
    }
}
