//! Which scores answer which label: the whole class list, a subset of it, or labels that stand for several classes each.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
};

use anchorite_index::Value;

use super::{
    EvalError, EvalLimits,
    config::{EvalConfig, LabelSpace, Map, Names, SetConfig},
};

/// A class list, read.
#[derive(Clone, Debug)]
pub(crate) struct Classes {
    pub(crate) names: Vec<String>,
}

/// The labels of a set. A label's score is the largest of its classes'.
#[derive(Clone, Debug)]
pub(crate) struct Targets {
    pub(crate) names: Vec<String>,
    /// Classes of each label.
    pub(crate) members: Vec<Vec<usize>>,
    by_number: HashMap<i64, usize>,
    by_name: HashMap<String, Option<usize>>,
}

impl Classes {
    pub(crate) fn read(config: &EvalConfig, list: &str, limits: &EvalLimits) -> Result<Self, EvalError> {
        let field = format!("classes.{list}.names");
        let names = match config.classes.get(list).map(|c| &c.names) {
            Some(Names::Here(names)) => names.clone(),
            Some(Names::File(file)) => texts(config, &field, file, limits)?,
            Some(Names::Numbers(_)) | None => return Err(EvalError::field(field, "give names, not numbers")),
        };
        if names.is_empty() || names.iter().any(|name| name.trim().is_empty()) {
            return Err(EvalError::field(field, "a name is blank, or there is none"));
        }
        if names.len() > limits.max_classes {
            return Err(EvalError::TooMany { what: field, max: limits.max_classes });
        }
        Ok(Self { names })
    }

    /// Classes by name or number.
    fn resolve(&self, field: &str, which: &[String]) -> Result<Vec<usize>, EvalError> {
        which.iter().map(|one| self.find(field, one)).collect()
    }

    fn find(&self, field: &str, one: &str) -> Result<usize, EvalError> {
        let mut named = (0..self.names.len()).filter(|&i| self.names[i] == one);
        match (named.next(), named.next(), one.parse::<usize>()) {
            (Some(at), None, _) => Ok(at),
            (Some(_), Some(_), _) => Err(EvalError::field(field, format!("two classes are called {one:?}; give the number"))),
            (None, _, Ok(number)) if number < self.names.len() => Ok(number),
            _ => Err(EvalError::field(field, format!("no class {one:?} among {}", self.names.len()))),
        }
    }
}

impl Targets {
    pub(crate) fn of(config: &EvalConfig, set: &SetConfig, classes: &Classes, limits: &EvalLimits) -> Result<Self, EvalError> {
        if let Some(map) = &set.map {
            return Self::mapped(config, set, map, classes, limits);
        }
        let field = format!("sets.{}.subset", set.name);
        let chosen = match &set.subset {
            None => (0..classes.names.len()).collect(),
            Some(which) => classes.resolve(&field, &list(config, &field, which, limits)?)?,
        };
        let number = |at: usize, class: usize| match set.labels {
            LabelSpace::Classes => class as i64,
            LabelSpace::Subset => at as i64,
        };
        let by_number: HashMap<i64, usize> = chosen.iter().enumerate().map(|(at, &class)| (number(at, class), at)).collect();
        if by_number.len() != chosen.len() {
            return Err(EvalError::field(field, "a class is in it twice"));
        }
        let names: Vec<String> = chosen.iter().map(|&class| classes.names[class].clone()).collect();
        let by_name = once(names.iter().cloned().enumerate().map(|(at, name)| (name, at)));
        Ok(Self { names, members: chosen.into_iter().map(|class| vec![class]).collect(), by_number, by_name })
    }

    fn mapped(
        config: &EvalConfig,
        set: &SetConfig,
        map: &Map,
        classes: &Classes,
        limits: &EvalLimits,
    ) -> Result<Self, EvalError> {
        let field = format!("sets.{}.map", set.name);
        let entries = match map {
            Map::Here(entries) => {
                let read = |e: &super::MapEntry| Ok((e.label.clone(), list(config, &field, &e.classes, limits)?));
                entries.iter().map(read).collect::<Result<Vec<_>, EvalError>>()?
            }
            Map::File(file) => map_file(config, &field, file, limits)?,
        };
        let mut targets = Self { names: Vec::new(), members: Vec::new(), by_number: HashMap::new(), by_name: HashMap::new() };
        for (at, (label, which)) in entries.into_iter().enumerate() {
            let members = classes.resolve(&field, &which)?;
            if members.is_empty() {
                return Err(EvalError::field(&field, format!("label {label:?} has no class")));
            }
            if let Ok(number) = label.parse() {
                targets.by_number.insert(number, at);
            }
            if targets.by_name.insert(label.clone(), Some(at)).is_some() {
                return Err(EvalError::field(&field, format!("label {label:?} is there twice")));
            }
            targets.names.push(label);
            targets.members.push(members);
        }
        if targets.names.is_empty() {
            return Err(EvalError::field(field, "it is empty"));
        }
        Ok(targets)
    }

    /// The label that a row's value means; none for one that is not evaluated.
    pub(crate) fn label(&self, value: &Value) -> Result<Option<usize>, String> {
        match value {
            Value::Int(number) => Ok(self.by_number.get(number).copied()),
            Value::Bool(flag) => Ok(self.by_number.get(&i64::from(*flag)).copied()),
            Value::Text(name) => match self.by_name.get(name) {
                Some(None) => Err(format!("two classes are called {name:?}: label rows by number")),
                Some(found) => Ok(*found),
                None => Ok(None),
            },
            Value::Float(number) => Err(format!("the label {number} is neither a whole number nor a name")),
        }
    }
}

/// Each name's place; none for a name that is there twice.
fn once(names: impl Iterator<Item = (String, usize)>) -> HashMap<String, Option<usize>> {
    let mut places = HashMap::new();
    for (name, at) in names {
        places.entry(name).and_modify(|place| *place = None).or_insert(Some(at));
    }
    places
}

fn list(config: &EvalConfig, field: &str, names: &Names, limits: &EvalLimits) -> Result<Vec<String>, EvalError> {
    match names {
        Names::Here(names) => Ok(names.clone()),
        Names::Numbers(numbers) => Ok(numbers.iter().map(u64::to_string).collect()),
        Names::File(file) => texts(config, field, file, limits),
    }
}

fn read(config: &EvalConfig, file: &str, limits: &EvalLimits) -> Result<String, EvalError> {
    let path = config.path(file);
    let io = |source| EvalError::Io { action: "read", path: path.clone(), source };
    let bytes = fs::metadata(&path).map_err(io)?.len();
    if bytes > limits.max_list_bytes {
        return Err(EvalError::TooMany { what: format!("bytes of {}", path.display()), max: limits.max_list_bytes as usize });
    }
    fs::read_to_string(&path).map_err(io)
}

/// One a line, or a JSON list of texts or numbers.
fn texts(config: &EvalConfig, field: &str, file: &str, limits: &EvalLimits) -> Result<Vec<String>, EvalError> {
    let text = read(config, file, limits)?;
    if !file.to_ascii_lowercase().ends_with(".json") {
        return Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect());
    }
    let values: Vec<serde_json::Value> =
        serde_json::from_str(&text).map_err(|e| EvalError::field(field, format!("{file} is no JSON list: {e}")))?;
    values.iter().map(|value| plain(field, file, value)).collect()
}

fn map_file(config: &EvalConfig, field: &str, file: &str, limits: &EvalLimits) -> Result<Vec<(String, Vec<String>)>, EvalError> {
    let text = read(config, file, limits)?;
    let map: BTreeMap<String, Vec<serde_json::Value>> =
        serde_json::from_str(&text).map_err(|e| EvalError::field(field, format!("{file} is no JSON object of lists: {e}")))?;
    let entry = |(label, classes): (String, Vec<serde_json::Value>)| {
        Ok((label, classes.iter().map(|value| plain(field, file, value)).collect::<Result<_, _>>()?))
    };
    map.into_iter().map(entry).collect()
}

fn plain(field: &str, file: &str, value: &serde_json::Value) -> Result<String, EvalError> {
    match value {
        serde_json::Value::String(text) => Ok(text.clone()),
        serde_json::Value::Number(number) => Ok(number.to_string()),
        other => Err(EvalError::field(field, format!("{file}: {other} is neither a name nor a number"))),
    }
}
