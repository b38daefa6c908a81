//! A token as text: `cascade_<name>_<32 hexadecimal digits><8 check digits>`. Whoever finds one sees what it is, and whose; whoever
//! mistypes one is told so without anybody being asked.

use kit::ids::Ids;

/// What every token begins with: stable, so that scanners find a token that leaked.
pub(crate) const PREFIX: &str = "cascade_";
/// How much chance is in a token, in bytes.
const RANDOM_BYTES: usize = 16;
/// How many digits stand behind the name: two for each byte of chance, and eight to check the rest.
const DIGITS: usize = 2 * RANDOM_BYTES + CHECK_DIGITS;
const CHECK_DIGITS: usize = 8;

/// A new token of the name `name`.
pub(crate) fn make(name: &str, ids: &Ids) -> String {
    let mut random = [0; RANDOM_BYTES];
    ids.fill(&mut random);
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = format!("{PREFIX}{name}_{digits}");
    let check = check_digits(&text);
    text + &check
}

/// The name in a token; none in what is not one, or not whole.
pub(crate) fn name_of(text: &str) -> Option<&str> {
    let (name, digits) = text.strip_prefix(PREFIX)?.rsplit_once('_')?;
    let is_hex = |letter: u8| letter.is_ascii_digit() || (b'a'..=b'f').contains(&letter);
    if name.is_empty() || digits.len() != DIGITS || !digits.bytes().all(is_hex) {
        return None;
    }
    let (checked, check) = text.split_at_checked(text.len() - CHECK_DIGITS)?;
    (check_digits(checked) == check).then_some(name)
}

fn check_digits(text: &str) -> String {
    format!("{:08x}", crc32fast::hash(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_says_whose_it_is_and_no_two_are_the_same() {
        let ids = Ids::seeded(1);
        let (one, other) = (make("loyalty-points", &ids), make("loyalty-points", &ids));
        assert_eq!(name_of(&one), Some("loyalty-points"));
        assert!(one.starts_with("cascade_loyalty-points_") && one != other);
        assert_eq!(one.len(), "cascade_loyalty-points_".len() + 40);
    }

    #[test]
    fn a_known_token_has_the_digits_that_it_always_had() {
        let text = "cascade_a_00000000000000000000000000000000";
        assert_eq!(check_digits(text), "96d139f4");
        assert_eq!(name_of(&format!("{text}96d139f4")), Some("a"));
    }

    proptest! {
        #[test]
        fn a_token_is_whole_or_none(seed: u64, at in 0_usize..60, letter in "[ -~ä]") {
            let token = make("points", &Ids::seeded(seed));
            let at = at % token.len();
            let mut changed = token.clone();
            changed.replace_range(at..=at, &letter);
            prop_assert_eq!(name_of(&changed).is_some(), changed == token);
            prop_assert_eq!(name_of(token.get(..at).unwrap()), None);
            let longer = format!("{token}{letter}");
            prop_assert_eq!(name_of(&longer), None);
        }

        #[test]
        fn any_text_can_be_looked_at(text in "(cascade_)?\\PC{0,20}(_)?([0-9a-f]{0,48})\\PC{0,2}") {
            prop_assert_eq!(name_of(&text), None);
        }
    }
}
