//! Where a stream begins: behind what its reader has seen, if the log still has what comes after that.

use http::HeaderMap;
use kit::{Position, Problem};

use super::view::View;
use crate::engine::Bounds;

/// Where a stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    /// It shows what comes after this.
    pub(super) after: Position,
    /// What was asked for instead, when that cannot be had.
    pub(super) reset: Option<Reset>,
}

/// A cursor that this log cannot go on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reset {
    /// Why.
    pub(super) reason: Gone,
    /// The cursor.
    pub(super) asked: Position,
}

/// Why a cursor is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Gone {
    /// What came after it is no longer kept.
    Trimmed,
    /// The log has never reached it: it belongs to another one.
    Unknown,
}

/// The cursor of a request. What a browser says when it comes back counts more than the address that it was given first.
///
/// # Errors
/// A problem that names the field, when it is not a position.
pub(super) fn asked(headers: &HeaderMap, after: Option<&str>) -> Result<Option<Position>, Problem> {
    let last_event_id = headers.get("last-event-id").map(|value| value.to_str().unwrap_or("not a text"));
    match (last_event_id.filter(|id| !id.is_empty()), after) {
        (Some(id), _) => position("last-event-id", id).map(Some),
        (None, Some(after)) => position("after", after).map(Some),
        (None, None) => Ok(None),
    }
}

fn position(field: &'static str, text: &str) -> Result<Position, Problem> {
    let number = text.parse().ok().filter(|number: &i64| *number >= 0);
    number.map(Position).ok_or_else(|| {
        let code = if field == "after" { "invalid_query" } else { "invalid_cursor" };
        Problem::bad_request(code, format!("`{field}` must be a position: a whole number from 0")).field(field)
    })
}

impl Start {
    /// Where a stream of `view` begins in a log with these `bounds`.
    pub(super) fn choose(asked: Option<Position>, view: &View, bounds: Bounds) -> Self {
        // Everything up to here is gone.
        let floor = Position(bounds.first.0 - 1);
        let fresh = view.fresh_start(bounds.last).max(floor);
        match asked {
            None => Self { after: fresh, reset: None },
            Some(asked) if asked > bounds.last => Self { after: fresh, reset: Some(Reset { reason: Gone::Unknown, asked }) },
            // Whoever has seen nothing has lost nothing.
            Some(Position::START) => Self { after: floor, reset: None },
            Some(asked) if asked < floor => Self { after: floor, reset: Some(Reset { reason: Gone::Trimmed, asked }) },
            Some(asked) => Self { after: asked, reset: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(asked: Option<i64>, view: &View, first: i64, last: i64) -> (i64, Option<Gone>) {
        let start = Start::choose(asked.map(Position), view, Bounds { first: Position(first), last: Position(last), bytes: 0 });
        (start.after.0, start.reset.map(|reset| reset.reason))
    }

    #[test]
    fn a_stream_begins_behind_its_cursor_unless_the_log_has_lost_what_comes_after_it() {
        let (all, one) = (View::All, View::Subject { subject: "o-1".into(), only_of: None });
        for view in [&all, &one] {
            assert_eq!(start(Some(7), view, 1, 9), (7, None));
            assert_eq!(start(Some(9), view, 1, 9), (9, None), "at the end");
            assert_eq!(start(Some(0), view, 1, 9), (0, None), "from the beginning");
            assert_eq!(start(Some(4), view, 5, 9), (4, None), "the first event that is kept comes next");
            assert_eq!(start(Some(3), view, 5, 9), (4, Some(Gone::Trimmed)));
            assert_eq!(start(Some(0), view, 5, 9), (4, None), "who has seen nothing has lost nothing");
            assert_eq!(start(Some(0), view, 1, 0), (0, None), "an empty log");
            assert_eq!(start(Some(9), view, 10, 9), (9, None), "all of it is gone, and was seen");
            assert_eq!(start(Some(8), view, 10, 9), (9, Some(Gone::Trimmed)));
        }
    }

    #[test]
    fn without_a_cursor_of_this_log_a_subject_begins_at_its_first_event_and_all_else_now() {
        let (all, one) = (View::All, View::Subject { subject: "o-1".into(), only_of: None });
        let own = View::Own { owner: "ann".into() };
        assert_eq!([&all, &own, &one].map(|view| start(None, view, 5, 9)), [(9, None), (9, None), (4, None)]);
        let unknown = Some(Gone::Unknown);
        assert_eq!([&all, &own, &one].map(|view| start(Some(10), view, 5, 9)), [(9, unknown), (9, unknown), (4, unknown)]);
        assert_eq!(start(Some(1), &one, 1, 0), (0, unknown));
    }

    #[test]
    fn a_cursor_that_is_no_position_is_refused_by_its_name() {
        let with = |id: &[u8]| HeaderMap::from_iter([("last-event-id".parse().unwrap(), http::HeaderValue::from_bytes(id).unwrap())]);
        assert_eq!(asked(&with(b"7"), Some("3")).unwrap(), Some(Position(7)), "what the browser says when it comes back counts");
        assert_eq!(asked(&with(b""), Some("3")).unwrap(), Some(Position(3)), "an empty one is none");
        assert_eq!(asked(&HeaderMap::new(), None).unwrap(), None);
        for bad in ["x", "-1", "1.5", "9223372036854775808", "", " 1", "0x10", "१"] {
            let problem = asked(&HeaderMap::new(), Some(bad)).unwrap_err();
            assert_eq!((problem.status.as_u16(), problem.code, problem.field.as_deref()), (400, "invalid_query", Some("after")), "{bad}");
        }
        for bad in [&b"x"[..], b"-1", b"\xff\xfe", b"1,2"] {
            let problem = asked(&with(bad), Some("3")).unwrap_err();
            let expected = (400, "invalid_cursor", Some("last-event-id"));
            assert_eq!((problem.status.as_u16(), problem.code, problem.field.as_deref()), expected, "{bad:?}");
        }
    }
}
