//! An event on its way into a log: checked, written as text, weighed.

use std::sync::Arc;

use kit::{Envelope, envelope::EVENT_BYTES_MAX};

use super::Refusal;

/// An event that a log may take.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The event.
    pub(crate) event: Arc<Envelope>,
    /// The same as JSON: what is kept.
    pub(crate) json: String,
    /// The CRC-32 of that.
    pub(crate) checksum: u32,
    /// See [`weigh`].
    pub(crate) weight: usize,
    /// About how many bytes it takes on a disk, what leads to it included. Stored, as a sum.
    pub(crate) disk_bytes: i64,
}

impl Entry {
    /// Checks an event and writes it as text.
    pub(crate) fn new(event: Envelope) -> Result<Self, Refusal> {
        event.check().map_err(Refusal::Invalid)?;
        let too_large = || Refusal::TooLarge { id: event.id.to_string() };
        let weight = weigh(&event);
        // It is about as long as it is heavy.
        let mut json = Vec::with_capacity(weight);
        serde_json::to_writer(&mut json, &event).map_err(|_| too_large())?;
        let json = String::from_utf8(json).map_err(|_| too_large())?;
        if json.len() > EVENT_BYTES_MAX {
            return Err(too_large());
        }
        // Here, since whoever publishes has more time than the one that writes.
        let (checksum, disk_bytes) = (crc32fast::hash(json.as_bytes()), disk_bytes(&event, json.len()));
        Ok(Self { event: Arc::new(event), json, checksum, weight, disk_bytes })
    }

    /// The entries for `events`, up to the first one that is refused.
    pub(crate) fn all(events: Vec<Envelope>) -> (Vec<Self>, Option<Refusal>) {
        let mut entries = Vec::with_capacity(events.len());
        for event in events {
            match Self::new(event) {
                Ok(entry) => entries.push(entry),
                Err(refusal) => return (entries, Some(refusal)),
            }
        }
        (entries, None)
    }

    /// Whether `json`, kept under the same name, says the same: white space and the order of members in its data do not count.
    pub(crate) fn says(&self, json: &str) -> bool {
        let parse = |json: &str| serde_json::from_str::<serde_json::Value>(json).ok();
        self.json == json || parse(json).is_some_and(|one| Some(one) == parse(&self.json))
    }

    /// Why it is refused when it does not say the same.
    pub(crate) fn contradiction(&self) -> Refusal {
        Refusal::OtherContent { source_name: self.event.source.clone(), id: self.event.id.to_string() }
    }
}

/// See [`Entry::disk_bytes`]; `json_bytes` is how long its text is.
pub(crate) fn disk_bytes(event: &Envelope, json_bytes: usize) -> i64 {
    let names = event.source.len() + event.id.as_str().len() + event.lane().len() + event.owner.as_ref().map_or(0, String::len);
    i64::try_from(json_bytes + 2 * names + 64).unwrap_or(i64::MAX)
}

/// About how much memory an event takes, in bytes.
pub(crate) fn weigh(event: &Envelope) -> usize {
    let texts = [Some(&event.source), Some(&event.ty), event.subject.as_ref(), event.traceparent.as_ref(), event.owner.as_ref()];
    let texts: usize = texts.into_iter().flatten().map(String::len).sum();
    400 + texts + 64 * event.extensions.len() + event.data.as_ref().map_or(0, |data| data.get().len())
}
