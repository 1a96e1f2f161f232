//! The choice of the form in which this process stores outcomes: compact, once no program that cannot read that form runs
//! on the database or can start.
//!
//! The row of a program in `instance` says which migrations it knows. While a program runs that does not know
//! [`READS_COMPACT`], outcomes are stored in the long form. After that, this process raises `schema_minimum`. A minute
//! later, if still no such program runs, outcomes are compact. If anything cannot be read, the long form stays. A fresh
//! installation stores compact outcomes from its first event.

use super::Risk;
use super::ledger::COMPACT;
use super::model::stored::Form;
use crate::db;
use crate::enforcement::instance;
use crate::error::Result;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// The migration from which on programs read the compact form.
pub const READS_COMPACT: i64 = 31;
/// How often an instance chooses the form again.
const EVERY: Duration = Duration::from_mins(1);

/// The result of a look.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Look {
    /// Every program that runs or can start reads the compact form.
    Compact,
    /// This instance does not read it.
    Older(String),
    /// No program runs that does not read it, but one may be starting.
    Starting,
}

/// A look that failed.
const FAILED: u8 = 4;

impl Look {
    const fn code(&self) -> u8 {
        match self {
            Self::Compact => COMPACT,
            Self::Older(_) => 2,
            Self::Starting => 3,
        }
    }

    fn tell(&self) {
        match self {
            Self::Compact => tracing::info!("events store their outcome in the compact form"),
            Self::Older(name) => tracing::info!(
                instance = name,
                "events store their outcome in the long form, because an older instance runs; checking again every minute"
            ),
            Self::Starting => tracing::info!(
                schema_minimum = READS_COMPACT,
                "older versions can no longer start; events store their outcome in the compact form from the next minute on"
            ),
        }
    }
}

impl Risk {
    /// Chooses the form. The log has a line when the choice or its reason changes.
    pub async fn choose_form(&self) -> Form {
        match self.look().await {
            Ok(look) if self.0.form.keep(look.code()) => look.tell(),
            Ok(_) => {}
            Err(error) => {
                if self.0.form.keep(FAILED) {
                    tracing::warn!(%error, "events store their outcome in the long form, because the other instances cannot be read");
                }
            }
        }
        self.0.form.now()
    }

    async fn look(&self) -> Result<Look> {
        let mut conn = self.0.db.work().await?;
        if let Some(name) = instance::older_than(&mut conn, READS_COMPACT).await? {
            return Ok(Look::Older(name));
        }
        let stands = db::require_migration(&mut conn, READS_COMPACT).await?;
        Ok(if stands { Look::Compact } else { Look::Starting })
    }

    /// Chooses the form every minute, until the task is ended.
    pub async fn keep_form(self) {
        let mut turns = tokio::time::interval(EVERY);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            self.choose_form().await;
        }
    }
}
