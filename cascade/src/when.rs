//! Times as people read them: by the clock on their wall, and how long ago that was.

use jiff::tz::TimeZone;
use kit::Timestamp;
use serde::Deserialize;

/// A time as the shop writes it: RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Time(pub(crate) Timestamp);

impl TryFrom<String> for Time {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Timestamp::from_rfc3339(&text).map(Self).ok_or_else(|| String::from("a time must be RFC 3339"))
    }
}

/// Tells times to somebody who is somewhere, now.
#[derive(Debug, Clone)]
pub(crate) struct When {
    now: Timestamp,
    zone: TimeZone,
}

impl When {
    /// Of somebody at this machine.
    pub(crate) fn here(now: Timestamp) -> Self {
        // A machine that does not say where it is, as in a container, is in Greenwich.
        Self { now, zone: TimeZone::try_system().unwrap_or(TimeZone::UTC) }
    }

    /// Of somebody in Greenwich.
    #[cfg(test)]
    pub(crate) fn utc(now: Timestamp) -> Self {
        Self { now, zone: TimeZone::UTC }
    }

    /// `2026-01-31 12:00:00 UTC, 3 min ago`.
    pub(crate) fn full(&self, time: Timestamp) -> String {
        format!("{}, {}", self.moment(time), self.distance(time))
    }

    /// `2026-01-31 12:00:00 UTC`.
    pub(crate) fn moment(&self, time: Timestamp) -> String {
        self.write(time, "%Y-%m-%d %H:%M:%S %Z")
    }

    /// `Sat 2026-01-31 UTC`.
    pub(crate) fn day(&self, time: Timestamp) -> String {
        self.write(time, "%a %Y-%m-%d %Z")
    }

    /// `12:00:00`.
    pub(crate) fn time_of_day(&self, time: Timestamp) -> String {
        self.write(time, "%H:%M:%S")
    }

    /// `3 min ago`, `in 12 s`, `just now`.
    pub(crate) fn distance(&self, time: Timestamp) -> String {
        let (past, ahead) = (self.now.since(time).as_secs(), time.since(self.now).as_millis().div_ceil(1_000));
        match (past, u64::try_from(ahead).unwrap_or(u64::MAX)) {
            (0, 0) => String::from("just now"),
            (0, ahead) => format!("in {}", span(ahead)),
            (past, _) => format!("{} ago", span(past)),
        }
    }

    /// When something comes that is due at `time`: `in 12 s`, or `now`, also if it should have been there already.
    pub(crate) fn due(&self, time: Timestamp) -> String {
        if time > self.now { self.distance(time) } else { String::from("now") }
    }

    fn write(&self, time: Timestamp, format: &str) -> String {
        // What no calendar has is written as the shop does.
        let Ok(instant) = jiff::Timestamp::from_millisecond(time.as_ms()) else { return time.to_rfc3339() };
        instant.to_zoned_datetime(self.zone.clone()).strftime(format).to_string()
    }
}

/// A length of time in its two largest units: `12 s`, `3 min 5 s`, `2 h`, `4 d 6 h`.
pub(crate) fn span(seconds: u64) -> String {
    let two = |large: u64, large_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large} {large_unit}"),
        small => format!("{large} {large_unit} {small} {small_unit}"),
    };
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => two(seconds / 60, "min", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds / 60 % 60, "min"),
        _ => two(seconds / 86_400, "d", seconds / 3_600 % 24, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_by_the_wall_clock_and_by_how_long_ago_it_was() {
        let time = Timestamp::from_rfc3339("2026-01-31T12:00:00.400Z").unwrap();
        let utc = |later_ms: u64| When::utc(time.plus_ms(later_ms));
        assert_eq!(utc(185_000).full(time), "2026-01-31 12:00:00 UTC, 3 min 5 s ago");
        let berlin = When { now: time, zone: TimeZone::fixed(jiff::tz::offset(1)) };
        assert_eq!((berlin.time_of_day(time).as_str(), berlin.distance(time).as_str()), ("13:00:00", "just now"));
        assert_eq!(berlin.distance(time.plus_ms(11_200)), "in 12 s");
        assert_eq!((berlin.due(time.plus_ms(11_200)), utc(5_000).due(time)), ("in 12 s".into(), "now".into()));
        assert_eq!(utc(0).day(time), "Sat 2026-01-31 UTC");
    }

    #[test]
    fn a_length_of_time_has_its_two_largest_units() {
        for (seconds, expected) in
            [(0, "0 s"), (59, "59 s"), (60, "1 min"), (61, "1 min 1 s"), (7_260, "2 h 1 min"), (86_400, "1 d"), (360_000, "4 d 4 h")]
        {
            assert_eq!(span(seconds), expected);
        }
    }
}
