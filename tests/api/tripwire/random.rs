//! Random lives of wires against a model that knows nothing but the events.

use super::{BATCH, Service, Value, json, named, state, wire};
use holdfast::regression::detector::permutation::SplitMix64;

/// The windows of `wire()`.
const WINDOW: usize = 5;
const BASELINE: usize = 10;

/// PLAIN as the specification says it: recomputed from all events, every time.
#[derive(Default)]
struct Model {
    outcomes: Vec<bool>,
    watermark: usize,
    pinned: Option<(usize, usize)>,
    tripped: bool,
    /// The baseline of the standing trip.
    at_trip: Option<(usize, usize)>,
}

impl Model {
    /// Successes and events of the baseline and of the recent window.
    fn windows(&self) -> ((usize, usize), (usize, usize)) {
        let last = self.outcomes.len();
        let high = last.saturating_sub(WINDOW).max(self.watermark);
        let low = last.saturating_sub(WINDOW + BASELINE).max(self.watermark);
        let count = |from: usize, to: usize| (self.outcomes[from..to].iter().filter(|good| **good).count(), to - from);
        let stands_in = self.pinned.filter(|_| last - self.watermark < WINDOW + BASELINE);
        (stands_in.unwrap_or_else(|| count(low, high)), count(high, last))
    }

    /// Adds an event; whether it trips a wire of 20 % that needs 5 in either window.
    fn add(&mut self, good: bool) -> bool {
        self.outcomes.push(good);
        let ((then, n), (now, m)) = self.windows();
        // (then/n - now/m) / (then/n) >= 1/5
        let trips = n >= 5 && m >= 5 && then > 0 && !self.tripped && 5 * now * n <= 4 * then * m;
        if trips {
            (self.tripped, self.at_trip) = (true, Some((then, n)));
        }
        trips
    }

    /// Nothing up to here counts again.
    fn rebase(&mut self, baseline: &str) {
        let (last, before) = (self.outcomes.len(), self.watermark);
        self.watermark = last;
        self.pinned = match baseline {
            "KEEP" => self.at_trip,
            "RESET_LAST_N" => {
                let from = last.saturating_sub(BASELINE).max(before);
                let good = self.outcomes[from..].iter().filter(|good| **good).count();
                (last - from == BASELINE).then_some((good, BASELINE))
            }
            _ => None,
        };
    }

    /// The means that are shown; none while there is too little to judge.
    fn means(&self) -> Option<(f64, f64)> {
        let ((then, n), (now, m)) = self.windows();
        let mean =
            |good: usize, of: usize| f64::from(u32::try_from(good).unwrap()) / f64::from(u32::try_from(of).unwrap());
        (n >= 5 && m >= 5).then(|| (mean(then, n), mean(now, m)))
    }
}

#[tokio::test]
async fn what_is_kept_is_what_a_recomputation_from_the_events_says() {
    let service = Service::live().await;
    for seed in 1..=4_u64 {
        let mut random = SplitMix64::new(seed);
        let mut below = |bound: u64| random.bits() % bound;
        let metric = format!("random_{seed}");
        wire(&service, &metric, json!({})).await;
        let (mut model, mut trips) = (Model::default(), 0);
        let mut rate = 90;
        for _ in 0..80 {
            let (act, choice) =
                (below(10), ["KEEP", "RESET_LAST_N", "RESET_NEXT_N"][usize::try_from(below(3)).unwrap()]);
            if model.tripped && act < 4 {
                let body = named(&metric, json!({"reason": "fixed", "baseline": choice}));
                service.post("/regression/rearm", &body).await.ok();
                model.rebase(choice);
                model.tripped = false;
            } else if act == 9 {
                let source = if choice == "RESET_NEXT_N" { "NEXT_N" } else { "LAST_N" };
                let body = named(&metric, json!({"source": source, "force": true}));
                service.post("/regression/baseline/reset", &body).await.ok();
                model.rebase(if source == "NEXT_N" { "RESET_NEXT_N" } else { "RESET_LAST_N" });
            } else {
                rate = [95, 80, 40][usize::try_from(below(3)).unwrap()].min(rate + 30);
                let outcomes: Vec<bool> = (0..=below(12)).map(|_| below(100) < rate).collect();
                let events: Vec<_> =
                    outcomes.iter().map(|good| json!({"domain": "LAB", "metric": metric, "success": good})).collect();
                let done = service.post(BATCH, &json!({"events": events})).await.ok();
                let told: Vec<_> =
                    done["tripped"].as_array().unwrap().iter().map(|one| one["line"].as_u64().unwrap()).collect();
                let expected: Vec<u64> =
                    (1..).zip(&outcomes).filter(|(_, good)| model.add(**good)).map(|(line, _)| line).collect();
                assert_eq!(told, expected, "seed {seed} after {} events", model.outcomes.len());
                trips += told.len();
            }
            let now = state(&service, &metric).await;
            assert_eq!(
                (&now["triggered"], &now["watermark"]),
                (&json!(model.tripped), &json!(model.watermark)),
                "{now}"
            );
            match model.means() {
                None => assert_eq!((&now["baseline"], &now["current"]), (&Value::Null, &Value::Null), "{now}"),
                Some((baseline, current)) => {
                    let near = |shown: &Value, mean: f64| (shown.as_f64().unwrap() - mean).abs() < 1e-9;
                    assert!(
                        near(&now["baseline"], baseline) && near(&now["current"], current),
                        "{now}: {baseline} {current}"
                    );
                }
            }
        }
        assert!(trips >= 3, "seed {seed} trips {trips} times");
    }
}
