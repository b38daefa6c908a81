//! Reads filters, within their limits: depth, number, names and texts.

use std::collections::BTreeMap;

use kit::envelope::ATTRIBUTE_BYTES_MAX;
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Map, Value};

use super::{CLAUSES_MAX, DEPTH_MAX, Filter};

/// The longest name of an attribute, in bytes.
pub(super) const NAME_BYTES_MAX: usize = 64;

/// Why something is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {reason}")]
pub struct InvalidFilter {
    /// Where it stands, as a JSON pointer.
    pub field: String,
    /// What must stand there.
    pub reason: &'static str,
}

/// Reads the array of filters that stands at `field`.
///
/// # Errors
/// The first place at which something is no filter, or beyond a limit.
pub fn parse(json: &Value, field: &str) -> Result<Vec<Filter>, InvalidFilter> {
    let mut parser = Parser { clauses: 0 };
    let filters = json.as_array().ok_or_else(|| invalid(field, "must be an array of filters"))?;
    filters.iter().enumerate().map(|(index, filter)| parser.filter(filter, &format!("{field}/{index}"), 1)).collect()
}

/// Reads filters that were stored.
pub(super) fn stored<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Filter>, D::Error> {
    parse(&Value::deserialize(deserializer)?, "/filters").map_err(D::Error::custom)
}

struct Parser {
    clauses: usize,
}

impl Parser {
    fn filter(&mut self, json: &Value, field: &str, depth: usize) -> Result<Filter, InvalidFilter> {
        if depth > DEPTH_MAX {
            return Err(invalid(field, "nests deeper than 8 filters"));
        }
        self.count(field)?;
        let one = json.as_object().filter(|object| object.len() == 1).and_then(|object| object.iter().next());
        let Some((dialect, body)) = one else {
            return Err(invalid(field, "must be an object with one of exact, prefix, suffix, all, any, not"));
        };
        let place = format!("{field}/{dialect}");
        match dialect.as_str() {
            "exact" => Ok(Filter::Exact(self.texts(body, &place)?)),
            "prefix" => Ok(Filter::Prefix(self.texts(body, &place)?)),
            "suffix" => Ok(Filter::Suffix(self.texts(body, &place)?)),
            "all" => Ok(Filter::All(self.filters(body, &place, depth)?)),
            "any" => Ok(Filter::Any(self.filters(body, &place, depth)?)),
            "not" => Ok(Filter::Not(Box::new(self.filter(body, &place, depth + 1)?))),
            _ => Err(invalid(field, "must be an object with one of exact, prefix, suffix, all, any, not")),
        }
    }

    fn filters(&mut self, json: &Value, field: &str, depth: usize) -> Result<Vec<Filter>, InvalidFilter> {
        let filters = json.as_array().filter(|filters| !filters.is_empty());
        let filters = filters.ok_or_else(|| invalid(field, "must be an array of at least one filter"))?;
        filters.iter().enumerate().map(|(index, filter)| self.filter(filter, &format!("{field}/{index}"), depth + 1)).collect()
    }

    fn texts(&mut self, json: &Value, field: &str) -> Result<BTreeMap<String, String>, InvalidFilter> {
        let texts: Option<&Map<String, Value>> = json.as_object().filter(|texts| !texts.is_empty());
        let texts = texts.ok_or_else(|| invalid(field, "must be an object of at least one attribute and its text"))?;
        let mut read = BTreeMap::new();
        for (name, text) in texts {
            self.count(field)?;
            let is_name =
                (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
            if !is_name {
                return Err(invalid(field, "must name attributes in 1 to 64 of a-z and 0-9"));
            }
            let is_text = |text: &&str| (1..=ATTRIBUTE_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control);
            let Some(text) = text.as_str().filter(is_text) else {
                return Err(invalid(&format!("{field}/{name}"), "must be a text of 1 to 1024 bytes without control characters"));
            };
            read.insert(name.clone(), text.to_owned());
        }
        Ok(read)
    }

    fn count(&mut self, field: &str) -> Result<(), InvalidFilter> {
        self.clauses += 1;
        if self.clauses > CLAUSES_MAX { Err(invalid(field, "is one of more than 64 filters and attributes")) } else { Ok(()) }
    }
}

fn invalid(field: &str, reason: &'static str) -> InvalidFilter {
    InvalidFilter { field: field.to_owned(), reason }
}
