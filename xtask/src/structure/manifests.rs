//! What a `Cargo.toml` may say: versions live in the workspace, and nothing is left over, there or in a crate.
//!
//! Reads the few forms of TOML that our manifests have: tables, and one dependency a line.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::Context;

use super::{Violation, relative};

/// A `Cargo.toml`, as far as its dependencies go.
#[derive(Debug)]
pub(super) struct Manifest {
    path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, PartialEq, Eq)]
struct Dependency {
    line: usize,
    name: String,
    is_from_workspace: bool,
}

impl Manifest {
    /// Reads the manifest `path` whose content is `text`.
    fn new(path: &str, text: &str) -> Self {
        let mut dependencies: Vec<Dependency> = Vec::new();
        let mut table = Table::Other;
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
                table = Table::read(header);
                if let Table::Dependency(name) = &table {
                    dependencies.push(Dependency { line: index + 1, name: name.clone(), is_from_workspace: false });
                }
                continue;
            }
            let Some((key, value)) = line.split_once('=') else { continue };
            let (key, value) = (key.trim(), value.trim());
            if key.starts_with('#') {
                continue;
            }
            match &table {
                Table::Dependencies => {
                    let name = key.split('.').next().unwrap_or(key).trim_matches('"').to_owned();
                    let is_from_workspace = key.ends_with(".workspace") || value.replace(' ', "").contains("workspace=true");
                    dependencies.push(Dependency { line: index + 1, name, is_from_workspace });
                }
                Table::Dependency(_) if key == "workspace" => {
                    if let Some(last) = dependencies.last_mut() {
                        last.is_from_workspace = value.starts_with("true");
                    }
                }
                Table::Dependency(_) | Table::Other => {}
            }
        }
        Self { path: path.to_owned(), dependencies }
    }

    /// The folder of the crate, from the root.
    pub(super) fn folder(&self) -> &str {
        self.path.trim_end_matches("Cargo.toml")
    }

    /// The names of the dependencies, as Rust code spells them.
    pub(super) fn crate_names(&self) -> impl Iterator<Item = String> {
        self.dependencies.iter().map(|dependency| dependency.name.replace('-', "_"))
    }
}

/// What the lines below a header are.
enum Table {
    /// Dependencies, one a line.
    Dependencies,
    /// One dependency, its settings line by line.
    Dependency(String),
    /// Something else.
    Other,
}

impl Table {
    fn read(header: &str) -> Self {
        let is_table = |part: &str| matches!(part, "dependencies" | "dev-dependencies" | "build-dependencies");
        match header.rsplit_once('.') {
            None if is_table(header) => Self::Dependencies,
            Some((_, last)) if is_table(last) => Self::Dependencies,
            Some((before, last)) if is_table(before.rsplit('.').next().unwrap_or(before)) => Self::Dependency(last.to_owned()),
            _ => Self::Other,
        }
    }
}

/// Reads the manifest `path`.
///
/// # Errors
/// When it cannot be read.
pub(super) fn read(root: &Path, path: &Path) -> anyhow::Result<Manifest> {
    let text = fs::read_to_string(path).with_context(|| format!("`{}` cannot be read", path.display()))?;
    Ok(Manifest::new(&relative(root, path), &text))
}

/// Checks that members take every dependency from the workspace, and that the workspace has none that no member takes.
pub(super) fn check(workspace: &Manifest, members: &[Manifest]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for member in members {
        for Dependency { line, name, is_from_workspace } in &member.dependencies {
            if !is_from_workspace {
                violations.push(Violation {
                    path: member.path.clone(),
                    line: *line,
                    rule: "workspace-dependencies",
                    advice: format!("`{name}` has a version of its own: write `{name}.workspace = true`, and the version in the root"),
                });
            }
        }
    }
    let taken = |name: &str| members.iter().flat_map(|member| &member.dependencies).any(|dependency| dependency.name == name);
    for Dependency { line, name, .. } in &workspace.dependencies {
        if !taken(name) {
            violations.push(Violation {
                path: workspace.path.clone(),
                line: *line,
                rule: "workspace-dependencies",
                advice: format!("no crate takes `{name}`: delete the line"),
            });
        }
    }
    violations
}

/// Checks that the code of a crate, whose words are `words`, names each of its dependencies.
pub(super) fn check_use(member: &Manifest, words: &BTreeSet<&str>) -> Vec<Violation> {
    let left_over = member.dependencies.iter().filter(|dependency| !words.contains(dependency.name.replace('-', "_").as_str()));
    left_over
        .map(|Dependency { line, name, .. }| Violation {
            path: member.path.clone(),
            line: *line,
            rule: "unused-dependency",
            advice: format!("no code of this crate names `{name}`: delete the line"),
        })
        .collect()
}

/// A manifest for other modules' tests.
#[cfg(test)]
pub(super) fn tests_only(text: &str) -> Manifest {
    Manifest::new("Cargo.toml", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKSPACE: &str = "[workspace]\nmembers = [\"a\"]\n\n[workspace.dependencies]\n# Errors.\nanyhow = \"1\"\nserde-like = { version = \"1\", features = [\"derive\"] } # why\n\n[profile.dev]\ndebug = 1\n";

    fn lines(member: &str) -> Vec<(String, usize)> {
        let violations = check(&Manifest::new("Cargo.toml", WORKSPACE), &[Manifest::new("a/Cargo.toml", member)]);
        violations.into_iter().map(|violation| (violation.path, violation.line)).collect()
    }

    #[test]
    fn every_form_of_taking_from_the_workspace_is_known() {
        assert!(
            lines("[dependencies]\nanyhow.workspace = true\n[dev-dependencies]\nserde-like = { workspace = true, features = [\"x\"] }\n")
                .is_empty()
        );
        assert!(
            lines("[target.'cfg(unix)'.dependencies]\nanyhow = {workspace=true}\n[dependencies.serde-like]\nworkspace = true\n").is_empty()
        );
    }

    #[test]
    fn a_version_of_its_own_is_found() {
        let both = "[package]\nname = \"a\"\n[dependencies]\nanyhow = \"1\"\n[dependencies.serde-like]\nversion = \"1\"\n";
        assert_eq!(lines(both), [("a/Cargo.toml".into(), 4), ("a/Cargo.toml".into(), 5)]);
    }

    #[test]
    fn a_dependency_that_nobody_takes_is_found() {
        assert_eq!(lines("[build-dependencies]\nanyhow.workspace = true\n"), [("Cargo.toml".into(), 7)]);
        assert_eq!(lines("[features]\nserde-like = []\n[dependencies]\nanyhow.workspace = true\n"), [("Cargo.toml".into(), 7)]);
    }

    #[test]
    fn a_dependency_that_the_code_never_names_is_found() {
        let member = Manifest::new("libs/a/Cargo.toml", "[dependencies]\nanyhow.workspace = true\nserde-like.workspace = true\n");
        assert_eq!(member.folder(), "libs/a/");
        assert!(check_use(&member, &BTreeSet::from(["anyhow", "serde_like", "x"])).is_empty());
        let left_over = check_use(&member, &BTreeSet::from(["anyhow"]));
        assert_eq!(left_over.iter().map(|violation| violation.line).collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn names_are_given_as_code_spells_them() {
        let names: Vec<String> = Manifest::new("Cargo.toml", WORKSPACE).crate_names().collect();
        assert_eq!(names, ["anyhow", "serde_like"]);
    }
}
