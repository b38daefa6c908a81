//! The CloudEvents envelope, and an event with its place in the log.

use std::{borrow::Cow, collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeMap};
use serde_json::{Value, value::RawValue};

use crate::{EventId, Position, Timestamp};

/// The media type of one event in structured mode (CloudEvents JSON format 1.0, section 3).
pub const EVENT_JSON: &str = "application/cloudevents+json";
/// The media type of a batch of events (CloudEvents JSON format 1.0, section 4).
pub const BATCH_JSON: &str = "application/cloudevents-batch+json";
/// What data is, unless an event says otherwise.
const PLAIN_JSON: &str = "application/json";
/// The longest `source`, `type`, `subject` or `id`, in bytes.
pub const ATTRIBUTE_BYTES_MAX: usize = 1_024;
/// How many extension attributes an event may have beside those that mean something here.
pub const EXTENSIONS_MAX: usize = 32;
/// The largest event, in bytes of JSON.
pub const EVENT_BYTES_MAX: usize = 256 * 1024;

/// A CloudEvents 1.0 event whose data is JSON. The data is kept as the text that came: it is parsed by who needs it.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// Unique within the source.
    pub id: EventId,
    /// Who emitted it, e.g. `/order`.
    pub source: String,
    /// What happened, e.g. `cascade.OrderCreated.v1`.
    pub ty: String,
    /// What it happened to; events of one subject stay in sequence.
    pub subject: Option<String>,
    /// When it happened.
    pub time: Option<Timestamp>,
    /// The trace it belongs to (W3C Trace Context, `traceparent`).
    pub traceparent: Option<String>,
    /// The id of the event that caused it.
    pub causationid: Option<EventId>,
    /// Counts 1, 2, 3, … within (`source`, `subject`), without gaps.
    pub sequence: Option<i64>,
    /// Whose it is: an opaque name; live streams and queries are filtered by it.
    pub owner: Option<String>,
    /// Which script the simulated parts follow.
    pub scenario: Option<String>,
    /// Extensions that mean nothing to us; kept as they came.
    pub extensions: BTreeMap<String, Value>,
    /// The media type of its data, where that is not plain `application/json`; kept as it came.
    pub media_type: Option<String>,
    /// What is to be known about it, as JSON text.
    pub data: Option<Box<RawValue>>,
}

impl Envelope {
    /// Checks what the CloudEvents specification (1.0, section 3) asks of every event.
    ///
    /// # Errors
    /// The first attribute that is missing, empty or too long.
    pub fn check(&self) -> Result<(), InvalidEnvelope> {
        let attributes = [
            ("id", Some(self.id.as_str())),
            ("source", Some(&*self.source)),
            ("type", Some(&*self.ty)),
            ("subject", self.subject.as_deref()),
            ("traceparent", self.traceparent.as_deref()),
            ("causationid", self.causationid.as_ref().map(EventId::as_str)),
            ("owner", self.owner.as_deref()),
            ("scenario", self.scenario.as_deref()),
            ("datacontenttype", self.media_type.as_deref()),
        ];
        for (name, value) in attributes {
            match value {
                Some("") => return Err(InvalidEnvelope::Empty(name)),
                Some(text) if text.len() > ATTRIBUTE_BYTES_MAX => return Err(InvalidEnvelope::TooLong(name)),
                Some(text) if has_control_character(text) => return Err(InvalidEnvelope::ControlCharacter(name)),
                _ => {}
            }
        }
        if self.sequence.is_some_and(|sequence| sequence < 1) {
            return Err(InvalidEnvelope::NotCounting);
        }
        if self.extensions.len() > EXTENSIONS_MAX {
            return Err(InvalidEnvelope::TooManyExtensions);
        }
        if self.extensions.get("partitionkey").is_some_and(|key| key.as_str().is_none_or(str::is_empty)) {
            return Err(InvalidEnvelope::Empty("partitionkey"));
        }
        for value in self.extensions.values() {
            match value.as_str() {
                Some(text) if text.len() > ATTRIBUTE_BYTES_MAX => return Err(InvalidEnvelope::TooLong("extension")),
                Some(text) if has_control_character(text) => return Err(InvalidEnvelope::ControlCharacter("extension")),
                _ => {}
            }
        }
        Ok(())
    }

    /// The media type of its data, as it is sent.
    pub fn datacontenttype(&self) -> Option<&str> {
        self.data.as_ref().map(|_| self.media_type.as_deref().unwrap_or(PLAIN_JSON))
    }

    /// What keeps events in sequence: those of one `partitionkey` (the CloudEvents extension of that name), else those of one subject;
    /// an event with neither stands alone.
    pub fn lane(&self) -> &str {
        let partition = self.extensions.get("partitionkey").and_then(Value::as_str);
        partition.or(self.subject.as_deref()).unwrap_or(self.id.as_str())
    }
}

fn has_control_character(text: &str) -> bool {
    // Most texts are ASCII, and bytes are looked at much faster than characters.
    if text.is_ascii() { text.bytes().any(|byte| byte.is_ascii_control()) } else { text.chars().any(char::is_control) }
}

/// Why an event is not a CloudEvents 1.0 event that we take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEnvelope {
    /// A text that must say something is empty, or is no text.
    #[error("`{0}` is empty")]
    Empty(&'static str),
    /// A text is longer than [`ATTRIBUTE_BYTES_MAX`].
    #[error("`{0}` is longer than 1024 bytes")]
    TooLong(&'static str),
    /// The sequence is below 1.
    #[error("`sequence` counts from 1")]
    NotCounting,
    /// There are more than [`EXTENSIONS_MAX`] extensions.
    #[error("there are more than 32 extension attributes")]
    TooManyExtensions,
    /// A text has a control character in it.
    #[error("`{0}` has a control character in it")]
    ControlCharacter(&'static str),
}

impl Serialize for Envelope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(self, None, serializer)
    }
}

/// The JSON format, section 3; `position`, an extension of ours, says where in the log the event stands.
fn serialize<S: Serializer>(event: &Envelope, position: Option<Position>, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry("specversion", "1.0")?;
    map.serialize_entry("id", &event.id)?;
    map.serialize_entry("source", &event.source)?;
    map.serialize_entry("type", &event.ty)?;
    let optional = [
        ("subject", event.subject.as_deref()),
        ("traceparent", event.traceparent.as_deref()),
        ("causationid", event.causationid.as_ref().map(EventId::as_str)),
        ("owner", event.owner.as_deref()),
        ("scenario", event.scenario.as_deref()),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            map.serialize_entry(name, value)?;
        }
    }
    if let Some(time) = event.time {
        map.serialize_entry("time", &time.to_rfc3339())?;
    }
    // CloudEvents integers have 32 bits; counters that outgrow them travel as text, as the `sequence` extension does.
    if let Some(sequence) = event.sequence {
        map.serialize_entry("sequence", &sequence.to_string())?;
    }
    if let Some(position) = position {
        map.serialize_entry("position", &position.to_string())?;
    }
    for (name, value) in &event.extensions {
        map.serialize_entry(name, value)?;
    }
    if let Some(media_type) = event.datacontenttype() {
        map.serialize_entry("datacontenttype", media_type)?;
    }
    if let Some(data) = &event.data {
        map.serialize_entry("data", data)?;
    }
    map.end()
}

impl<'de> Deserialize<'de> for Envelope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EnvelopeVisitor).map(|(event, _)| event)
    }
}

/// Reads an event, and apart from it the `position` that it came with, if that is one.
struct EnvelopeVisitor;

impl<'de> de::Visitor<'de> for EnvelopeVisitor {
    type Value = (Envelope, Option<Position>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a CloudEvents 1.0 event")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        use de::Error as _;
        let (mut specversion, mut id, mut source, mut ty) = (None::<Text<'_>>, None, None, None);
        let (mut subject, mut time, mut traceparent, mut causationid) = (None, None::<Text<'_>>, None, None);
        let (mut sequence, mut owner, mut scenario, mut media_type, mut data) = (None, None, None, None, None);
        let (mut extensions, mut position) = (BTreeMap::new(), None::<Box<RawValue>>);
        while let Some(Text(name)) = map.next_key()? {
            match &*name {
                "specversion" => specversion = Some(map.next_value()?),
                "id" => id = Some(map.next_value()?),
                "source" => source = Some(map.next_value()?),
                "type" => ty = Some(map.next_value()?),
                "subject" => subject = map.next_value()?,
                "time" => time = map.next_value()?,
                "traceparent" => traceparent = map.next_value()?,
                "causationid" => causationid = map.next_value()?,
                "sequence" => sequence = map.next_value::<Option<Counter>>()?.map(|counter| counter.0),
                "owner" => owner = map.next_value()?,
                "scenario" => scenario = map.next_value()?,
                "data" => data = map.next_value::<Option<Box<RawValue>>>()?,
                "datacontenttype" => {
                    let media = map.next_value::<Option<Text<'_>>>()?;
                    if media.as_ref().is_some_and(|media| !is_json(&media.0)) {
                        return Err(A::Error::custom("`datacontenttype` must be JSON"));
                    }
                    media_type = media.map(|media| media.0.into_owned()).filter(|media| media != PLAIN_JSON);
                }
                "data_base64" => return Err(A::Error::custom("`data_base64` is not taken: data must be JSON")),
                // Ours alone to give: it is no part of an event, and what others say there is nobody's mistake.
                "position" => position = map.next_value()?,
                _ => {
                    if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
                        return Err(A::Error::custom(format!(
                            "attribute `{}` must be named in a-z and 0-9",
                            name.chars().take(64).collect::<String>()
                        )));
                    }
                    let value = map.next_value::<Value>()?;
                    let is_scalar = value.is_string() || value.is_boolean() || value.is_i64();
                    if !is_scalar {
                        return Err(A::Error::custom(format!("attribute `{name}` must be a text, whole number or boolean")));
                    }
                    extensions.insert(name.into_owned(), value);
                }
            }
        }
        match specversion.as_ref().map(|version| &*version.0) {
            Some("1.0") => {}
            Some(_) => return Err(A::Error::custom("`specversion` must be \"1.0\"")),
            None => return Err(A::Error::missing_field("specversion")),
        }
        let time =
            time.map(|text| Timestamp::from_rfc3339(&text.0).ok_or_else(|| A::Error::custom("`time` must be RFC 3339"))).transpose()?;
        let position = position.and_then(|text| serde_json::from_str(text.get()).ok());
        let event = Envelope {
            id: id.ok_or_else(|| A::Error::missing_field("id"))?,
            source: source.ok_or_else(|| A::Error::missing_field("source"))?,
            ty: ty.ok_or_else(|| A::Error::missing_field("type"))?,
            subject,
            time,
            traceparent,
            causationid,
            sequence,
            owner,
            scenario,
            extensions,
            // Of no data it says nothing; in binary mode clients send it all the same.
            media_type: media_type.filter(|_| data.is_some()),
            data,
        };
        Ok((event, position))
    }
}

/// Whether a media type is one of JSON.
pub fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence == "text/json" || essence.ends_with("+json")
}

/// A text that is looked at and let go: it is borrowed where that can be.
struct Text<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> de::Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }
}

/// A counter sent as text, or as a number by clients that know no better.
struct Counter(i64);

impl<'de> Deserialize<'de> for Counter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CounterVisitor)
    }
}

struct CounterVisitor;

impl de::Visitor<'_> for CounterVisitor {
    type Value = Counter;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number, as a text or as it is")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Counter, E> {
        text.parse().map(Counter).map_err(|_| E::custom("`sequence` must be a whole number"))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Counter, E> {
        Ok(Counter(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Counter, E> {
        i64::try_from(number).map(Counter).map_err(|_| E::custom("`sequence` must be a whole number"))
    }
}

/// An event as the log holds it. Cheap to clone and to hand to many readers.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Its place in the log.
    pub position: Position,
    /// The event.
    pub event: Arc<Envelope>,
}

impl Serialize for Recorded {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize(&self.event, Some(self.position), serializer)
    }
}

/// An event that does not say where it stands has the position [`Position::START`], which is nobody's.
impl<'de> Deserialize<'de> for Recorded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (event, position) = deserializer.deserialize_map(EnvelopeVisitor)?;
        Ok(Self { position: position.unwrap_or(Position::START), event: Arc::new(event) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"{"specversion":"1.0","id":"e-1","source":"/order","type":"cascade.OrderCreated.v1","subject":"o-1",
        "time":"2026-01-31T12:00:00.000Z","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","causationid":"e-0",
        "sequence":"3","owner":"guest-1","scenario":"1","region":"north","data":{"b":1,"a":[1, 2]}}"#;

    #[test]
    fn an_event_survives_the_way_through_json() {
        let event: Envelope = serde_json::from_str(FULL).unwrap();
        assert_eq!((event.sequence, event.lane()), (Some(3), "o-1"));
        assert_eq!(event.data.as_ref().unwrap().get(), r#"{"b":1,"a":[1, 2]}"#);
        let again: Envelope = serde_json::from_str(&serde_json::to_string(&event).unwrap()).unwrap();
        assert_eq!(serde_json::to_string(&event).unwrap(), serde_json::to_string(&again).unwrap());
        assert_eq!(again.extensions.get("region"), Some(&Value::from("north")));
    }

    #[test]
    fn the_media_type_of_data_is_kept_as_it_came() {
        let event = |rest: &str| -> Envelope {
            serde_json::from_str(&format!(r#"{{"specversion":"1.0","id":"1","source":"/a","type":"t"{rest}}}"#)).unwrap()
        };
        for (rest, kept) in [
            ("", None),
            (r#","data":1"#, Some("application/json")),
            (r#","datacontenttype":"application/json","data":1"#, Some("application/json")),
            (r#","datacontenttype":"application/vnd.thing+json","data":1"#, Some("application/vnd.thing+json")),
            (r#","data":1,"datacontenttype":"text/json; charset=utf-8""#, Some("text/json; charset=utf-8")),
            (r#","datacontenttype":"text/json""#, None),
        ] {
            let json = serde_json::to_value(event(rest)).unwrap();
            assert_eq!(json.get("datacontenttype").and_then(Value::as_str), kept, "{rest}");
        }
        let long = format!(r#","data":1,"datacontenttype":"application/{}+json""#, "x".repeat(ATTRIBUTE_BYTES_MAX));
        assert_eq!(event(&long).check(), Err(InvalidEnvelope::TooLong("datacontenttype")));
    }

    #[test]
    fn a_recorded_event_says_where_it_stands() {
        let event: Envelope = serde_json::from_str(FULL).unwrap();
        let recorded = Recorded { position: Position(7), event: Arc::new(event) };
        let json = serde_json::to_value(&recorded).unwrap();
        assert_eq!(json.get("position"), Some(&Value::from("7")));
        let again: Recorded = serde_json::from_value(json).unwrap();
        assert_eq!((again.position, &again.event.id), (Position(7), &recorded.event.id));
    }

    #[test]
    fn what_is_no_position_is_nobodys_place_and_no_mistake() {
        for (position, place) in
            [("", 0), (r#","position":"12""#, 12), (r#","position":12"#, 12), (r#","position":null"#, 0), (r#","position":[{"a":1}]"#, 0)]
        {
            let json = format!(r#"{{"specversion":"1.0","id":"1","source":"/a","type":"t"{position}}}"#);
            let recorded: Recorded = serde_json::from_str(&json).unwrap();
            assert_eq!((recorded.position, recorded.event.extensions.len()), (Position(place), 0), "{position}");
            serde_json::from_str::<Envelope>(&json).unwrap();
        }
    }

    #[test]
    fn what_is_no_cloud_event_is_refused() {
        for bad in [
            r#"{"id":"1","source":"/a","type":"t"}"#,
            r#"{"specversion":"0.3","id":"1","source":"/a","type":"t"}"#,
            r#"{"specversion":"1.0","source":"/a","type":"t"}"#,
            r#"{"specversion":"1.0","id":"1","source":"/a","type":"t","time":"noon"}"#,
            r#"{"specversion":"1.0","id":"1","source":"/a","type":"t","Camel":"x"}"#,
            r#"{"specversion":"1.0","id":"1","source":"/a","type":"t","deep":{"a":1}}"#,
            r#"{"specversion":"1.0","id":"1","source":"/a","type":"t","data_base64":"aGk="}"#,
        ] {
            assert!(serde_json::from_str::<Envelope>(bad).is_err(), "{bad}");
        }
        let empty: Envelope = serde_json::from_str(r#"{"specversion":"1.0","id":"","source":"/a","type":"t"}"#).unwrap();
        assert_eq!(empty.check(), Err(InvalidEnvelope::Empty("id")));
    }

    #[test]
    fn a_partition_key_that_is_a_text_is_the_lane() {
        let event = |key: &str| -> Envelope {
            let json = format!(r#"{{"specversion":"1.0","id":"1","source":"/a","type":"t","subject":"s","partitionkey":{key}}}"#);
            serde_json::from_str(&json).unwrap()
        };
        assert_eq!((event(r#""p""#).lane(), event(r#""p""#).check()), ("p", Ok(())));
        for bad in [r#""""#, "7", "true"] {
            assert_eq!(event(bad).check(), Err(InvalidEnvelope::Empty("partitionkey")), "{bad}");
        }
    }
}
