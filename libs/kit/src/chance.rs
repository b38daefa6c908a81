//! Chance as a pure function, and how fast the simulated parts go. For simulated providers only: a domain rolls no dice.

use std::str::FromStr;

use sha2::{Digest, Sha256};

/// Dice that fall the same way every time they are asked the same question: a retry never rolls again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chance {
    seed: u64,
}

impl Chance {
    /// Dice that follow from `seed`.
    pub const fn seeded(seed: u64) -> Self {
        Self { seed }
    }

    /// Whether something that happens in `percent` of all cases happens in the case that `question` describes.
    pub fn happens(&self, percent: u32, question: &[&str]) -> bool {
        self.up_to(99, question) < u64::from(percent)
    }

    /// A whole number from 0 to `max`, both included, for the case that `question` describes.
    pub fn up_to(&self, max: u64, question: &[&str]) -> u64 {
        let mut hash = Sha256::new();
        hash.update(self.seed.to_le_bytes());
        for part in question {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            hash.update(part.as_bytes());
        }
        let digest = hash.finalize();
        let mut roll = [0; 8];
        for (to, from) in roll.iter_mut().zip(digest.iter()) {
            *to = *from;
        }
        let roll = u64::from_le_bytes(roll);
        max.checked_add(1).map_or(roll, |count| roll % count)
    }
}

/// How fast the simulated parts go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pace {
    /// As fast as the machine can.
    Instant,
    /// As a person likes to watch it.
    #[default]
    Demo,
    /// Three times slower: to explain while it happens.
    Slow,
}

impl Pace {
    /// How long something takes that takes `demo_ms` in the demo: nothing, that, or three times that.
    pub const fn takes_ms(self, demo_ms: u64) -> u64 {
        match self {
            Self::Instant => 0,
            Self::Demo => demo_ms,
            Self::Slow => demo_ms.saturating_mul(3),
        }
    }

    /// A deadline that is `demo_ms` in the demo. It never shrinks to nothing.
    pub const fn deadline_ms(self, demo_ms: u64) -> u64 {
        match self {
            Self::Instant | Self::Demo => demo_ms,
            Self::Slow => demo_ms.saturating_mul(3),
        }
    }
}

impl FromStr for Pace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "instant" => Ok(Self::Instant),
            "demo" => Ok(Self::Demo),
            "slow" => Ok(Self::Slow),
            _ => Err(String::from("pace is `instant`, `demo` or `slow`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_question_gets_the_same_answer_and_all_questions_together_the_odds() {
        let chance = Chance::seeded(1);
        let times = (0..10_000).filter(|n| chance.happens(80, &["order", &n.to_string()])).count();
        assert!((7_800..8_200).contains(&times), "{times}");
        assert_eq!(chance.up_to(1_000, &["a", "b"]), chance.up_to(1_000, &["a", "b"]));
        assert_ne!(chance.up_to(u64::MAX, &["ab"]), chance.up_to(u64::MAX, &["a", "b"]));
        assert!(chance.happens(100, &["x"]) && !chance.happens(0, &["x"]));
    }
}
