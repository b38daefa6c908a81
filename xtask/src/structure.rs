//! Who may import whom, what belongs where, how long a file may be. Run by `cargo xtask test`, and as tests of this crate.
//!
//! Every check takes plain text or plain data, so that each is tested against a planted violation.

/// A Rust file, read as far as the checks need it.
mod source;

/// Who may depend on whom.
mod imports;

/// What a `domain.rs` may say.
mod domain;

/// What belongs in which file, how long a file may be, what a test may not do.
mod files;

/// What a `Cargo.toml` may say.
mod manifests;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use cargo_metadata::{Metadata, MetadataCommand};

use self::source::Source;

/// Where the project's Rust code lives.
const CODE_FOLDERS: &[&str] = &["cascade", "examples", "libs", "services", "sim", "xtask"];

/// Something that is not where, or as, it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    /// The file, from the root.
    path: String,
    /// The line, from 1.
    line: usize,
    /// The rule's name.
    rule: &'static str,
    /// What was found, and what to do instead.
    advice: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path, self.line, self.rule, self.advice)
    }
}

/// Prints every violation.
///
/// # Errors
/// When there is one.
pub(crate) fn report(root: &Path) -> anyhow::Result<()> {
    let violations = check(root)?;
    for violation in &violations {
        println!("{violation}");
    }
    match violations.len() {
        0 => Ok(()),
        count => bail!("{count} violations of the structure"),
    }
}

/// The workspace as cargo sees it, without its dependencies' dependencies.
///
/// # Errors
/// When cargo cannot read a manifest.
pub(crate) fn metadata(root: &Path) -> anyhow::Result<Metadata> {
    MetadataCommand::new().current_dir(root).no_deps().exec().context("`cargo metadata` failed")
}

fn check(root: &Path) -> anyhow::Result<Vec<Violation>> {
    let metadata = metadata(root)?;
    let mut violations = imports::check(&imports::read(&metadata, root));

    let workspace = manifests::read(root, &root.join("Cargo.toml"))?;
    let mut members = Vec::new();
    for package in metadata.workspace_packages() {
        members.push(manifests::read(root, package.manifest_path.as_std_path())?);
    }
    violations.extend(manifests::check(&workspace, &members));

    let sources = read_sources(root)?;
    for member in &members {
        let own = sources.iter().filter(|source| source.path.starts_with(member.folder()));
        let words = own.flat_map(|source| &source.tokens).map(|token| token.text.as_str()).collect();
        violations.extend(manifests::check_use(member, &words));
    }
    for source in sources {
        violations.extend(files::check(&source));
        violations.extend(domain::check(&source, &workspace));
    }
    violations.sort();
    violations.dedup();
    Ok(violations)
}

fn read_sources(root: &Path) -> anyhow::Result<Vec<Source>> {
    let mut sources = Vec::new();
    for folder in CODE_FOLDERS {
        for path in find_rust_files(&root.join(folder))? {
            let text = fs::read_to_string(&path).with_context(|| format!("`{}` cannot be read", path.display()))?;
            sources.push(Source::new(&relative(root, &path), &text));
        }
    }
    mark_test_files(&mut sources);
    Ok(sources)
}

/// A file is a test where the line that declares it says so.
fn mark_test_files(sources: &mut [Source]) {
    let test_files: Vec<String> = sources.iter().flat_map(|source| source.test_files.clone()).collect();
    let is_test = |path: &str| test_files.iter().any(|test| path == test || (test.ends_with('/') && path.starts_with(test)));
    sources.iter_mut().filter(|source| is_test(&source.path)).for_each(Source::is_all_test);
}

fn find_rust_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    if !folder.is_dir() {
        return Ok(found);
    }
    for entry in fs::read_dir(folder).with_context(|| format!("`{}` cannot be listed", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with('.') || name == "target" {
            continue;
        }
        if path.is_dir() {
            found.extend(find_rust_files(&path)?);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_house_is_in_order() {
        let violations = check(&crate::root()).unwrap();
        let lines: Vec<String> = violations.iter().map(Violation::to_string).collect();
        assert!(violations.is_empty(), "\n{}\n", lines.join("\n"));
    }

    #[test]
    fn a_file_is_a_test_where_its_declaration_says_so() {
        let door = Source::new("services/order/src/domain.rs", "#[cfg(test)]\nmod properties;\nmod state;");
        let properties = Source::new("services/order/src/domain/properties.rs", "use proptest::prelude::*;");
        let state = Source::new("services/order/src/domain/state.rs", "");
        let mut sources = [door, properties, state];
        mark_test_files(&mut sources);
        assert_eq!(sources.map(|source| source.is_test(1)), [false, true, false]);
    }

    #[test]
    fn a_violation_says_where_what_and_what_to_do() {
        let violation = Violation { path: "a/b.rs".into(), line: 7, rule: "sql", advice: "move it".into() };
        assert_eq!(violation.to_string(), "a/b.rs:7: sql: move it");
    }
}
