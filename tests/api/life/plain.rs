//! The ledger as one would explain it on paper: whole amounts, milliseconds, lists, and sums made anew every time. It knows
//! nothing of how the service does it, and answers as the service must.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

pub(super) const LEVELS: [&str; 3] = ["GLOBAL", "A", "B"];
pub(super) const DAY_MS: i64 = 86_400_000;

#[derive(Debug, Clone)]
pub(super) struct Caps {
    pub(super) loss: i64,
    pub(super) exposure: i64,
    pub(super) open: i64,
    pub(super) actions: i64,
    pub(super) enabled: bool,
    pub(super) ttl: Option<i64>,
}

/// An operation. `pick` and `seq` choose among what there is; a little more than that, so that some is unknown.
#[derive(Debug, Clone)]
pub(super) enum Op {
    Reserve { engine: usize, amount: i64, ttl: Option<i64>, thread: Option<u8> },
    Again { pick: usize },
    Settle { pick: usize, settled: Option<i64>, loss: i64 },
    Match { engine: usize, reserved: i64, settled: Option<i64>, loss: i64, thread: Option<u8> },
    Release { pick: usize },
    Extend { pick: usize, ttl: i64 },
    Adjust { seq: i64, loss: bool, delta: i64 },
}

/// When a hold is due: the millisecond, and the event that said so, since later events are later within it.
type Due = (i64, usize);

#[derive(Debug, Clone)]
pub(super) struct Hold {
    pub(super) engine: usize,
    pub(super) amount: i64,
    pub(super) open: i64,
    pub(super) status: &'static str,
    pub(super) due: Option<Due>,
    day: i64,
    pub(super) thread: Option<u8>,
    /// The open amount at its expiry.
    unsettled: i64,
    /// The requests and their answers.
    pub(super) asked: (Option<i64>, Value),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) day: i64,
    pub(super) engine: usize,
    pub(super) action: &'static str,
    pub(super) amount: i64,
    /// Exposure, open, loss, actions.
    pub(super) moved: [i64; 4],
    /// Reason and scope.
    pub(super) denial: Option<(String, String)>,
}

#[derive(Debug, Clone)]
pub(super) struct Plain {
    pub(super) now_ms: i64,
    pub(super) killed: bool,
    pub(super) caps: Vec<Caps>,
    pub(super) holds: Vec<Hold>,
    pub(super) events: Vec<Event>,
    /// Threads of what was denied.
    denied: BTreeSet<u8>,
    /// By event, what corrections have added: exposure, loss.
    corrected: BTreeMap<i64, [i64; 2]>,
    /// The event that each correction goes back to.
    roots: BTreeMap<i64, i64>,
}

fn refusal(status: u16, code: &str) -> Value {
    json!([status, code])
}

impl Plain {
    pub(super) fn new(now_ms: i64, caps: Vec<Caps>) -> Self {
        Self {
            now_ms,
            killed: false,
            caps,
            holds: Vec::new(),
            events: Vec::new(),
            denied: BTreeSet::new(),
            corrected: BTreeMap::new(),
            roots: BTreeMap::new(),
        }
    }

    fn today(&self) -> i64 {
        self.now_ms.div_euclid(DAY_MS)
    }

    pub(super) fn is_of(level: usize, engine: usize) -> bool {
        level == 0 || level == engine
    }

    /// Exposure, open, loss, actions: flows are sums of the day's events, the stock is a sum of what is open.
    pub(super) fn counters(&self, level: usize, day: i64) -> [i64; 4] {
        let mut sums = [0; 4];
        for event in self.events.iter().filter(|event| event.day == day && Self::is_of(level, event.engine)) {
            for place in [0, 2, 3] {
                sums[place] += event.moved[place];
            }
        }
        sums[1] = self.holds.iter().filter(|hold| Self::is_of(level, hold.engine)).map(|hold| hold.open).sum();
        sums
    }

    fn now(&self, level: usize) -> [i64; 4] {
        self.counters(level, self.today())
    }

    /// The reason that stops a new hold, and with an amount the reason that stops that amount.
    fn failures(&self, engine: usize, amount: Option<i64>) -> Vec<(String, String)> {
        let mut failures = Vec::new();
        if self.killed {
            failures.push(("kill_switch_engaged".into(), "SYSTEM".into()));
        }
        for level in [0, engine] {
            let (caps, [exposure, open, loss, actions]) = (&self.caps[level], self.now(level));
            let mut fails = |fails: bool, reason: &str| {
                if fails {
                    failures.push((reason.to_owned(), LEVELS[level].to_owned()));
                }
            };
            fails(!caps.enabled, "policy_disabled");
            let Some(amount) = amount else {
                continue;
            };
            fails(caps.actions > 0 && actions + 1 > caps.actions, "daily_actions_exceeded");
            fails(caps.exposure > 0 && exposure + amount > caps.exposure, "daily_exposure_exceeded");
            fails(caps.open > 0 && open + amount > caps.open, "open_risk_exceeded");
            fails(caps.loss > 0 && loss >= caps.loss, "daily_loss_reached");
        }
        failures
    }

    fn book(&mut self, engine: usize, action: &'static str, amount: i64, moved: [i64; 4]) {
        self.events.push(Event { day: self.today(), engine, action, amount, moved, denial: None });
    }

    fn deny(&mut self, engine: usize, amount: i64, denial: (String, String)) {
        let denial = Some(denial);
        self.events.push(Event { day: self.today(), engine, action: "DENY", amount, moved: [0; 4], denial });
    }

    fn is_due(&self, hold: &Hold) -> bool {
        hold.status == "OPEN" && hold.due.is_some_and(|(due, _)| due <= self.now_ms)
    }

    fn end(&mut self, pick: usize, status: &'static str) {
        self.holds[pick].open = 0;
        self.holds[pick].status = status;
    }

    pub(super) fn expire_due(&mut self) {
        let mut due: Vec<usize> = (0..self.holds.len()).filter(|&pick| self.is_due(&self.holds[pick])).collect();
        due.sort_by_key(|&pick| (self.holds[pick].due, pick));
        for pick in due {
            let Hold { engine, open, .. } = self.holds[pick];
            self.holds[pick].unsettled = open;
            self.end(pick, "EXPIRED");
            self.book(engine, "EXPIRE", open, [0, -open, 0, 0]);
        }
    }

    fn ledgers(&self, engine: usize) -> Value {
        json!([self.now(engine), self.now(0)])
    }

    fn flags(&self, engine: usize) -> Vec<String> {
        let reached = |level: &usize| self.caps[*level].loss > 0 && self.now(*level)[2] >= self.caps[*level].loss;
        [0, engine]
            .iter()
            .filter(|level| reached(level))
            .map(|level| format!("{} daily loss cap reached", LEVELS[*level]))
            .collect()
    }

    /// Decides operations that were sent together.
    pub(super) fn decide(&mut self, ops: &[Op]) -> Vec<Value> {
        self.expire_due();
        ops.iter().map(|op| self.apply(op)).collect()
    }

    /// One after what came with it.
    pub(super) fn apply(&mut self, op: &Op) -> Value {
        match op {
            Op::Reserve { engine, amount, ttl, thread } => self.reserve(*engine, *amount, *ttl, *thread),
            Op::Again { pick } => match self.holds.get(*pick) {
                Some(hold) => self.again(hold),
                None => json!(null),
            },
            Op::Settle { pick, settled, loss } => self.settle(*pick, *settled, *loss),
            Op::Match { engine, reserved, settled, loss, thread } => {
                self.match_(*engine, *reserved, *settled, *loss, *thread)
            }
            Op::Release { pick } => self.release(*pick),
            Op::Extend { pick, ttl } => self.extend(*pick, *ttl),
            Op::Adjust { seq, loss, delta } => self.adjust(*seq, *loss, *delta),
        }
    }

    /// The answer that a reserve would get, without making it.
    pub(super) fn would(&self, engine: usize, amount: i64) -> Value {
        let mut copy = self.clone();
        copy.expire_due();
        copy.reserve(engine, amount, None, None)
    }

    fn reserve(&mut self, engine: usize, amount: i64, ttl: Option<i64>, thread: Option<u8>) -> Value {
        let failures = self.failures(engine, Some(amount));
        if let Some(first) = failures.first().cloned() {
            let shown = if first.1 == "GLOBAL" { 0 } else { engine };
            self.deny(engine, amount, first);
            self.denied.extend(thread);
            return json!([200, false, failures, self.now(shown)]);
        }
        let seconds = ttl.or(self.caps[engine].ttl);
        let due = seconds.map(|seconds| (self.now_ms + seconds * 1000, self.events.len()));
        let (day, asked) = (self.today(), (ttl, json!(null)));
        self.holds.push(Hold { engine, amount, open: amount, status: "OPEN", due, day, thread, unsettled: 0, asked });
        self.book(engine, "RESERVE", amount, [amount, amount, 0, 1]);
        let answer = json!([200, true, [], self.now(engine)]);
        self.holds.last_mut().expect("just made").asked.1 = answer.clone();
        answer
    }

    /// The kept answer, but allowed only if the hold is open and nothing stops a new one.
    fn again(&self, hold: &Hold) -> Value {
        let stops = match hold.status {
            "OPEN" => self.failures(hold.engine, None),
            _ => vec![("hold_ended".into(), LEVELS[hold.engine].into())],
        };
        let mut answer = hold.asked.1.clone();
        (answer[1], answer[2]) = (json!(stops.is_empty()), json!(stops));
        answer
    }

    /// How much exposure a settle for less gives back: what was reserved today, and no more than there is.
    fn back(&self, engine: usize, of_today: i64, unused: i64) -> i64 {
        of_today.min(unused.max(0)).min(self.now(engine)[0])
    }

    fn settle(&mut self, pick: usize, settled: Option<i64>, loss: i64) -> Value {
        let Some(hold) = self.holds.get(pick).cloned() else {
            return refusal(404, "NOT_FOUND");
        };
        let (late, reserved) = match hold.status {
            "OPEN" => (false, hold.open),
            "EXPIRED" => (true, hold.unsettled),
            "RELEASED" => return refusal(409, "ALREADY_RELEASED"),
            _ => return refusal(409, "ALREADY_SETTLED"),
        };
        let settled = settled.unwrap_or(reserved);
        let of_today = if hold.day == self.today() { reserved } else { 0 };
        let exposure = if settled >= reserved {
            settled - reserved
        } else {
            -self.back(hold.engine, of_today, reserved - settled)
        };
        self.end(pick, "SETTLED");
        self.book(hold.engine, "SETTLE", settled, [exposure, -hold.open, loss, 0]);
        let mut flags = if settled > reserved { vec!["overrun".to_owned()] } else { Vec::new() };
        flags.extend(self.flags(hold.engine));
        let touched = json!([[hold.open, "SETTLED"]]);
        json!([200, late, hold.open, 0, flags, touched, self.ledgers(hold.engine)])
    }

    fn match_(&mut self, engine: usize, reserved: i64, settled: Option<i64>, loss: i64, thread: Option<u8>) -> Value {
        let known =
            thread.is_some_and(|one| self.denied.contains(&one) || self.holds.iter().any(|hold| hold.thread == thread));
        let (mut found, mut of_today, mut touched) = (0, 0, Vec::new());
        for pick in 0..self.holds.len() {
            let (day, hold) = (self.today(), &mut self.holds[pick]);
            let matches = hold.engine == engine && hold.status == "OPEN" && (!known || hold.thread == thread);
            let taken = hold.open.min(reserved - found);
            if !matches || taken <= 0 {
                continue;
            }
            hold.open -= taken;
            if hold.open == 0 {
                hold.status = "SETTLED";
            }
            touched.push(json!([taken, hold.status]));
            found += taken;
            of_today += if hold.day == day { taken } else { 0 };
        }
        let settled = settled.unwrap_or(reserved);
        let exposure =
            if settled >= reserved { settled - reserved } else { -self.back(engine, of_today, found - settled) };
        self.book(engine, "SETTLE", settled, [exposure, -found, loss, 0]);
        let mut flags = Vec::new();
        if settled > reserved {
            flags.push("overrun".to_owned());
        }
        if found < reserved {
            flags.push("over_release".to_owned());
        }
        flags.extend(self.flags(engine));
        json!([200, false, found, reserved - found, flags, touched, self.ledgers(engine)])
    }

    fn still_open(&self, pick: usize) -> Result<Hold, Value> {
        let hold = self.holds.get(pick).cloned().ok_or_else(|| refusal(404, "NOT_FOUND"))?;
        match hold.status {
            "OPEN" => Ok(hold),
            status => Err(refusal(409, &format!("ALREADY_{status}"))),
        }
    }

    fn release(&mut self, pick: usize) -> Value {
        let hold = match self.still_open(pick) {
            Ok(hold) => hold,
            Err(refusal) => return refusal,
        };
        let of_today = if hold.day == self.today() { hold.open } else { 0 };
        let back = self.back(hold.engine, of_today, hold.open);
        self.end(pick, "RELEASED");
        self.book(hold.engine, "RELEASE", hold.open, [-back, -hold.open, 0, 0]);
        json!([200, hold.open, back, self.ledgers(hold.engine)])
    }

    fn extend(&mut self, pick: usize, ttl: i64) -> Value {
        let hold = match self.still_open(pick) {
            Ok(hold) => hold,
            Err(refusal) => return refusal,
        };
        let Some(due) = hold.due else {
            return refusal(409, "NEVER_EXPIRES");
        };
        if let Some(first) = self.failures(hold.engine, None).first().cloned() {
            self.deny(hold.engine, hold.open, first);
            return refusal(409, "EXTENSION_DENIED");
        }
        let longer = due.max((self.now_ms + ttl * 1000, self.events.len()));
        self.holds[pick].due = Some(longer);
        self.book(hold.engine, "EXTEND", hold.open, [0; 4]);
        json!([200, longer.0])
    }

    fn adjust(&mut self, seq: i64, loss: bool, delta: i64) -> Value {
        let corrected = usize::try_from(seq - 1).ok().and_then(|place| self.events.get(place));
        let Some(Event { engine, action, .. }) = corrected.cloned() else {
            return refusal(404, "NOT_FOUND");
        };
        if action == "DENY" {
            return refusal(422, "VALIDATION_FAILED");
        }
        let place = if loss { 2 } else { 0 };
        if [0, engine].iter().any(|&level| self.now(level)[place] + delta < 0) {
            return refusal(409, "ADJUSTMENT_OUT_OF_RANGE");
        }
        let root = self.roots.get(&seq).copied().unwrap_or(seq);
        let named = BTreeSet::from([seq, root]);
        let left = |one: &i64| {
            let booked = self.events[usize::try_from(one - 1).unwrap()].moved[place].max(0);
            booked + self.corrected.get(one).map_or(0, |added| added[place / 2])
        };
        if delta < 0 && named.iter().any(|one| left(one) + delta < 0) {
            return refusal(409, "ADJUSTMENT_OUT_OF_RANGE");
        }
        for one in named {
            self.corrected.entry(one).or_default()[place / 2] += delta;
        }
        self.roots.insert(i64::try_from(self.events.len()).unwrap() + 1, root);
        let mut moved = [0; 4];
        moved[place] = delta;
        self.book(engine, "ADJUST", delta.abs(), moved);
        json!([200, self.flags(engine), self.ledgers(engine)])
    }

    /// How often what was denied, where, why, by day.
    pub(super) fn denials(&self) -> BTreeMap<(i64, String, String, String), i64> {
        let mut denials = BTreeMap::new();
        for event in &self.events {
            if let Some((reason, scope)) = &event.denial {
                let key = (event.day, LEVELS[event.engine].to_owned(), scope.clone(), reason.clone());
                *denials.entry(key).or_insert(0) += 1;
            }
        }
        denials
    }
}
