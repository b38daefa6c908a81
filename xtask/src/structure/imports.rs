//! Who may depend on whom: the one table of it.

use std::path::Path;

use cargo_metadata::{DependencyKind, Metadata};

use super::{Violation, relative};

/// What each crate of the house may stand on, of the house. A crate that is missing here has no place yet.
const STANDS_ON: &[(&str, &[&str])] = &[
    ("kit", &[]),
    ("contract", &[]),
    ("testkit", &["contract", "kit"]),
    ("broker", &["kit"]),
    ("order", &["contract", "kit"]),
    ("payment", &["contract", "kit"]),
    ("delivery", &["contract", "kit"]),
    ("storefront", &["contract", "kit"]),
    ("cascade", &["broker", "contract", "delivery", "kit", "order", "payment", "storefront"]),
    ("sim", &["broker", "contract", "delivery", "kit", "order", "payment", "storefront"]),
    ("xtask", &[]),
];

/// The crates of the house whose tests may not use `testkit`: it tests services and how they run, no plain data.
const NOT_TESTED_BY_TESTKIT: &[&str] = &["contract", "testkit", "xtask"];

/// What `contract` must not know: it is plain data, for whoever speaks with the shop.
const UNKNOWN_TO_CONTRACT: &[&str] =
    &["axum", "futures-util", "http", "hyper", "hyper-util", "rand", "rusqlite", "tokio", "tokio-util", "tower", "tracing"];

/// Crates for tests, and the crates of the house that are made of tests.
const FOR_TESTS: &[&str] = &["cargo_metadata", "fantoccini", "insta", "proptest", "tempfile", "tokio-tungstenite", "turmoil"];
const MADE_OF_TESTS: &[&str] = &["sim", "testkit", "xtask"];

/// The kit's feature with the simulation's faults.
const PLANTED_BUGS: &str = "planted-bugs";

/// A crate of the house and what it depends on.
#[derive(Debug)]
pub(super) struct Member {
    name: String,
    manifest: String,
    dependencies: Vec<Dependency>,
    /// What its features turn on.
    features: Vec<String>,
}

#[derive(Debug)]
struct Dependency {
    name: String,
    is_for_tests: bool,
    features: Vec<String>,
}

/// The crates of the house, from what cargo says.
pub(super) fn read(metadata: &Metadata, root: &Path) -> Vec<Member> {
    let members = metadata.workspace_packages().into_iter().map(|package| Member {
        name: package.name.to_string(),
        manifest: relative(root, package.manifest_path.as_std_path()),
        dependencies: package
            .dependencies
            .iter()
            .map(|dependency| Dependency {
                name: dependency.name.clone(),
                is_for_tests: dependency.kind == DependencyKind::Development,
                features: dependency.features.clone(),
            })
            .collect(),
        features: package.features.values().flatten().cloned().collect(),
    });
    members.collect()
}

/// Checks every crate of the house against the table.
pub(super) fn check(members: &[Member]) -> Vec<Violation> {
    members.iter().flat_map(check_member).collect()
}

fn check_member(member: &Member) -> Vec<Violation> {
    let name = member.name.as_str();
    let violation = |rule, advice| Violation { path: member.manifest.clone(), line: 1, rule, advice };
    let Some((_, stands_on)) = STANDS_ON.iter().find(|(known, _)| *known == name) else {
        return vec![violation(
            "imports",
            format!("`{name}` has no place in the house: say in xtask/src/structure/imports.rs what it may stand on"),
        )];
    };
    let mut violations = Vec::new();
    for Dependency { name: other, is_for_tests, features } in &member.dependencies {
        let other = other.as_str();
        let is_ours = STANDS_ON.iter().any(|(known, _)| *known == other);
        let is_testkit_for_tests = other == "testkit" && *is_for_tests && !NOT_TESTED_BY_TESTKIT.contains(&name);
        if is_ours && !stands_on.contains(&other) && !is_testkit_for_tests {
            violations.push(violation("imports", advise_against(name, other, stands_on)));
        }
        if name == "contract" && !is_for_tests && UNKNOWN_TO_CONTRACT.contains(&other) {
            let advice = format!("`contract` does no IO and must not know `{other}`: what needs it belongs in the kit or a service");
            violations.push(violation("imports", advice));
        }
        if FOR_TESTS.contains(&other) && !is_for_tests && !MADE_OF_TESTS.contains(&name) {
            let advice = format!("`{other}` is for tests: move it to [dev-dependencies]");
            violations.push(violation("test-dependencies", advice));
        }
        if features.iter().any(|feature| feature == PLANTED_BUGS) && name != "sim" {
            let advice = format!("`{name}` turns `{PLANTED_BUGS}` on, which only `sim` may: take the feature out");
            violations.push(violation("planted-bugs", advice));
        }
    }
    let forwards = |feature: &String| feature.rsplit('/').next() == Some(PLANTED_BUGS) && feature.contains('/');
    if name != "sim" && member.features.iter().any(forwards) {
        let advice = format!("a feature of `{name}` turns `{PLANTED_BUGS}` on, which only `sim` may: take it out");
        violations.push(violation("planted-bugs", advice));
    }
    violations
}

fn advise_against(name: &str, other: &str, stands_on: &[&str]) -> String {
    let allowed = match stands_on {
        [] => String::from("none of the house"),
        _ => stands_on.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
    };
    let instead = match other {
        "testkit" => "testkit is a dev-dependency, of services and the kit",
        "order" | "payment" | "delivery" | "storefront" | "broker" => "services affect one another only through events",
        _ => "move what both need to the crate that both may know",
    };
    format!("`{name}` must not depend on `{other}` (it may on {allowed}): {instead}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, dependencies: &[(&str, bool)]) -> Member {
        let dependencies = dependencies.iter().map(|(name, is_for_tests)| Dependency {
            name: (*name).to_owned(),
            is_for_tests: *is_for_tests,
            features: Vec::new(),
        });
        Member { name: name.to_owned(), manifest: format!("{name}/Cargo.toml"), dependencies: dependencies.collect(), features: Vec::new() }
    }

    fn broken(member: Member) -> Vec<&'static str> {
        check(&[member]).into_iter().map(|violation| violation.rule).collect()
    }

    #[test]
    fn kit_and_contract_do_not_know_each_other() {
        assert_eq!(broken(member("kit", &[("contract", false)])), ["imports"]);
        assert_eq!(broken(member("contract", &[("kit", true)])), ["imports"]);
        assert!(broken(member("kit", &[("tokio", false), ("proptest", true)])).is_empty());
    }

    #[test]
    fn a_service_does_not_know_another_and_the_broker_knows_no_shop() {
        assert_eq!(broken(member("order", &[("kit", false), ("payment", false)])), ["imports"]);
        assert_eq!(broken(member("order", &[("delivery", true)])), ["imports"]);
        assert_eq!(broken(member("broker", &[("kit", false), ("contract", false)])), ["imports"]);
        assert!(broken(member("payment", &[("kit", false), ("contract", false), ("testkit", true)])).is_empty());
    }

    #[test]
    fn only_the_binary_and_the_simulation_name_all_services() {
        let all = [("order", false), ("payment", false), ("delivery", false), ("broker", false), ("storefront", false), ("kit", false)];
        assert!(broken(member("cascade", &all)).is_empty());
        assert!(broken(member("sim", &all)).is_empty());
        assert_eq!(broken(member("testkit", &all)).len(), 5);
    }

    #[test]
    fn testkit_and_what_is_for_tests_stay_out_of_the_shop() {
        assert_eq!(broken(member("order", &[("testkit", false)])), ["imports"]);
        assert_eq!(broken(member("order", &[("tempfile", false)])), ["test-dependencies"]);
        assert!(broken(member("order", &[("tempfile", true)])).is_empty());
        assert!(broken(member("testkit", &[("tempfile", false)])).is_empty());
    }

    #[test]
    fn contract_is_plain_data() {
        assert_eq!(broken(member("contract", &[("tokio", false)])), ["imports"]);
        assert!(broken(member("contract", &[("serde", false), ("jiff", false)])).is_empty());
    }

    #[test]
    fn a_crate_without_a_place_is_noticed() {
        assert_eq!(broken(member("helpers", &[])), ["imports"]);
    }

    #[test]
    fn only_the_simulation_plants_bugs() {
        let with_bugs = |name: &str| {
            let mut member = member(name, &[("kit", false)]);
            member.dependencies.iter_mut().for_each(|dependency| dependency.features.push(PLANTED_BUGS.to_owned()));
            member
        };
        assert_eq!(broken(with_bugs("cascade")), ["planted-bugs"]);
        assert!(broken(with_bugs("sim")).is_empty());
        let mut forwarding = member("order", &[("kit", false)]);
        forwarding.features.push("kit/planted-bugs".into());
        assert_eq!(broken(forwarding), ["planted-bugs"]);
        let mut kit = member("kit", &[]);
        kit.features.push("planted-bugs".into());
        assert!(broken(kit).is_empty());
    }
}
