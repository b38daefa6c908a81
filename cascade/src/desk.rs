//! What the commands of an operator begin with: whom they ask, by what it knows them, and how its answers are printed.

use clap::Args;
use kit::Environment;

use crate::{
    form::Form,
    operator::{Access, Shop},
    when::When,
};

/// Flags of each command of an operator.
#[derive(Debug, Args)]
pub(crate) struct OperatorFlags {
    #[command(flatten)]
    form: Form,

    /// Whom it asks.
    #[command(flatten)]
    pub(crate) access: Access,
}

impl OperatorFlags {
    /// The desk that the flags mean.
    pub(crate) fn desk(&self) -> anyhow::Result<Desk> {
        let environment = Environment::real()?;
        Ok(Desk { shop: self.access.shop(&environment)?, form: self.form, environment })
    }
}

/// Whom an operator asks, and how the answers are printed.
pub(crate) struct Desk {
    /// The shop.
    pub(crate) shop: Shop,
    /// How it is printed.
    pub(crate) form: Form,
    environment: Environment,
}

impl Desk {
    /// How times are told now.
    pub(crate) fn when(&self) -> When {
        When::here(self.environment.clock.now())
    }
}
