//! One decision of the gate, without a request around it: the path, the class, the view of a real feed, the verdict.

use crate::numbers::percentile;
use crate::{Result, allocations};
use axum::http::Method;
use holdfast::enforcement::feed::Feed;
use holdfast::enforcement::gate::{EnforcementScope, Verdict, decide};
use holdfast::enforcement::path::canonical;
use holdfast::enforcement::{RouteClass, Rules, Source, View};
use std::fmt::Write as _;
use std::hint::black_box;
use tokio::time::Instant;

/// Decisions of one batch: enough that reading the clock twice does not show.
const BATCH: u32 = 1_000;
const BATCHES: u32 = 2_000;
/// Decisions that are timed one by one.
const SINGLES: u32 = 500_000;
/// Decisions whose allocations are counted.
const COUNTED: u32 = 1_000_000;

/// Nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decision {
    /// The median of the batches.
    pub(crate) median: f64,
    /// The same of its parts: the canonical path, the class, the view.
    pub(crate) parts: [f64; 3],
    /// Of single ones, without the clock.
    pub(crate) single_median: f64,
    pub(crate) single_p99: f64,
    /// The median time of reading the clock, which was subtracted.
    pub(crate) clock: f64,
    /// In a million decisions.
    pub(crate) allocations: u64,
}

/// The requests: exempt, matched by a default rule, unknown, and matched by a file of a hundred rules, by name and by
/// parameter.
const ASKED: [(Method, &str); 12] = [
    (Method::GET, "/livez"),
    (Method::POST, "/api/governance/risk/check-and-reserve"),
    (Method::GET, "/api/governance/authz/nginx"),
    (Method::POST, "/api/deals"),
    (Method::POST, "/api/deals/8f14e45f-ceea-467f-a8d4-3b1c5a2d9e70/close"),
    (Method::GET, "/api/sandbox/runs/17"),
    (Method::GET, "/v1/unknown/to/everybody"),
    (Method::POST, "/checkout/cart/lines/42"),
    (Method::GET, "/services/s07/orders/20260114-7/lines"),
    (Method::POST, "/services/s42/orders/20260114-7"),
    (Method::GET, "/services/s73/reports/monthly/2026/01"),
    (Method::DELETE, "/services/s99/orders/20260114-7/lines/3"),
];

/// A file of a hundred rules, of every kind.
fn rules() -> Result<Rules> {
    let mut file = String::new();
    for number in 0..100 {
        let (path, class) = match number % 3 {
            0 => ("orders/{order}", "PROD_EXEC"),
            1 => ("reports/**", "OBSERVE_ONLY"),
            _ => ("orders/{order}/lines/**", "SANDBOX_EXEC"),
        };
        let method = if number % 2 == 0 { "" } else { "method = \"GET\"\n" };
        writeln!(file, "[[rule]]\npath = \"/services/s{number:02}/{path}\"\nclass = \"{class}\"\n{method}")?;
    }
    Ok(Rules::with_file(&file)?)
}

/// Decides as the gate does.
fn one(feed: &Feed, rules: &Rules, (method, path): &(Method, &str)) -> bool {
    match canonical(black_box(path)) {
        Ok(path) => {
            let class = rules.classify(black_box(method), path);
            matches!(decide(class, feed.view(), EnforcementScope::All), Verdict::Allow)
        }
        Err(_) => false,
    }
}

/// Measures on this thread. The feed has to be kept fresh by another one.
pub(crate) fn measure(feed: &Feed) -> Result<Decision> {
    let rules = rules()?;
    let mut asked = ASKED.iter().cycle();
    let mut next = || asked.next().expect("a cycle does not end");
    for _ in 0..COUNTED {
        black_box(one(feed, &rules, next()));
    }
    if !one(feed, &rules, &ASKED[3]) {
        return Err("the feed admits nothing: what would be measured is not what usually happens".into());
    }
    let before = allocations::so_far();
    for _ in 0..COUNTED {
        black_box(one(feed, &rules, next()));
    }
    let allocations = allocations::so_far() - before;
    let median = in_batches(|asked| one(feed, &rules, asked));
    let parts = [
        in_batches(|(_, path)| canonical(black_box(path)).is_ok()),
        in_batches(|(method, path)| rules.classify(black_box(method), black_box(path)) == RouteClass::Exempt),
        in_batches(|_| black_box(feed).view() == View::Stale),
    ];
    let mut clocks = Vec::new();
    for _ in 0..SINGLES {
        let began = Instant::now();
        clocks.push(nanoseconds(black_box(began)));
    }
    let clock = percentile(&mut clocks, 50);
    let mut singles = Vec::new();
    for _ in 0..SINGLES {
        let asked = next();
        let began = Instant::now();
        black_box(one(feed, &rules, asked));
        singles.push(nanoseconds(began));
    }
    if !one(feed, &rules, &ASKED[3]) {
        return Err("the feed went stale while it was measured".into());
    }
    Ok(Decision {
        median,
        parts,
        single_median: percentile(&mut singles, 50) - clock,
        single_p99: percentile(&mut singles, 99) - clock,
        clock,
        allocations,
    })
}

/// The time of one decision, as the median of the batches.
fn in_batches(work: impl Fn(&(Method, &str)) -> bool) -> f64 {
    let mut asked = ASKED.iter().cycle();
    let mut batches = Vec::new();
    for _ in 0..BATCHES {
        let began = Instant::now();
        for asked in asked.by_ref().take(BATCH as usize) {
            black_box(work(asked));
        }
        batches.push(nanoseconds(began) / f64::from(BATCH));
    }
    percentile(&mut batches, 50)
}

fn nanoseconds(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e9
}
