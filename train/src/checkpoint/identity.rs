//! What makes two runs one: model, data, and every field of the run file that decides a weight.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::runner::RunConfig;

/// Which run a checkpoint belongs to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// Fingerprint of the model that training started from.
    pub model: String,
    /// Fingerprint of the finetune set, and of the anchors.
    pub data: String,
    /// Generation of the pool that anchors are asked of; none where there is none, or where the run follows it.
    #[serde(default)]
    pub generation: Option<u64>,
    /// The run file's fields that decide a weight.
    pub config: Value,
}

/// Fields that decide no weight: where things lie, how fast, what is told and kept.
const FREE: [&str; 14] = [
    "output",
    "model",
    "data",
    "checkpoint",
    "log",
    "export",
    "anchors.pool",
    "anchors.manifest",
    "anchors.server",
    "anchors.server_key_file",
    "anchors.timeout_s",
    "anchors.retries",
    "anchors.follow_generations",
    "task.sources",
];

impl Identity {
    /// Of a run of `config` on a model and data with these fingerprints, `steps` long in all. Its anchors are of no generation yet.
    #[must_use]
    pub fn new(config: &RunConfig, model: &str, data: &str, steps: u64) -> Self {
        let mut value = serde_json::to_value(config).unwrap_or_default();
        for field in FREE {
            let (parent, name) = field.rsplit_once('.').map_or(("", field), |(parent, name)| (parent, name));
            let at = if parent.is_empty() { Some(&mut value) } else { value.get_mut(parent) };
            if let Some(Value::Object(fields)) = at {
                fields.remove(name);
            }
        }
        value["steps"] = steps.into();
        Self { model: model.to_owned(), data: data.to_owned(), generation: None, config: value }
    }

    /// What differs in `other`, in words.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<String> {
        if self.model != other.model {
            return Some(format!("its model is {:.12}, this run's is {:.12}", other.model, self.model));
        }
        if let Some(found) = first_difference("", &self.config, &other.config) {
            return Some(found);
        }
        if self.data != other.data {
            return Some("its data (finetune set or anchors) has changed since".to_owned());
        }
        let generations = self.generation.zip(other.generation).filter(|(ours, theirs)| ours != theirs);
        generations.map(|(ours, theirs)| {
            format!(
                "its anchors were of generation {theirs} of the pool, which is at {ours} now; a server's pool is followed with --set \
                 anchors.follow_generations=true, and a manifest does not change"
            )
        })
    }
}

fn first_difference(path: &str, ours: &Value, theirs: &Value) -> Option<String> {
    if let (Value::Object(ours), Value::Object(theirs)) = (ours, theirs) {
        let names = ours.keys().chain(theirs.keys().filter(|name| !ours.contains_key(*name)));
        let at = |fields: &serde_json::Map<String, Value>, name: &str| fields.get(name).cloned().unwrap_or_default();
        let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        return names.into_iter().find_map(|name| first_difference(&below(name), &at(ours, name), &at(theirs, name)));
    }
    (ours != theirs).then(|| format!("its {path} is {theirs}, this run's is {ours}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_decides_no_weight_may_change_and_what_does_is_named() {
        let config = RunConfig { batch: 8, ..RunConfig::default() };
        let identity = Identity::new(&config, "m", "d", 10);
        let mut moved = config.clone();
        moved.output = "elsewhere".into();
        moved.log.every = 7;
        moved.data.workers = 9;
        assert_eq!(identity.difference(&Identity::new(&moved, "m", "d", 10)), None);
        moved.schedule.rate = 0.5;
        let difference = Identity::new(&moved, "m", "d", 10).difference(&identity).unwrap();
        assert!(difference.contains("schedule.rate is 0.00001, this run's is 0.5"), "{difference}");
        assert!(identity.difference(&Identity::new(&config, "n", "d", 10)).unwrap().contains("model"));
        assert!(identity.difference(&Identity::new(&config, "m", "e", 10)).unwrap().contains("data"));
        let at = |generation| Identity { generation, ..identity.clone() };
        assert!(at(Some(3)).difference(&at(Some(2))).unwrap().contains("generation 2 of the pool, which is at 3"));
        assert_eq!(at(None).difference(&at(Some(2))), None);
    }
}
