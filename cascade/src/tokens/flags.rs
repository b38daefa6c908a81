//! What `cascade tokens` takes.

use clap::{Args, Subcommand};

use crate::operator::{Access, name};

/// Stands at the end of the help.
pub(crate) const HELP: &str = "\
Examples:
  cascade tokens create loyalty --publish-as /loyalty --publish 'loyalty.*' \\
    --subscribe-as loyalty --subscribe cascade.OrderCompleted.v1 > loyalty.token
  cascade tokens list
  cascade tokens rotate loyalty --grace-hours 1 > loyalty.token
  cascade tokens revoke loyalty

A text that ends in `*` covers all that begin so. The shop keeps no token: one that is lost is rotated.";

/// Flags of `cascade tokens`.
#[derive(Debug, Args)]
pub(crate) struct TokensFlags {
    /// What to do.
    #[command(subcommand)]
    pub(super) action: Action,

    #[command(flatten)]
    pub(super) access: Access,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Make a token, and print it: the only time that it is shown.
    Create {
        /// What it is called: 1 to 64 of a-z, 0-9 and `-`.
        #[arg(value_parser = name)]
        name: String,

        #[command(flatten)]
        scopes: Scopes,

        /// For how many days it is valid [default: until it is revoked].
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..=3_650))]
        expires_days: Option<u64>,

        #[command(flatten)]
        json: Form,
    },
    /// List all tokens: what they may do, and when they were last used.
    List {
        #[command(flatten)]
        json: Form,
    },
    /// Replace a token by a new one that may do the same, and print that; the old one stays valid for some time.
    Rotate {
        /// The token's name.
        #[arg(value_parser = name)]
        name: String,

        /// For how many hours the old one stays valid, at most 720; 0 ends it at once.
        #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u64).range(0..=720))]
        grace_hours: u64,

        /// For how many days it is valid from now on [default: as before].
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..=3_650))]
        expires_days: Option<u64>,

        #[command(flatten)]
        json: Form,
    },
    /// End a token at once, and the deliveries to whatever it registered.
    Revoke {
        /// The token's name.
        #[arg(value_parser = name)]
        name: String,
    },
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Form {
    /// Print JSON, for machines.
    #[arg(long)]
    json: bool,
}

impl Form {
    /// Whether machines read it.
    pub(super) fn is_json(self) -> bool {
        self.json
    }
}

/// What a token may do.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct Scopes {
    /// Publish events with this `source`, such as /loyalty.
    #[arg(long, value_name = "SOURCE", requires = "publish")]
    pub(super) publish_as: Option<String>,

    /// Publish events of these types, separated by commas.
    #[arg(long, value_name = "TYPES", value_delimiter = ',', requires = "publish_as")]
    pub(super) publish: Vec<String>,

    /// Register subscriptions of these names, separated by commas.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "subscribe")]
    pub(super) subscribe_as: Vec<String>,

    /// Subscribe to events of these types, separated by commas, whosever they are.
    #[arg(long, value_name = "TYPES", value_delimiter = ',', requires = "subscribe_as")]
    pub(super) subscribe: Vec<String>,

    /// Read events of these types, separated by commas, that belong to nobody.
    #[arg(long, value_name = "TYPES", value_delimiter = ',')]
    pub(super) read: Vec<String>,

    /// Read also those that belong to customers.
    #[arg(long, requires = "read")]
    pub(super) read_owners: bool,

    /// Operate subscriptions of these names, separated by commas.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(super) operate: Vec<String>,

    /// Make and end tokens: whoever may do that may do everything.
    #[arg(long)]
    pub(super) manage_tokens: bool,
}
