//! The reverse walk: from gradients of some values to gradients of others, as nodes appended to the program.
//!
//! ```text
//!   forward:   which values depend on what is differentiated for (others need no gradient)
//!   backward:  last node first; what arrived at its outputs goes through its operator's rule to those of its inputs that need it;
//!              what arrives twice at one value is added
//! ```
//!
//! Not here: an operator's own rule, and undoing of broadcasts (both `ops`).

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::ops::{self, Gradient, Reverse};
use crate::program::{NodeProblem, Program, ProgramError};

impl Program {
    /// Appends what computes gradients. `seeds` are values and the names of their gradients, which are inputs or other values
    /// of the same types; `of` are the values to differentiate for. Gives for each of `of` the name of its gradient, which is
    /// zeros where nothing leads from it to a seed.
    ///
    /// # Errors
    /// [`ProgramError`]: a name that is not there, a value that is no 32 or 64-bit float, an operator without a gradient on the way.
    pub fn gradients(&mut self, seeds: &[(&str, &str)], of: &[&str]) -> Result<BTreeMap<String, String>, ProgramError> {
        let forward = self.nodes().len();
        let active = self.active(of)?;
        let mut arrived = Arrived::default();
        for (value, gradient) in seeds {
            if self.known(value)? != self.known(gradient)? {
                let reason = format!("its gradient {gradient:?} has another type");
                return Err(ProgramError::Value { name: (*value).to_owned(), reason });
            }
            arrived.add(self, value, (*gradient).to_owned())?;
        }
        for index in (0..forward).rev() {
            self.step_back(index, &active, of, &mut arrived)?;
        }
        let mut gradients = BTreeMap::new();
        let mut used: HashSet<String> = self.inputs().iter().cloned().collect();
        for name in of {
            let gradient = match arrived.by_value.get(*name) {
                Some(gradient) => gradient.clone(),
                None => {
                    let kind = self.known(name)?.clone();
                    self.zeros(&kind)?
                }
            };
            // A model's output must not be its input, nor another output: runtimes hand out the same memory then.
            let gradient = if used.insert(gradient.clone()) { gradient } else { self.unary("Identity", &gradient)? };
            gradients.insert((*name).to_owned(), gradient);
        }
        Ok(gradients)
    }

    /// Values that depend on `of` through operators that gradients can pass.
    fn active(&self, of: &[&str]) -> Result<HashSet<String>, ProgramError> {
        let mut active = HashSet::new();
        for name in of {
            let kind = self.known(name)?;
            if !kind.element.is_differentiable() {
                let reason = format!("it is {kind}; gradients need float32 or float64");
                return Err(ProgramError::Value { name: (*name).to_owned(), reason });
            }
            active.insert((*name).to_owned());
        }
        for node in self.nodes() {
            let passes = ops::find(node).is_some_and(|o| !matches!(o.gradient, Gradient::Stops));
            if passes && node.inputs.iter().any(|name| active.contains(name)) {
                let floats = |name: &&String| self.kind(name).is_some_and(|kind| kind.element.is_differentiable());
                active.extend(node.outputs.iter().filter(floats).cloned());
            }
        }
        Ok(active)
    }

    fn step_back(
        &mut self,
        index: usize,
        active: &HashSet<String>,
        of: &[&str],
        arrived: &mut Arrived,
    ) -> Result<(), ProgramError> {
        let node = &self.nodes()[index];
        let wanted: Vec<bool> = node.inputs.iter().map(|name| active.contains(name)).collect();
        let gradients: Vec<Option<String>> = node.outputs.iter().map(|name| arrived.take(name, of)).collect();
        if !wanted.contains(&true) || gradients.iter().all(Option::is_none) {
            return Ok(());
        }
        let rule = match ops::find(node).map(|operator| &operator.gradient) {
            Some(Gradient::Rule(rule)) => rule,
            Some(Gradient::Stops) => return Ok(()),
            Some(Gradient::Missing) | None => return Err(NodeProblem::NoGradient.at(node)),
        };
        let mut step = Reverse::new(self, index, gradients, wanted);
        rule(&mut step)?;
        let inputs = step.node.inputs.clone();
        for (input, gradient) in step.finish() {
            arrived.add(self, &inputs[input], gradient)?;
        }
        Ok(())
    }
}

/// Gradients on their way, by the value they are of.
#[derive(Default)]
struct Arrived {
    by_value: HashMap<String, String>,
}

impl Arrived {
    fn add(&mut self, program: &mut Program, value: &str, gradient: String) -> Result<(), ProgramError> {
        let sum = match self.by_value.get(value) {
            Some(before) => program.add(before, &gradient)?,
            None => gradient,
        };
        self.by_value.insert(value.to_owned(), sum);
        Ok(())
    }

    /// Taken, so that none is used twice, unless it is one of the results.
    fn take(&mut self, value: &str, keep: &[&str]) -> Option<String> {
        if keep.contains(&value) { self.by_value.get(value).cloned() } else { self.by_value.remove(value) }
    }
}
