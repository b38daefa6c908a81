//! What one subscription keeps in the engine's state: what it asks for, its cursor, its rows, its dead letters.
//!
//! Keys, stored: `subscription/<name>`, `floor/<name>`, `lane/<name>/<lane>`, `dead/<name>/<position, 20 digits>`. A name has no slash.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use kit::Position;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

use crate::{
    engine::{EngineError, LogEngine, StateEntry, StatePut},
    lanes::{Changes, DeadLetter, Row},
    subscriptions::stored::Stored,
};

/// How many changes are written in one go: a larger write would keep appends waiting.
const PUTS_MAX: usize = 256;

/// What all keys of configurations begin with.
pub(crate) const CONFIG_PREFIX: &str = "subscription/";

/// What one subscription keeps. It alone writes these keys, so it knows their versions.
pub(crate) struct Keeping {
    name: String,
    versions: BTreeMap<String, i64>,
    cursor: Cursor,
}

/// Where a subscription stands in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Cursor {
    /// The subscription starts after this position.
    pub(crate) after: Position,
    /// Everything up to here is settled or covered by a row.
    pub(crate) floor: Position,
}

/// What a subscription had saved.
pub(crate) struct Saved {
    pub(crate) floor: Position,
    pub(crate) rows: Vec<Row>,
}

/// Changes on their way to the engine, in the order in which they must be written.
pub(crate) type Unsaved = VecDeque<Vec<StatePut>>;

impl Cursor {
    /// The cursor of a subscription that starts after `after`.
    pub(crate) fn at(after: Position) -> Self {
        Self { after, floor: after }
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            /// As it was kept while every subscription started at the beginning.
            Floor(Position),
            Full {
                after: Position,
                floor: Position,
            },
        }
        Ok(match Form::deserialize(deserializer)? {
            Form::Floor(floor) => Self { after: Position::START, floor },
            Form::Full { after, floor } => Self { after, floor },
        })
    }
}

impl Keeping {
    /// Reads what the subscription `name` had saved.
    pub(crate) async fn load(engine: &dyn LogEngine, name: &str) -> Result<(Self, Saved), EngineError> {
        let mut versions = BTreeMap::new();
        let mut cursor = Cursor::at(Position::START);
        if let Some(entry) = engine.state_get(&cursor_key(name)).await? {
            cursor = parse(&entry)?;
            versions.insert(entry.key, entry.version);
        }
        let mut rows = Vec::new();
        for entry in engine.state_list(&row_prefix(name)).await? {
            rows.push(parse(&entry)?);
            versions.insert(entry.key, entry.version);
        }
        for entry in engine.state_list(&dead_letter_prefix(name)).await? {
            versions.insert(entry.key, entry.version);
        }
        let saved = Saved { floor: cursor.floor, rows };
        Ok((Self { name: name.to_owned(), versions, cursor }, saved))
    }

    /// Puts changes in the order in which they must be written: the floor comes last.
    pub(crate) fn prepare(&mut self, changes: &Changes) -> Unsaved {
        let mut puts = Vec::new();
        for (position, letter) in &changes.dead_letters {
            let key = format!("{}{:020}", dead_letter_prefix(&self.name), position.0);
            puts.extend(self.put(key, letter.as_ref().map(to_json)));
        }
        for (lane, row) in &changes.rows {
            puts.extend(self.put(format!("{}{}", row_prefix(&self.name), lane.as_str()), row.as_ref().map(to_json)));
        }
        self.cursor.floor = changes.floor;
        puts.extend(self.put(cursor_key(&self.name), Some(to_json(&self.cursor))));
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

/// Makes a subscription: what it asks for, and where it starts, together.
pub(crate) async fn create(engine: &dyn LogEngine, name: &str, stored: &Stored, cursor: &Cursor) -> Result<(), EngineError> {
    let put = |key, value| StatePut { key, value: Some(value), expected_version: 0 };
    engine.state_put(vec![put(config_key(name), to_json(stored)), put(cursor_key(name), to_json(cursor))]).await
}

/// Keeps what a subscription asks for from now on.
pub(crate) async fn configure(engine: &dyn LogEngine, name: &str, stored: &Stored, expected_version: i64) -> Result<(), EngineError> {
    let (key, value) = (config_key(name), Some(to_json(stored)));
    engine.state_put(vec![StatePut { key, value, expected_version }]).await
}

/// From here on the subscription `name` is being removed, also after a crash.
pub(crate) async fn mark_removed(engine: &dyn LogEngine, name: &str, stored: &Stored, expected_version: i64) -> Result<(), EngineError> {
    configure(engine, name, &stored.removed(), expected_version).await
}

/// Whether the subscription `name` was being removed.
pub(crate) async fn is_removed(engine: &dyn LogEngine, name: &str) -> Result<bool, EngineError> {
    let Some(entry) = engine.state_get(&config_key(name)).await? else { return Ok(false) };
    parse::<Stored>(&entry).map(|stored| stored.is_removed)
}

/// Removes all that the subscription `name` keeps; what says that it is being removed goes last. Nobody else may write it any more.
pub(crate) async fn remove(engine: &dyn LogEngine, name: &str) -> Result<(), EngineError> {
    let mut entries = engine.state_list(&row_prefix(name)).await?;
    entries.extend(engine.state_list(&dead_letter_prefix(name)).await?);
    entries.extend(engine.state_get(&cursor_key(name)).await?);
    entries.extend(engine.state_get(&config_key(name)).await?);
    let puts: Vec<_> = entries.into_iter().map(|entry| StatePut { key: entry.key, value: None, expected_version: entry.version }).collect();
    for some in puts.chunks(PUTS_MAX) {
        engine.state_put(some.to_vec()).await?;
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

fn config_key(name: &str) -> String {
    format!("{CONFIG_PREFIX}{name}")
}

fn cursor_key(name: &str) -> String {
    format!("floor/{name}")
}

fn row_prefix(name: &str) -> String {
    format!("lane/{name}/")
}

fn dead_letter_prefix(name: &str) -> String {
    format!("dead/{name}/")
}
