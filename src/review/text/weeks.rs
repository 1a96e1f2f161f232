//! The tables of the period beside the week before.

use super::{Page, percent};
use crate::review::document::Review;
use crate::review::week::Beside;
use crate::risk::store::LedgerOfDays;
use crate::types::Total;
use std::fmt::{self, Write};

/// Whether nothing was reserved, lost or denied, and nothing is open.
fn is_quiet(row: &LedgerOfDays) -> bool {
    let amounts = [row.exposure_used, row.open_risk_reserved, row.realized_loss];
    amounts == [Total::ZERO; 3] && row.actions_count == 0 && row.denied_count == 0
}

impl Page {
    /// The ledger since the Monday. A level without any number in both weeks is left out.
    pub(super) fn week_of_ledger(&mut self, review: &Review) -> fmt::Result {
        let (week, before) = (&review.week, &review.week_before);
        writeln!(
            self,
            "\n## Risk since {}\n\nThe week before is {} to {}.\n\n| Engine | Exposure | Open risk | Loss | Actions | Denied |\n|---|---|---|---|---|---|",
            week.from, before.from, before.day
        )?;
        for now in &week.ledger {
            let earlier = before.ledger.iter().find(|row| row.engine == now.engine);
            if is_quiet(now) && earlier.is_none_or(is_quiet) {
                continue;
            }
            let row = Beside(now, earlier);
            writeln!(
                self,
                "| {} | {} | {} | {} | {} | {} |",
                now.engine,
                row.show(|row| row.exposure_used),
                row.show(|row| row.open_risk_reserved),
                row.show(|row| row.realized_loss),
                row.show(|row| row.actions_count),
                row.show(|row| row.denied_count)
            )?;
        }
        Ok(())
    }

    /// The trials since the Monday. A domain without trials in both weeks is left out.
    pub(super) fn week_of_scorecards(&mut self, review: &Review) -> fmt::Result {
        writeln!(
            self,
            "\n## Heimdall sandbox since {}\n\n| Domain | Trials | Success rate |\n|---|---|---|",
            review.week.from
        )?;
        for now in &review.week.scorecards {
            let earlier = review.week_before.scorecards.iter().find(|card| card.domain == now.domain);
            if now.trials == 0 && earlier.is_none_or(|card| card.trials == 0) {
                continue;
            }
            let row = Beside(now, earlier);
            let rate = row.show(|card| if card.trials == 0 { "-".to_owned() } else { percent(card.success_rate) });
            writeln!(self, "| {} | {} | {rate} |", now.domain, row.show(|card| card.trials))?;
        }
        Ok(())
    }
}
