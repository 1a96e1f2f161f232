//! The memory row: the service at a steady 70 % of its peak, minute after minute.

use crate::Result;
use crate::books::{self, Mark};
use crate::figures::{Figure, Sample};
use crate::load::{Load, Pace};
use crate::machine::memory_kib;
use crate::numbers::{grouped, real};
use crate::report::Minute;
use crate::rows::{ENGINE, MANY, OPEN_SHARE, Round};
use crate::script::{Counts, Work};
use std::time::Duration;

const MINUTE: Duration = Duration::from_mins(1);

impl Round<'_> {
    /// Lifecycles in an open loop. Ids are not kept, which would be the generator's memory; their number is checked.
    pub(crate) async fn soak(&mut self) -> Result<()> {
        let known = self.report.samples.iter().find(|sample| sample.figure == Figure::Lifecycles);
        let peak = match known.and_then(|sample| sample.absolute) {
            Some(peak) => peak,
            None => self.lifecycles().await?,
        };
        let load = Load {
            pace: Pace::Open { per_second: peak * OPEN_SHARE },
            warm_up: Duration::ZERO,
            duration: MINUTE,
            keep_ids: false,
            ..self.closed(MANY, Work::Lifecycle { engine: ENGINE })
        };
        let mark = Mark::now(&mut self.db).await?;
        let mut all = Counts::default();
        for number in 1..=self.options.soak_minutes {
            let run = self.load("lifecycles at 70 % of the peak", &load).await?;
            let resident_kib = memory_kib(self.service.pid(), "VmRSS").ok_or("this system does not say VmRSS")?;
            println!("    minute {number}: {} KiB resident", grouped(resident_kib));
            self.report.minutes.push(Minute { number, resident_kib, p99_ms: run.outcome().p99_ms });
            all += run.tally.all;
            self.report.runs.push(run);
        }
        let checked = books::check(&mut self.db, &self.service, mark, all, &[]).await?;
        println!("    books: {checked}");
        if let [first, .., last] = &self.report.minutes[..] {
            let value = real(last.resident_kib) / real(first.resident_kib);
            let absolute = Some(real(last.resident_kib) / 1_024.0);
            self.sample(Sample { absolute, ..Sample::value(Figure::Memory, value) });
        }
        Ok(())
    }
}
