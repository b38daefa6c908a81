//! What one subscription keeps in the engine's state: what it asks for, its cursor, its rows, its dead letters.
//!
//! Keys, stored: `subscription/<name>`, `floor/<name>`, `lane/<name>/<lane>`, `dead/<name>/<position, 20 digits>`, `replay/<name>/<id>`.
//! A name has no slash. A replay keeps its cursor, rows and dead letters under the name `<name>~<id>`.

use std::sync::Arc;

use kit::{Position, Timestamp};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    audit::{self, Books, Checkpoint},
    dispatcher::{Ended, Reset},
    engine::{EngineError, LogEngine, StateEntry, StatePut},
    lanes::{Changes, Counts, DeadLetter, Lane, LetterState, Saved},
    subscriptions::{replays::Record, stored::Stored},
};

/// How many changes are written in one go where they need not be together: a larger write would keep appends waiting.
const PUTS_MAX: usize = 256;

/// What all keys of configurations begin with.
pub(crate) const CONFIG_PREFIX: &str = "subscription/";

/// What one subscription keeps. It alone writes these keys. The version of its cursor, which goes with every change, guards them all.
pub(crate) struct Keeping {
    name: String,
    version: i64,
    /// As it was taken to be saved.
    cursor: Cursor,
}

/// Where a subscription stands in the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Cursor {
    /// The subscription starts after this position.
    pub(crate) after: Position,
    /// When it was put there; none at first.
    pub(crate) sought_at: Option<Timestamp>,
    /// Everything up to here is settled or covered by a row.
    pub(crate) floor: Position,
    /// What became of the events up to the floor.
    pub(crate) counts: Counts,
    /// What was counted of events that the log may have lost.
    pub(crate) checkpoint: Checkpoint,
    /// The log was let go of its events up to here.
    pub(crate) released: Position,
    /// Nothing is delivered.
    pub(crate) is_paused: bool,
    /// What was lost last.
    pub(crate) reset: Option<Reset>,
    /// How many events were lost before that; none where it was saved before this was kept.
    pub(crate) expired_before: Option<i64>,
    /// It is going to another place: what it has of the old one goes before anything else happens.
    pub(crate) seeking: Option<Seeking>,
}

/// Another place to go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seeking {
    after: Position,
    at: Timestamp,
}

/// Changes on their way to the engine: all of them or none.
pub(crate) type Puts = Vec<StatePut>;

impl Cursor {
    /// The cursor of a subscription that starts after `after`.
    pub(crate) fn at(after: Position) -> Self {
        let checkpoint = Checkpoint { position: after, ..Checkpoint::default() };
        Self { after, floor: after, checkpoint, ..Self::default() }
    }
}

impl Keeping {
    /// Reads what the subscription `name` had saved; first finishes what a crash broke off.
    pub(crate) async fn load(engine: &dyn LogEngine, name: &str, stored: &Stored) -> Result<(Self, Saved), EngineError> {
        let mut keeping = Self { name: name.to_owned(), version: 0, cursor: Cursor::default() };
        let Some(entry) = engine.state_get(&cursor_key(name)).await? else { return Ok((keeping, Saved::default())) };
        let is_uncounted;
        (keeping.cursor, is_uncounted) = parse_cursor(&entry)?;
        keeping.version = entry.version;
        let mut saved = keeping.load_rest(engine).await?;
        if let Some(seeking) = keeping.cursor.seeking {
            saved = keeping.arrive(engine, seeking, &saved).await?;
        }
        if is_uncounted {
            let auditor = audit::fold(engine, stored, keeping.books(saved.clone())).await?;
            saved.counts = auditor.counted();
            keeping.cursor.counts = saved.counts;
        }
        Ok((keeping, saved))
    }

    async fn load_rest(&self, engine: &dyn LogEngine) -> Result<Saved, EngineError> {
        let Cursor { after, floor, counts, .. } = self.cursor;
        let mut saved = Saved { after, floor, counts, ..Saved::default() };
        for entry in engine.state_list(&row_prefix(&self.name)).await? {
            saved.rows.push(parse(&entry)?);
        }
        for entry in engine.state_list(&letter_prefix(&self.name)).await? {
            saved.letters.push(parse(&entry)?);
        }
        Ok(saved)
    }

    /// As it was taken to be saved.
    pub(crate) fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// To be changed, and saved with the next changes.
    pub(crate) fn cursor_mut(&mut self) -> &mut Cursor {
        &mut self.cursor
    }

    /// What an auditor needs beside the log.
    pub(crate) fn books(&self, saved: Saved) -> Books {
        Books { checkpoint: self.cursor.checkpoint, saved }
    }

    /// Puts `changes` as the engine takes them. What this gives must be saved in the order in which it was given.
    pub(crate) fn prepare(&mut self, changes: &Changes) -> Puts {
        let mut puts = Puts::new();
        for (position, letter) in &changes.letters {
            puts.push(guarded(letter_key(&self.name, *position), letter.as_ref().map(to_json)));
        }
        for (lane, row) in &changes.rows {
            puts.push(guarded(row_key(&self.name, lane), row.as_ref().map(to_json)));
        }
        (self.cursor.floor, self.cursor.counts) = (changes.floor, changes.counts);
        self.cursor.checkpoint.discarded += changes.forgotten;
        if let (Some(reset), Some(expired_before)) = (&mut self.cursor.reset, self.cursor.expired_before) {
            // A loss may be saved in parts; each says no more than it counts.
            reset.expired = changes.counts.expired - expired_before;
        }
        puts.push(self.put_cursor());
        puts
    }

    /// Goes to another place: starts anew after `after`. Lanes that were set aside are dissolved; dead letters from before that place
    /// are discarded, and those behind it forgotten, since their events come again. Saved so that a crash in the middle is finished at
    /// the next load; after an error this must be loaded again.
    pub(crate) async fn seek(
        &mut self,
        engine: &dyn LogEngine,
        (stored, version): (&Stored, i64),
        after: Position,
        now: Timestamp,
    ) -> Result<Saved, EngineError> {
        let before = self.load_rest(engine).await?;
        let seeking = Seeking { after, at: now };
        self.cursor.seeking = Some(seeking);
        let config = StatePut { key: config_key(&self.name), value: Some(to_json(stored)), expected_version: Some(version) };
        engine.state_put(vec![self.put_cursor(), config]).await?;
        self.arrive(engine, seeking, &before).await
    }

    async fn arrive(&mut self, engine: &dyn LogEngine, seeking: Seeking, before: &Saved) -> Result<Saved, EngineError> {
        let mut puts = Puts::new();
        for row in &before.rows {
            puts.push(guarded(row_key(&self.name, &row.lane), None));
        }
        let mut letters = Vec::new();
        for letter in &before.letters {
            let key = letter_key(&self.name, letter.position);
            match letter.state {
                _ if letter.position > seeking.after => puts.push(guarded(key, None)),
                LetterState::Discarded { .. } => letters.push(letter.clone()),
                LetterState::Waiting | LetterState::Redriving => {
                    let letter = DeadLetter { state: LetterState::Discarded { at: seeking.at }, ..letter.clone() };
                    puts.push(guarded(key, Some(to_json(&letter))));
                    letters.push(letter);
                }
            }
        }
        for some in puts.chunks(PUTS_MAX) {
            engine.state_put([some, &[self.put_cursor()]].concat()).await?;
        }
        let is_paused = self.cursor.is_paused;
        self.cursor = Cursor { is_paused, sought_at: Some(seeking.at), ..Cursor::at(seeking.after) };
        engine.state_put(vec![self.put_cursor()]).await?;
        Ok(Saved { after: seeking.after, floor: seeking.after, letters, ..Saved::default() })
    }

    fn put_cursor(&mut self) -> StatePut {
        let expected_version = Some(self.version);
        self.version += 1;
        StatePut { key: cursor_key(&self.name), value: Some(to_json(&self.cursor)), expected_version }
    }
}

/// A change that goes with one of the cursor.
fn guarded(key: String, value: Option<String>) -> StatePut {
    StatePut { key, value, expected_version: None }
}

/// Writes `puts`; gives them back if they could not be written.
pub(crate) async fn save(engine: Arc<dyn LogEngine>, puts: Puts) -> Result<(), (EngineError, Puts)> {
    engine.state_put(puts.clone()).await.map_err(|error| (error, puts))
}

/// Makes a subscription: what it asks for, and where it starts, together.
pub(crate) async fn create(engine: &dyn LogEngine, name: &str, stored: &Stored, cursor: &Cursor) -> Result<(), EngineError> {
    let put = |key, value| StatePut { key, value: Some(value), expected_version: Some(0) };
    engine.state_put(vec![put(config_key(name), to_json(stored)), put(cursor_key(name), to_json(cursor))]).await
}

/// Keeps what a subscription asks for from now on.
pub(crate) async fn configure(engine: &dyn LogEngine, name: &str, stored: &Stored, expected_version: i64) -> Result<(), EngineError> {
    let (key, value) = (config_key(name), Some(to_json(stored)));
    engine.state_put(vec![StatePut { key, value, expected_version: Some(expected_version) }]).await
}

/// What the subscription `name` asks for and the version of that, if there is one.
pub(crate) async fn stored(engine: &dyn LogEngine, name: &str) -> Result<Option<(Stored, i64)>, EngineError> {
    let Some(entry) = engine.state_get(&config_key(name)).await? else { return Ok(None) };
    Ok(Some((parse(&entry)?, entry.version)))
}

/// The books of the subscription `name`, as they are saved. Nobody may write them meanwhile.
pub(crate) async fn books(engine: &dyn LogEngine, name: &str) -> Result<Books, EngineError> {
    let mut keeping = Keeping { name: name.to_owned(), version: 0, cursor: Cursor::default() };
    if let Some(entry) = engine.state_get(&cursor_key(name)).await? {
        (keeping.cursor, _) = parse_cursor(&entry)?;
    }
    let saved = keeping.load_rest(engine).await?;
    Ok(keeping.books(saved))
}

/// From here on the subscription `name` is being removed, also after a crash.
pub(crate) async fn mark_removed(engine: &dyn LogEngine, name: &str, stored: &Stored, expected_version: i64) -> Result<(), EngineError> {
    configure(engine, name, &stored.removed(), expected_version).await
}

/// Removes all that the subscription `name` keeps, its replays too; what says that it is being removed goes last. Nobody else may write
/// it any more.
pub(crate) async fn remove_all(engine: &dyn LogEngine, name: &str) -> Result<(), EngineError> {
    for record in replays(engine, name).await? {
        remove(engine, &replay_name(name, &record.id)).await?;
        forget_replay(engine, name, &record.id).await?;
    }
    remove(engine, name).await
}

/// Removes all that is kept under `name`, replays apart.
pub(crate) async fn remove(engine: &dyn LogEngine, name: &str) -> Result<(), EngineError> {
    let mut entries = engine.state_list(&row_prefix(name)).await?;
    entries.extend(engine.state_list(&letter_prefix(name)).await?);
    entries.extend(engine.state_get(&cursor_key(name)).await?);
    entries.extend(engine.state_get(&config_key(name)).await?);
    let puts: Vec<_> =
        entries.into_iter().map(|entry| StatePut { key: entry.key, value: None, expected_version: Some(entry.version) }).collect();
    for some in puts.chunks(PUTS_MAX) {
        engine.state_put(some.to_vec()).await?;
    }
    Ok(())
}

/// One dead letter, as it is saved.
pub(crate) async fn dead_letter(engine: &dyn LogEngine, name: &str, position: Position) -> Result<Option<DeadLetter>, EngineError> {
    engine.state_get(&letter_key(name, position)).await?.map(|entry| parse(&entry)).transpose()
}

/// The name under which the replay `id` of the subscription `name` keeps what it has.
pub(crate) fn replay_name(name: &str, id: &str) -> String {
    format!("{name}~{id}")
}

/// The replays of the subscription `name`.
pub(crate) async fn replays(engine: &dyn LogEngine, name: &str) -> Result<Vec<Record>, EngineError> {
    engine.state_list(&replay_key(name, "")).await?.iter().map(parse).collect()
}

/// Makes a replay: what it is, and where it starts, together.
pub(crate) async fn create_replay(
    engine: &dyn LogEngine,
    (name, id): (&str, &str),
    record: &Record,
    cursor: &Cursor,
) -> Result<(), EngineError> {
    let put = |key, value| StatePut { key, value: Some(value), expected_version: Some(0) };
    let cursor = put(cursor_key(&replay_name(name, id)), to_json(cursor));
    engine.state_put(vec![put(replay_key(name, id), to_json(record)), cursor]).await
}

/// Keeps how a replay ended. One that has ended stays as it is.
pub(crate) async fn end_replay(engine: &dyn LogEngine, name: &str, id: &str, ended: &Ended) -> Result<(), EngineError> {
    let Some(entry) = engine.state_get(&replay_key(name, id)).await? else { return Ok(()) };
    let mut record: Record = parse(&entry)?;
    if record.ended.is_some() {
        return Ok(());
    }
    record.ended = Some(ended.clone());
    let value = Some(to_json(&record));
    engine.state_put(vec![StatePut { key: entry.key, value, expected_version: Some(entry.version) }]).await
}

/// Forgets a replay that has ended.
pub(crate) async fn forget_replay(engine: &dyn LogEngine, name: &str, id: &str) -> Result<(), EngineError> {
    let Some(entry) = engine.state_get(&replay_key(name, id)).await? else { return Ok(()) };
    engine.state_put(vec![StatePut { key: entry.key, value: None, expected_version: Some(entry.version) }]).await
}

/// Reads a piece of state.
pub(crate) fn parse<T: DeserializeOwned>(entry: &StateEntry) -> Result<T, EngineError> {
    serde_json::from_str(&entry.value)
        .map_err(|error| EngineError::Failed(format!("table state, row `{}`, column value: {error}", entry.key)))
}

/// Reads a cursor; answers also whether nothing was counted yet. Then every subscription started at the beginning, and the floor was
/// all that was kept.
fn parse_cursor(entry: &StateEntry) -> Result<(Cursor, bool), EngineError> {
    match serde_json::from_str::<Position>(&entry.value) {
        Ok(floor) => Ok((Cursor { floor, ..Cursor::default() }, true)),
        Err(_) => Ok((parse(entry)?, false)),
    }
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

fn row_key(name: &str, lane: &Lane) -> String {
    format!("{}{}", row_prefix(name), lane.as_str())
}

fn replay_key(name: &str, id: &str) -> String {
    format!("replay/{name}/{id}")
}

fn letter_prefix(name: &str) -> String {
    format!("dead/{name}/")
}

fn letter_key(name: &str, position: Position) -> String {
    format!("{}{:020}", letter_prefix(name), position.0)
}
