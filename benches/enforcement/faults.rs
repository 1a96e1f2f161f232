//! A kill while something is broken: what is admitted after `guaranteed_by` is a defect.
//!
//! The kill goes through an instance that can commit it, with the others under load. Where the fault alone would not keep them
//! from hearing of it, notifications are lost as well, so that nothing but the lease keeps the promise.

use crate::Result;
use crate::fleet::{Engaged, Fleet, Postgres};
use crate::proxy::Loses;
use crate::watch::{Watch, sleep_until};
use chrono::TimeDelta;
use rustix::process::Signal;
use std::time::Duration;

/// The instance that is broken, and the one that the kill goes through.
const BROKEN: usize = 0;
const WHOLE: usize = 1;
/// The load before the kill.
const LEAD: Duration = Duration::from_millis(700);
/// How long after `guaranteed_by` what was paused goes on, and how long it is watched.
const HEALED_AFTER: TimeDelta = TimeDelta::seconds(1);
const WATCHED_FOR: TimeDelta = TimeDelta::seconds(3);

/// The fault.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    HalfOpen,
    PostgresHangs,
    PostgresRestarts,
    InstancePaused,
    InstanceRestarts,
    NotificationsLost,
}

pub(crate) const FAULTS: [Fault; 6] = [
    Fault::HalfOpen,
    Fault::PostgresHangs,
    Fault::PostgresRestarts,
    Fault::InstancePaused,
    Fault::InstanceRestarts,
    Fault::NotificationsLost,
];

impl Fault {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::HalfOpen => "every connection of an instance half-open",
            Self::PostgresHangs => "PostgreSQL stopped by SIGSTOP right after the engage",
            Self::PostgresRestarts => "PostgreSQL crashed right after the engage, and started again",
            Self::InstancePaused => "an instance stopped by SIGSTOP across the engage",
            Self::InstanceRestarts => "an instance restarted during the kill",
            Self::NotificationsLost => "notifications lost",
        }
    }
}

/// The observations of a kill.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) fault: Fault,
    /// Of requests that were sent after `guaranteed_by`.
    pub(crate) admitted_after: usize,
    pub(crate) refused_after: usize,
    /// In all, so that it shows that there was something to end.
    pub(crate) admitted: usize,
    /// From the last admitted request to `guaranteed_by`, milliseconds.
    pub(crate) margin_ms: i64,
}

/// Kills once while something is broken, and mends it.
pub(crate) async fn run(fleet: &mut Fleet, fault: Fault) -> Result<Outcome> {
    fleet.release().await?;
    fleet.until_notified(true).await?;
    let watch = Watch::start(&fleet.addresses());
    tokio::time::sleep(LEAD).await;
    let engaged = engage(fleet, fault).await?;
    sleep_until(engaged.guaranteed_by + WATCHED_FOR).await;
    let seen = watch.end().await?;
    fleet.lose_everywhere(Loses::Nothing);
    fleet.release().await?;
    let last = seen.last_admission().ok_or("nothing was admitted before the kill")?;
    Ok(Outcome {
        fault,
        admitted_after: seen.admitted_after(engaged.guaranteed_by),
        refused_after: seen.refused_after(engaged.guaranteed_by),
        admitted: seen.admitted(),
        margin_ms: (engaged.guaranteed_by - last).num_milliseconds(),
    })
}

/// The fault and the kill, in the order in which they meet.
async fn engage(fleet: &mut Fleet, fault: Fault) -> Result<Engaged> {
    match fault {
        Fault::HalfOpen => {
            fleet.lose(BROKEN, Loses::Everything);
            let engaged = fleet.engage(WHOLE).await?;
            sleep_until(engaged.guaranteed_by + HEALED_AFTER).await;
            fleet.lose(BROKEN, Loses::Nothing);
            Ok(engaged)
        }
        Fault::PostgresHangs => {
            fleet.lose_everywhere(Loses::Notifications);
            let engaged = fleet.engage(WHOLE).await?;
            let paused = Postgres::pause(fleet.place())?;
            sleep_until(engaged.guaranteed_by + HEALED_AFTER).await;
            drop(paused);
            Ok(engaged)
        }
        Fault::PostgresRestarts => {
            fleet.lose_everywhere(Loses::Notifications);
            let engaged = fleet.engage(WHOLE).await?;
            // At once, without a checkpoint; it is supervised, which starts it again.
            Postgres::signal(fleet.place(), Signal::QUIT)?;
            Ok(engaged)
        }
        Fault::InstancePaused => {
            let paused = fleet.pause_instance(BROKEN)?;
            let engaged = fleet.engage(WHOLE).await?;
            sleep_until(engaged.guaranteed_by + HEALED_AFTER).await;
            drop(paused);
            Ok(engaged)
        }
        Fault::InstanceRestarts => {
            fleet.lose_everywhere(Loses::Notifications);
            let engaged = fleet.engage(WHOLE).await?;
            fleet.restart_instance(BROKEN).await?;
            Ok(engaged)
        }
        Fault::NotificationsLost => {
            fleet.lose_everywhere(Loses::Notifications);
            fleet.engage(WHOLE).await
        }
    }
}
