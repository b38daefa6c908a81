//! Where values come from that no flag gives: the environment, then the configuration file, then the setting's own default.
//!
//! What is found becomes the default of the flag with the same name, so that a value is read in one way, wherever it stands.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::{Arg, Command};

use crate::usage::WrongUsage;

/// What a variable must begin with to be ours.
const PREFIX: &str = "CASCADE_";
/// The setting that names the file; it cannot stand in the file.
pub(crate) const CONFIG: &str = "config";
/// How alike two names must be for one to be a slip of the other; clap takes the same measure for flags.
const LIKENESS_MIN: f64 = 0.7;

/// What the environment and the configuration file say.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    environment: BTreeMap<String, String>,
    file: BTreeMap<String, String>,
    path: PathBuf,
}

impl Layers {
    /// Reads the variables that are ours, and the file that `config` or one of them names. `settings` are all that there are.
    pub(crate) fn read(
        settings: &[Arg],
        variables: impl IntoIterator<Item = (OsString, OsString)>,
        config: Option<&Path>,
    ) -> Result<Self, WrongUsage> {
        let mut layers = Self { environment: read_environment(settings, variables)?, ..Self::default() };
        if let Some(path) = config.map(Path::to_owned).or_else(|| layers.environment.get(CONFIG).map(PathBuf::from)) {
            layers.file = read_file(settings, &path)?;
            layers.path = path;
        }
        Ok(layers)
    }

    /// The same command line, where the flags that are settings have these values if nobody gives them others.
    pub(crate) fn apply(&self, settings: &[Arg], command: Command) -> Command {
        let give = |arg: Arg| {
            let id = arg.get_id().as_str().to_owned();
            let Some(setting) = settings.iter().find(|setting| setting.get_id().as_str() == id) else { return arg };
            match self.value(&id) {
                Some(value) => arg.required(false).default_value(value.to_owned()),
                None if setting.get_default_values().is_empty() => arg,
                None => arg.required(false).default_values(setting.get_default_values().to_vec()),
            }
        };
        command.mut_subcommands(|subcommand| subcommand.mut_args(give))
    }

    fn value(&self, id: &str) -> Option<&str> {
        self.environment.get(id).or_else(|| self.file.get(id)).map(String::as_str)
    }

    /// What gave the setting `id` its value, in words; none if nothing did.
    pub(crate) fn origin(&self, id: &str) -> Option<String> {
        if self.environment.contains_key(id) {
            return Some(variable(id));
        }
        self.file.contains_key(id).then(|| format!("`{id}` in `{}`", self.path.display()))
    }
}

/// The variable of the setting `id`.
pub(crate) fn variable(id: &str) -> String {
    format!("{PREFIX}{}", id.to_ascii_uppercase())
}

/// An empty variable counts as one that is not set: files for containers pass on what they were given, also if that is nothing.
fn read_environment(
    settings: &[Arg],
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<BTreeMap<String, String>, WrongUsage> {
    let ours: BTreeMap<OsString, OsString> = variables.into_iter().filter(|(name, _)| name.to_string_lossy().starts_with(PREFIX)).collect();
    let known: Vec<&str> = settings.iter().map(|setting| setting.get_id().as_str()).collect();
    let mut found = BTreeMap::new();
    for (name, value) in ours {
        let name = name.to_string_lossy().into_owned();
        let Some(id) = known.iter().find(|id| variable(id) == name) else {
            let meant = nearest(&name.trim_start_matches(PREFIX).to_ascii_lowercase(), &known).map(variable);
            return Err(WrongUsage(format!("{name} is no setting{}", ask(meant))));
        };
        let value = value.into_string().map_err(|_| WrongUsage(format!("{name} is not UTF-8")))?;
        if !value.is_empty() {
            found.insert((*id).to_owned(), value);
        }
    }
    Ok(found)
}

fn read_file(settings: &[Arg], path: &Path) -> Result<BTreeMap<String, String>, WrongUsage> {
    let wrong = |reason: String| WrongUsage(format!("configuration file `{}`{reason}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => wrong(String::from(" is not there")),
        _ => wrong(format!(" cannot be read: {error}")),
    })?;
    let table: toml::Table = toml::from_str(&text).map_err(|error: toml::de::Error| {
        let line = error.span().and_then(|span| text.get(..span.start)).map_or(1, |before| before.matches('\n').count() + 1);
        wrong(format!(", line {line}: {}", error.message().replace('\n', "; ")))
    })?;
    let known: Vec<&str> = settings.iter().map(|setting| setting.get_id().as_str()).filter(|id| *id != CONFIG).collect();
    let mut found = BTreeMap::new();
    for (key, value) in table {
        if !known.contains(&key.as_str()) {
            let meant = nearest(&key.replace('-', "_"), &known).map(|id| format!("`{id}`"));
            return Err(wrong(format!(": `{key}` is no setting{}", ask(meant))));
        }
        let value = as_text(&value).ok_or_else(|| wrong(format!(": `{key}` must be a text, a number, or a list of texts")))?;
        found.insert(key, value);
    }
    Ok(found)
}

/// A value as a flag would have it.
fn as_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Array(items) => Some(items.iter().map(toml::Value::as_str).collect::<Option<Vec<_>>>()?.join(",")),
        toml::Value::Float(_) | toml::Value::Boolean(_) | toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

/// The most similar of the `known` names, if one is similar.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let alike = known.iter().map(|known| (strsim::jaro(name, known), *known));
    let (likeness, known) = alike.max_by(|one, other| one.0.total_cmp(&other.0))?;
    (likeness > LIKENESS_MIN).then_some(known)
}

fn ask(meant: Option<String>) -> String {
    meant.map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::{
        cli::{Cli, Command as Chosen},
        settings::Settings,
        usage,
    };

    /// What `cascade up` runs with, or what is said instead.
    fn up(flags: &[&str], variables: &[(&str, &str)], file: Option<&str>) -> Result<Settings, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cascade.toml");
        let mut arguments = vec!["cascade".to_owned(), "up".to_owned()];
        if let Some(text) = file {
            std::fs::write(&path, text).unwrap();
            arguments.extend(["--config".to_owned(), path.to_str().unwrap().to_owned()]);
        }
        arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        match usage::parse(&arguments.into_iter().map(OsString::from).collect::<Vec<_>>(), variables.collect()) {
            Ok(Cli { command: Chosen::Up(settings) }) => Ok(*settings),
            Ok(other) => panic!("{other:?}"),
            Err(usage::Unread::Wrong(said)) => Err(said),
            Err(usage::Unread::Help(error)) => panic!("{error}"),
        }
    }

    #[test]
    fn a_flag_wins_over_the_environment_that_over_the_file_and_the_file_over_the_default() {
        let port = |flags: &[&str], variables: &[(&str, &str)], file| up(flags, variables, file).unwrap().port;
        let file = Some("port = 4100");
        assert_eq!(port(&["--port", "4300"], &[("CASCADE_PORT", "4200")], file), Some(4300));
        assert_eq!(port(&[], &[("CASCADE_PORT", "4200")], file), Some(4200));
        assert_eq!(port(&[], &[("CASCADE_PORT", "")], file), Some(4100));
        assert_eq!(port(&[], &[("PORT", "1")], None), None);
    }

    #[test]
    fn a_list_is_separated_by_commas_in_a_flag_and_in_a_variable_and_is_a_list_in_the_file() {
        let names = vec!["broker".to_owned(), "balancer".to_owned(), "shop.example".to_owned()];
        let text = "broker,balancer, shop.example";
        assert_eq!(up(&["--allowed-hosts", text], &[], None).unwrap().allowed_hosts, names);
        assert_eq!(up(&[], &[("CASCADE_ALLOWED_HOSTS", text)], None).unwrap().allowed_hosts, names);
        let file = r#"allowed_hosts = ["broker", "balancer", "shop.example"]"#;
        assert_eq!(up(&[], &[], Some(file)).unwrap().allowed_hosts, names);
        assert_eq!(up(&[], &[], None).unwrap().allowed_hosts, Vec::<String>::new());
    }

    #[test]
    fn the_playground_is_on_where_nobody_else_can_come_unless_told_otherwise() {
        let is_on = |flags: &[&str]| up(flags, &[], None).unwrap().is_playground();
        assert!(is_on(&[]) && is_on(&["--host", "::1"]) && is_on(&["--host", "0.0.0.0", "--playground", "on"]));
        assert!(!is_on(&["--host", "0.0.0.0"]) && !is_on(&["--playground", "off"]));
    }

    #[test]
    fn sinks_of_outsiders_may_be_on_this_machine_where_nobody_else_can_come_unless_told_otherwise() {
        let networks = |flags: &[&str]| up(flags, &[], None).unwrap().sink_networks().to_string();
        assert_eq!(networks(&[]), "127.0.0.1,::1");
        assert_eq!(networks(&["--host", "::1", "--playground", "on"]), "127.0.0.1,::1");
        for flags in [&["--host", "0.0.0.0", "--playground", "on"][..], &["--allowed-hosts", "shop.example"], &["--playground", "off"]] {
            assert_eq!(networks(flags), "none", "{flags:?}");
        }
        assert_eq!(networks(&["--sink-networks", "none"]), "none");
        assert_eq!(networks(&["--sink-networks", "private", "--host", "0.0.0.0"]), "private");
    }

    #[test]
    fn a_wrong_variable_is_named_in_one_line() {
        for (name, value, expected) in [
            ("CASCADE_PROT", "1", "CASCADE_PROT is no setting; did you mean CASCADE_PORT? (see `cascade up --help`)"),
            (
                "CASCADE_TRUSTED_HOSTS",
                "x",
                "CASCADE_TRUSTED_HOSTS is no setting; did you mean CASCADE_TRUSTED_PROXIES? (see `cascade up --help`)",
            ),
            ("CASCADE_ZZZ", "1", "CASCADE_ZZZ is no setting (see `cascade up --help`)"),
            ("CASCADE_", "1", "CASCADE_ is no setting (see `cascade up --help`)"),
            ("CASCADE_PORT", "many", "invalid value 'many' for CASCADE_PORT: invalid digit found in string (see `cascade up --help`)"),
            ("CASCADE_PORT", "70000", "invalid value '70000' for CASCADE_PORT: 70000 is not in 0..=65535 (see `cascade up --help`)"),
            (
                "CASCADE_DRAIN_MS",
                "60001",
                "invalid value '60001' for CASCADE_DRAIN_MS: 60001 is not in 0..=60000 (see `cascade up --help`)",
            ),
            (
                "CASCADE_PLAYGROUND",
                "yes",
                "invalid value 'yes' for CASCADE_PLAYGROUND [possible values: auto, on, off] (see `cascade up --help`)",
            ),
            ("CASCADE_CONFIG", "/nowhere/c.toml", "configuration file `/nowhere/c.toml` is not there (see `cascade up --help`)"),
            (
                "CASCADE_ALLOWED_HOSTS",
                "shop.example:80",
                "invalid value 'shop.example:80' for CASCADE_ALLOWED_HOSTS: it must be a name such as shop.example, without a port (see `cascade up --help`)",
            ),
        ] {
            assert_eq!(up(&[], &[(name, value)], None).unwrap_err(), expected);
        }
    }

    #[test]
    fn a_broken_configuration_file_says_in_one_line_what_is_wrong() {
        for (text, expected) in [
            ("prot = 1", "`prot` is no setting; did you mean `port`?"),
            ("data-dir = \"x\"", "`data-dir` is no setting; did you mean `data_dir`?"),
            ("config = \"x\"", "`config` is no setting"),
            ("port = 70000", "70000 is not in 0..=65535"),
            ("port = \"many\"", "invalid value 'many' for `port` in `"),
            ("port = true", "`port` must be a text, a number, or a list of texts"),
            ("pace = \"fast\"", "instant"),
            ("log_format = \"xml\"", "json"),
            ("color = \"red\"", "never"),
            ("host = \"shop.example\"", "IP address"),
            ("luck = \"good\"", "always"),
            ("events = \"some\"", "off"),
            ("workers = 0", "0 is not in 1..=100000"),
            ("broker_url = \"broker:4005\"\n", ""),
            ("seed = 1\nport = ", "line 2: "),
            ("[port]", "`port` must be"),
        ] {
            match up(&[], &[], Some(text)) {
                Err(said) => assert!(said.contains(expected) && !said.contains('\n'), "{text}: {said}"),
                // Another command's setting: a shop in one process and five may share a file.
                Ok(_) => assert!(expected.is_empty(), "{text}"),
            }
        }
    }

    #[test]
    fn every_setting_can_be_given_by_its_variable() {
        for setting in usage::settings() {
            let id = setting.get_id().as_str();
            assert_eq!(setting.get_long().map(|long| long.replace('-', "_")).as_deref(), Some(id));
            let layers = Layers { environment: [(id.to_owned(), "x".to_owned())].into(), ..Layers::default() };
            let command = layers.apply(&usage::settings(), Cli::command());
            let serve = command.find_subcommand("serve").unwrap();
            assert_eq!(serve.get_arguments().find(|arg| arg.get_id() == id).unwrap().get_default_values().to_vec(), ["x"]);
        }
    }
}
