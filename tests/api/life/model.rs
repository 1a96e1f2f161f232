//! Random lives of a ledger, beside the plain one: after each step the answers and the tables must be the same.

use super::plain::{Caps, DAY_MS, Event, LEVELS, Op, Plain};
use super::{Standing, policy, snapshot};
use crate::support::Service;
use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use serde_json::{Value, json};
use sqlx::Row;
use std::collections::BTreeMap;

/// The next step.
#[derive(Debug, Clone)]
enum Step {
    One(Op),
    Together(Vec<Op>),
    DryRun { engine: usize, amount: i64 },
    Pass { seconds: i64 },
    SetCaps { level: usize, caps: Caps },
    KillSwitch(bool),
    Tick,
}

fn amount() -> impl Strategy<Value = i64> {
    prop_oneof![1..=40_i64, Just(100), Just(350)]
}

fn ttl() -> impl Strategy<Value = i64> {
    prop_oneof![Just(1), 60..=7200_i64, Just(90_000)]
}

fn thread() -> impl Strategy<Value = Option<u8>> {
    prop_oneof![3 => Just(None), 2 => (0..3_u8).prop_map(Some)]
}

fn op() -> impl Strategy<Value = Op> {
    let (pick, engine) = (0..40_usize, 1..=2_usize);
    let settled = || prop_oneof![2 => Just(None), 3 => (0..=120_i64).prop_map(Some)];
    let loss = || prop_oneof![3 => Just(0), 1 => 1..=30_i64];
    prop_oneof![
        6 => (engine.clone(), amount(), proptest::option::of(ttl()), thread())
            .prop_map(|(engine, amount, ttl, thread)| Op::Reserve { engine, amount, ttl, thread }),
        1 => pick.clone().prop_map(|pick| Op::Again { pick }),
        4 => (pick.clone(), settled(), loss()).prop_map(|(pick, settled, loss)| Op::Settle { pick, settled, loss }),
        3 => (engine, 0..=150_i64, settled(), loss(), thread())
            .prop_map(|(engine, reserved, settled, loss, thread)| Op::Match { engine, reserved, settled, loss, thread }),
        2 => pick.clone().prop_map(|pick| Op::Release { pick }),
        2 => (pick, ttl()).prop_map(|(pick, ttl)| Op::Extend { pick, ttl }),
        2 => (0..60_i64, any::<bool>(), prop_oneof![-60..=-1_i64, 1..=60_i64])
            .prop_map(|(seq, loss, delta)| Op::Adjust { seq, loss, delta }),
    ]
}

fn caps(level: usize) -> impl Strategy<Value = Caps> {
    let cap = |most: i64| prop_oneof![1 => Just(0), 3 => 1..=most];
    let times = if level == 0 { Just(None).boxed() } else { proptest::option::of(ttl()).boxed() };
    (cap(60), cap(900), cap(600), cap(40), prop_oneof![4 => Just(true), 1 => Just(false)], times)
        .prop_map(|(loss, exposure, open, actions, enabled, ttl)| Caps { loss, exposure, open, actions, enabled, ttl })
}

fn step() -> impl Strategy<Value = Step> {
    let set = (0..3_usize).prop_flat_map(|level| caps(level).prop_map(move |caps| Step::SetCaps { level, caps }));
    prop_oneof![
        14 => op().prop_map(Step::One),
        4 => proptest::collection::vec(op(), 1..8).prop_map(Step::Together),
        2 => (1..=2_usize, amount()).prop_map(|(engine, amount)| Step::DryRun { engine, amount }),
        4 => prop_oneof![Just(0), Just(1), 30..=4000_i64].prop_map(|seconds| Step::Pass { seconds }),
        2 => set,
        1 => prop_oneof![1 => Just(true), 3 => Just(false)].prop_map(Step::KillSwitch),
        1 => Just(Step::Tick),
    ]
}

/// The id of the nth hold that was made.
fn id(pick: usize) -> String {
    format!("00000000-0000-4000-8000-{:012}", pick + 1)
}

/// The JSON of an operation, as one of a batch. `next` is the id of a new hold.
fn body(op: &Op, plain: &Plain, next: usize) -> Value {
    let reserve = |place, engine: usize, amount: i64, ttl: Option<i64>, thread: Option<u8>| {
        json!({"op": "reserve", "engine": LEVELS[engine], "amount": amount, "ttl_seconds": ttl,
            "correlation_id": thread.map(|thread| format!("t{thread}")), "reservation_id": id(place)})
    };
    match *op {
        Op::Reserve { engine, amount, ttl, thread } => reserve(next, engine, amount, ttl, thread),
        Op::Again { pick } => {
            let hold = &plain.holds[pick];
            reserve(pick, hold.engine, hold.amount, hold.asked.0, hold.thread)
        }
        Op::Settle { pick, settled, loss } => {
            json!({"op": "settle", "reservation_id": id(pick), "settled_amount": settled, "realized_loss": loss})
        }
        Op::Match { engine, reserved, settled, loss, thread } => {
            json!({"op": "settle", "engine": LEVELS[engine], "reserved_amount": reserved, "settled_amount": settled,
                "realized_loss": loss, "correlation_id": thread.map(|thread| format!("t{thread}"))})
        }
        Op::Release { pick } => json!({"op": "release", "reservation_id": id(pick)}),
        Op::Extend { pick, ttl } => json!({"op": "extend", "reservation_id": id(pick), "ttl_seconds": ttl}),
        Op::Adjust { seq, loss, delta } => {
            let field = if loss { "loss_delta" } else { "exposure_delta" };
            json!({"op": "adjust", "corrects_seq": seq, field: delta, "reason": "r"})
        }
    }
}

/// An answer in the terms of the plain ledger.
fn told(op: &Op, status: u16, answer: &Value) -> Value {
    if status != 200 {
        return json!([status, answer["error"]]);
    }
    let ledgers = json!([snapshot(&answer["ledger_engine"]), snapshot(&answer["ledger_global"])]);
    let each = |list: &Value, of: fn(&Value) -> Value| list.as_array().unwrap().iter().map(of).collect::<Value>();
    match op {
        Op::Reserve { .. } | Op::Again { .. } => {
            let failures = each(&answer["failures"], |failure| json!([failure["reason"], failure["scope"]]));
            json!([200, answer["ok"], failures, snapshot(&answer["ledger_snapshot"])])
        }
        Op::Settle { .. } | Op::Match { .. } => {
            let touched = each(&answer["reservations"], |one| json!([one["released"], one["status"]]));
            json!([200, answer["late"], answer["released"], answer["unmatched"], answer["flags"], touched, ledgers])
        }
        Op::Release { .. } => json!([200, answer["released"], answer["exposure_returned"], ledgers]),
        Op::Extend { .. } => json!([200, super::time(&answer["expires_at"]).timestamp_millis()]),
        Op::Adjust { .. } => json!([200, answer["flags"], ledgers]),
    }
}

/// Id, engine, amount, open amount, status, due.
type SeenHold = (String, String, i64, i64, String, Option<i64>);

/// The service and the plain ledger, side by side.
struct Both<'a> {
    service: &'a Service,
    clock: Standing<'a>,
    plain: Plain,
}

impl Both<'_> {
    /// Leaves out what cannot be sent: again what was never made.
    fn sendable(&self, ops: &[Op]) -> Vec<Op> {
        let made = self.plain.holds.len();
        ops.iter().filter(|op| !matches!(op, Op::Again { pick } if *pick >= made)).cloned().collect()
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::One(op) => self.one(op).await,
            Step::Together(ops) => self.together(ops).await,
            Step::DryRun { engine, amount } => {
                let body = json!({"engine": LEVELS[*engine], "amount": amount, "dry_run": true});
                let answer = self.service.post("/risk/check-and-reserve", &body).await.ok();
                let op = Op::Reserve { engine: *engine, amount: *amount, ttl: None, thread: None };
                assert_eq!(told(&op, 200, &answer), self.plain.would(*engine, *amount), "dry run");
            }
            Step::Pass { seconds } => {
                // A millisecond more, so that no two steps are whole seconds apart and nothing is due in between.
                let time = TimeDelta::milliseconds(seconds * 1000 + 1);
                self.plain.now_ms += time.num_milliseconds();
                self.clock.pass(time).await;
            }
            Step::SetCaps { level, caps } => {
                let mut body = json!({"engine": LEVELS[*level], "max_daily_loss": caps.loss, "max_daily_exposure": caps.exposure,
                    "max_open_risk": caps.open, "max_actions_per_day": caps.actions, "enabled": caps.enabled,
                    "allow_unlimited": true});
                if *level > 0 {
                    body["default_ttl_seconds"] = json!(caps.ttl.unwrap_or(0));
                }
                policy(self.service, body).await;
                self.plain.caps[*level] = caps.clone();
            }
            Step::KillSwitch(out) => {
                let path = if *out { "/go-live/kill-switch/engage" } else { "/go-live/kill-switch/release" };
                self.service.post(path, &json!({})).await.ok();
                self.plain.killed = *out;
            }
            Step::Tick => {
                super::expire_due(self.service).await;
                self.plain.expire_due();
            }
        }
        self.compare().await;
    }

    async fn one(&mut self, op: &Op) {
        let [op] = &self.sendable(std::slice::from_ref(op))[..] else {
            return;
        };
        let mut body = body(op, &self.plain, self.plain.holds.len());
        let fields = body.as_object_mut().unwrap();
        fields.remove("op");
        let path = match op {
            Op::Reserve { .. } | Op::Again { .. } => "/risk/check-and-reserve".to_owned(),
            Op::Settle { .. } | Op::Match { .. } => "/risk/settle".to_owned(),
            Op::Adjust { .. } => "/risk/adjustments".to_owned(),
            Op::Release { pick } => format!("/risk/reservations/{}/release", id(*pick)),
            Op::Extend { pick, .. } => format!("/risk/reservations/{}/extend", id(*pick)),
        };
        if matches!(op, Op::Release { .. } | Op::Extend { .. }) {
            fields.remove("reservation_id");
        }
        let answer = self.service.post(&path, &body).await;
        let expected = self.plain.decide(std::slice::from_ref(op));
        assert_eq!(told(op, answer.status.as_u16(), &answer.json), expected[0], "{op:?}: {}", answer.text);
    }

    async fn together(&mut self, ops: &[Op]) {
        let ops = self.sendable(ops);
        if ops.is_empty() {
            return;
        }
        // The place of a new hold depends on which reserves before it were allowed, which the plain ledger knows.
        let (mut ahead, mut bodies) = (self.plain.clone(), Vec::new());
        ahead.expire_due();
        for op in &ops {
            bodies.push(body(op, &ahead, ahead.holds.len()));
            ahead.apply(op);
        }
        let before = self.plain.events.len();
        let answer = self.service.post("/risk/batch", &json!({"operations": bodies})).await.ok();
        let expected = self.plain.decide(&ops);
        for ((op, result), expected) in ops.iter().zip(answer["results"].as_array().unwrap()).zip(expected) {
            let status = u16::try_from(result["status"].as_u64().unwrap()).unwrap();
            let said = if result["error"].is_null() { &result["answer"] } else { &result["error"] };
            assert_eq!(told(op, status, said), expected, "{op:?} of {ops:?}: {result}");
        }
        let commits = "SELECT count(DISTINCT xmin::text) FROM risk_event WHERE seq > $1";
        let before = i64::try_from(before).unwrap();
        let commits: i64 = sqlx::query_scalar(commits).bind(before).fetch_one(&self.service.pool).await.unwrap();
        assert!(commits <= 1, "a batch is one commit");
    }

    /// The tables are what the plain ledger says.
    async fn compare(&self) {
        let pool = &self.service.pool;
        // Events, all of them, in order.
        let sql = "SELECT (at AT TIME ZONE 'UTC')::date - DATE '1970-01-01' AS day, day = (at AT TIME ZONE 'UTC')::date AS same,
                engine, action, amount::bigint, exposure_delta::bigint, open_delta::bigint, loss_delta::bigint, actions_delta,
                denial, scope FROM risk_event ORDER BY seq";
        let rows = sqlx::query(sql).fetch_all(pool).await.unwrap();
        let level = |name: String| LEVELS.iter().position(|level| *level == name).unwrap();
        let seen: Vec<_> = rows
            .iter()
            .map(|row| {
                assert!(row.get::<bool, _>(1));
                let action: String = row.get(3);
                let known = ["RESERVE", "DENY", "SETTLE", "RELEASE", "EXTEND", "EXPIRE", "ADJUST"];
                Event {
                    day: i64::from(row.get::<i32, _>(0)),
                    engine: level(row.get(2)),
                    action: known.into_iter().find(|known| *known == action).unwrap(),
                    amount: row.get(4),
                    moved: [row.get(5), row.get(6), row.get(7), row.get(8)],
                    denial: row.get::<Option<String>, _>(9).zip(row.get(10)),
                }
            })
            .collect();
        assert_eq!(seen, self.plain.events);
        self.compare_holds().await;
        self.compare_counters().await;
    }

    async fn compare_holds(&self) {
        let sql = "SELECT id::text, engine, amount::bigint, open_amount::bigint, status, expires_at FROM risk_reservation ORDER BY seq";
        let rows = sqlx::query(sql).fetch_all(&self.service.pool).await.unwrap();
        let seen: Vec<_> = rows
            .iter()
            .map(|row| {
                let due: Option<DateTime<Utc>> = row.get(5);
                (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4), due.map(|due| due.timestamp_millis()))
            })
            .collect();
        let holds = self.plain.holds.iter().enumerate();
        let expected: Vec<SeenHold> = holds
            .map(|(pick, hold)| {
                let due = hold.due.map(|(due, _)| due);
                (id(pick), LEVELS[hold.engine].to_owned(), hold.amount, hold.open, hold.status.to_owned(), due)
            })
            .collect();
        assert_eq!(seen, expected);
    }

    async fn compare_counters(&self) {
        let pool = &self.service.pool;
        for (level, name) in LEVELS.iter().enumerate() {
            let stock = "SELECT COALESCE(sum(open_amount), 0)::bigint FROM risk_open WHERE engine = $1";
            let stock: i64 = sqlx::query_scalar(stock).bind(*name).fetch_one(pool).await.unwrap();
            assert_eq!(stock, self.plain.counters(level, 0)[1], "stock of {name}");
            let flows = "SELECT day - DATE '1970-01-01', exposure_used::bigint, realized_loss::bigint, actions_count
                FROM risk_ledger_day WHERE engine = $1";
            let rows = sqlx::query(flows).bind(*name).fetch_all(pool).await.unwrap();
            let seen: BTreeMap<i64, [i64; 3]> = rows
                .iter()
                .map(|row| (i64::from(row.get::<i32, _>(0)), [row.get(1), row.get(2), row.get(3)]))
                .collect();
            let days = self.plain.events.iter().map(|event| event.day).chain(seen.keys().copied());
            for day in days.collect::<std::collections::BTreeSet<_>>() {
                let [exposure, _, loss, actions] = self.plain.counters(level, day);
                let flows = seen.get(&day).copied().unwrap_or_default();
                assert_eq!(flows, [exposure, loss, actions], "flows of {name} on {day}");
                assert!(exposure >= 0 && loss >= 0 && stock >= 0);
            }
        }
        let sql = "SELECT day - DATE '1970-01-01', engine, scope, reason, denied FROM risk_denial_day";
        let rows = sqlx::query(sql).fetch_all(pool).await.unwrap();
        let seen: BTreeMap<_, _> = rows
            .iter()
            .map(|row| ((i64::from(row.get::<i32, _>(0)), row.get(1), row.get(2), row.get(3)), row.get(4)))
            .collect();
        assert_eq!(seen, self.plain.denials());
    }
}

async fn live(steps: &[Step]) {
    let service = Service::live().await;
    let caps = Caps { loss: 50, exposure: 700, open: 500, actions: 30, enabled: true, ttl: None };
    // Near enough to midnight that most lives cross it.
    let clock = Standing::at(&service, "23:00").await;
    let now_ms = clock.at.timestamp_millis();
    assert_eq!(now_ms.rem_euclid(DAY_MS), 23 * 3_600_000);
    let mut both = Both { service: &service, clock, plain: Plain::new(now_ms, vec![caps.clone(); 3]) };
    for (level, _) in LEVELS.iter().enumerate() {
        both.step(&Step::SetCaps { level, caps: caps.clone() }).await;
    }
    for step in steps {
        both.step(step).await;
    }
    assert_eq!(service.get("/risk/reconciliation").await.ok()["balanced"], true);
    assert_eq!(crate::support::broken_links(&service.pool).await, [""; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 8,
        // The failing steps are printed; a file of them would be left behind.
        failure_persistence: None,
        max_shrink_iters: 300,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_life_of_a_ledger_is_that_of_the_plain_one(steps in proptest::collection::vec(step(), 30..50)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(live(&steps));
    }
}
