//! The fuzz targets' bodies, over the seeds that they start from and what is made of those: so that neither rots.

use std::{collections::BTreeSet, path::Path};

use proptest::{prelude::*, sample::Index};

use super::{cursor, event, filter, signature, token};

const SEEDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds");
/// What a target does with bytes.
type Body = fn(&[u8]);
const TARGETS: [(&str, Body); 5] = [("event", event), ("filter", filter), ("cursor", cursor), ("signature", signature), ("token", token)];

/// Pieces that mean something to one of them.
const PIECES: &[&str] = &[
    "\n",
    "\"",
    "\\",
    "\\u0000",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "null",
    "true",
    "-1",
    "1e400",
    "9223372036854775808",
    "%",
    "%C3%A9",
    "é",
    "\u{7f}",
    "",
    "ce-id: 1\n",
    "ce-data: x\n",
    "content-type: application/json\n",
    "\"specversion\":\"1.0\",",
    "\"data\":",
    "\"sequence\":\"1\",",
    "v1,",
    "v1, v1,=",
    "=",
    " ",
    "cascade_",
    "_",
    "00000000",
    "{\"not\":",
    "{\"all\":[",
    "{\"exact\":{\"type\":\"a\"}}",
];

/// The seeds of a target.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = std::fs::read_dir(Path::new(SEEDS).join(target)).unwrap();
    let files: BTreeSet<_> = folder.map(|entry| entry.unwrap().path()).collect();
    files.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// A change to bytes: so many are taken out somewhere, and a piece is put in.
fn changes() -> impl Strategy<Value = Vec<(Index, usize, Vec<u8>)>> {
    let piece = prop_oneof![
        prop::sample::select(PIECES).prop_map(|piece| piece.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..4),
        (prop::sample::select(PIECES), 1..2_000_usize).prop_map(|(piece, times)| piece.repeat(times).into_bytes()),
    ];
    prop::collection::vec((any::<Index>(), prop_oneof![Just(0), 0..4_usize, 0..200_usize], piece), 0..4)
}

fn change(mut bytes: Vec<u8>, changes: Vec<(Index, usize, Vec<u8>)>) -> Vec<u8> {
    for (place, length, piece) in changes {
        let begin = place.index(bytes.len() + 1);
        let end = (begin + length).min(bytes.len());
        bytes.splice(begin..end, piece);
    }
    bytes
}

#[test]
fn every_seed_keeps_the_promises_and_each_target_has_some() {
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        assert!(seeds.len() >= 3, "{name}");
        seeds.iter().for_each(|seed| target(seed));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_comes_keeps_the_promises(which: Index, seed: Index, changes in changes()) {
        let (name, target) = which.get(&TARGETS);
        let seeds = seeds(name);
        target(&change(seed.get(&seeds).clone(), changes));
    }

    #[test]
    fn noise_keeps_the_promises(which: Index, noise in prop::collection::vec(any::<u8>(), 0..400)) {
        which.get(&TARGETS).1(&noise);
    }
}
