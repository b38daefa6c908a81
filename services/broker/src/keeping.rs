//! What one subscription keeps in the engine's state: its floor, its rows, its dead letters.
//!
//! Keys, stored: `subscription/<name>`, `floor/<name>`, `lane/<name>/<lane>`, `dead/<name>/<position, 20 digits>`. A name has no slash.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use kit::Position;
use serde::de::DeserializeOwned;

use crate::{
    engine::{EngineError, LogEngine, StateEntry, StatePut},
    lanes::{Changes, DeadLetter, Row},
};

/// How many changes are written in one go: a larger write would keep appends waiting.
const PUTS_MAX: usize = 256;

/// Where the configuration of the subscription `name` is kept.
pub(crate) fn config_key(name: &str) -> String {
    format!("{CONFIG_PREFIX}{name}")
}

/// What all keys of configurations begin with.
pub(crate) const CONFIG_PREFIX: &str = "subscription/";

/// What one subscription keeps. It alone writes these keys, so it knows their versions.
pub(crate) struct Keeping {
    name: String,
    versions: BTreeMap<String, i64>,
}

/// What a subscription had saved.
pub(crate) struct Saved {
    pub(crate) floor: Position,
    pub(crate) rows: Vec<Row>,
}

/// Changes on their way to the engine, in the order in which they must be written.
pub(crate) type Unsaved = VecDeque<Vec<StatePut>>;

impl Keeping {
    /// Reads what the subscription `name` had saved.
    pub(crate) async fn load(engine: &dyn LogEngine, name: &str) -> Result<(Self, Saved), EngineError> {
        let mut versions = BTreeMap::new();
        let mut floor = Position::START;
        if let Some(entry) = engine.state_get(&format!("floor/{name}")).await? {
            floor = parse(&entry)?;
            versions.insert(entry.key, entry.version);
        }
        let mut rows = Vec::new();
        for entry in engine.state_list(&format!("lane/{name}/")).await? {
            rows.push(parse(&entry)?);
            versions.insert(entry.key, entry.version);
        }
        for entry in engine.state_list(&dead_letter_prefix(name)).await? {
            versions.insert(entry.key, entry.version);
        }
        Ok((Self { name: name.to_owned(), versions }, Saved { floor, rows }))
    }

    /// Puts changes in the order in which they must be written: the floor comes last.
    pub(crate) fn prepare(&mut self, changes: &Changes) -> Unsaved {
        let mut puts = Vec::new();
        for (position, letter) in &changes.dead_letters {
            let key = format!("{}{:020}", dead_letter_prefix(&self.name), position.0);
            puts.extend(self.put(key, letter.as_ref().map(to_json)));
        }
        for (lane, row) in &changes.rows {
            puts.extend(self.put(format!("lane/{}/{}", self.name, lane.as_str()), row.as_ref().map(to_json)));
        }
        puts.extend(self.put(format!("floor/{}", self.name), Some(to_json(&changes.floor))));
        let mut unsaved = Unsaved::new();
        while !puts.is_empty() {
            let rest = puts.split_off(puts.len().min(PUTS_MAX));
            unsaved.push_back(std::mem::replace(&mut puts, rest));
        }
        unsaved
    }

    fn put(&mut self, key: String, value: Option<String>) -> Option<StatePut> {
        let expected_version = self.versions.get(&key).copied().unwrap_or(0);
        match &value {
            Some(_) => drop(self.versions.insert(key.clone(), expected_version + 1)),
            // What came and went between two saves was never there.
            None if expected_version == 0 => return None,
            None => drop(self.versions.remove(&key)),
        }
        Some(StatePut { key, value, expected_version })
    }
}

/// Writes `unsaved`; gives back what could not be written.
pub(crate) async fn save(engine: Arc<dyn LogEngine>, mut unsaved: Unsaved) -> Result<(), (EngineError, Unsaved)> {
    while let Some(puts) = unsaved.front() {
        match engine.state_put(puts.clone()).await {
            Ok(()) => drop(unsaved.pop_front()),
            Err(error) => return Err((error, unsaved)),
        }
    }
    Ok(())
}

/// The dead letters of the subscription `name`, as they are saved.
pub(crate) async fn dead_letters(engine: &dyn LogEngine, name: &str) -> Result<Vec<DeadLetter>, EngineError> {
    engine.state_list(&dead_letter_prefix(name)).await?.iter().map(parse).collect()
}

/// Reads a piece of state.
pub(crate) fn parse<T: DeserializeOwned>(entry: &StateEntry) -> Result<T, EngineError> {
    serde_json::from_str(&entry.value)
        .map_err(|error| EngineError::Failed(format!("table state, row `{}`, column value: {error}", entry.key)))
}

/// Writes a piece of state.
pub(crate) fn to_json(value: &impl serde::Serialize) -> String {
    // Plain data with text keys: it cannot fail.
    serde_json::to_string(value).unwrap_or_default()
}

fn dead_letter_prefix(name: &str) -> String {
    format!("dead/{name}/")
}
