//! The repeated requests of one connection, and their answers.

use crate::answers::{self, ID_BYTES};
use crate::http::{self, Answer, Connection};
use std::io;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicU32, Ordering};

/// The request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Work {
    /// A reserve of 1.
    Reserve { engine: &'static str },
    /// A reserve of 1, then its settle.
    Lifecycle { engine: &'static str },
    /// A reserve of 1 with an `Idempotency-Key` of its own.
    Keyed { engine: &'static str },
    /// Many reserves of 1 in one call.
    Batch { engine: &'static str, operations: usize },
}

/// Answers, by what they said.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// Reserves that were allowed.
    pub(crate) allowed: u64,
    /// Reserves that were denied.
    pub(crate) denied: u64,
    /// Settles.
    pub(crate) settled: u64,
    /// 503s: requests, whatever was in them.
    pub(crate) unavailable: u64,
    /// Any other status.
    pub(crate) errors: u64,
    /// Requests whose connection broke: what came of them is not known.
    pub(crate) broken: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.allowed += other.allowed;
        self.denied += other.denied;
        self.settled += other.settled;
        self.unavailable += other.unavailable;
        self.errors += other.errors;
        self.broken += other.broken;
    }
}

impl Counts {
    /// Operations that were decided.
    pub(crate) fn decided(self) -> u64 {
        self.allowed + self.denied + self.settled
    }

    /// Whether every request was answered with a decision, so that the ledger holds exactly what was answered.
    pub(crate) fn all_known(self) -> bool {
        self.unavailable + self.errors + self.broken == 0
    }
}

/// The part of one connection.
#[derive(Debug)]
pub(crate) struct Script {
    work: Work,
    first: Vec<u8>,
    settle: Vec<u8>,
    requests: u64,
    /// The reservations that were granted, where they are kept.
    pub(crate) ids: Option<Vec<u128>>,
    /// The first answer that was not expected.
    pub(crate) strange: Option<String>,
}

/// Stands in a prebuilt settle where the id goes.
const HOLE: &str = "00000000-0000-0000-0000-000000000000";
/// Digits at the end of a key.
const KEY_DIGITS: usize = 12;

impl Script {
    pub(crate) fn new(work: Work, keep_ids: bool) -> Self {
        static CONNECTIONS: AtomicU32 = AtomicU32::new(1);
        let first = match work {
            Work::Reserve { engine } | Work::Lifecycle { engine } => {
                http::post(answers::RESERVE, "", &answers::reserve_of_one(engine))
            }
            Work::Keyed { engine } => {
                let connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
                let key = format!("Idempotency-Key: bench-{connection}-{:0KEY_DIGITS$}\r\n", 0);
                http::post(answers::RESERVE, &key, &answers::reserve_of_one(engine))
            }
            Work::Batch { engine, operations } => {
                let one = format!(r#"{{"op":"reserve","engine":"{engine}","amount":1}}"#);
                let all = vec![one; operations].join(",");
                http::post(answers::BATCH, "", &format!(r#"{{"operations":[{all}]}}"#))
            }
        };
        let settle = http::post(answers::SETTLE, "", &format!(r#"{{"actor":"bench","reservation_id":"{HOLE}"}}"#));
        Self { work, first, settle, requests: 0, ids: keep_ids.then(Vec::new), strange: None }
    }

    /// Does it once.
    pub(crate) async fn run(&mut self, connection: &mut Connection) -> io::Result<Counts> {
        self.requests += 1;
        match self.work {
            Work::Reserve { .. } => {}
            Work::Keyed { .. } => self.next_key(),
            Work::Batch { operations, .. } => return self.batch(connection, operations).await,
            Work::Lifecycle { .. } => return self.lifecycle(connection).await,
        }
        let answer = connection.exchange(&self.first).await?;
        Ok(self.reserved(answer).0)
    }

    async fn lifecycle(&mut self, connection: &mut Connection) -> io::Result<Counts> {
        let answer = connection.exchange(&self.first).await?;
        let (mut counts, id) = self.reserved(answer);
        let Some(id) = id else { return Ok(counts) };
        let hole = self.settle.len() - ID_BYTES - 2;
        self.settle[hole..hole + ID_BYTES].copy_from_slice(&id);
        let answer = connection.exchange(&self.settle).await?;
        match answer.status {
            200 if answer.ok() == Some(true) => counts.settled += 1,
            503 => counts.unavailable += 1,
            _ => self.error(answer, &mut counts),
        }
        Ok(counts)
    }

    async fn batch(&mut self, connection: &mut Connection, operations: usize) -> io::Result<Counts> {
        let mut counts = Counts::default();
        let answer = connection.exchange(&self.first).await?;
        match answer.status {
            200 => {
                (counts.allowed, counts.denied) = answer.oks();
                // An operation that failed has no `ok`.
                let failed = (operations as u64).saturating_sub(counts.decided());
                if failed > 0 {
                    counts.errors += failed;
                    self.strange.get_or_insert_with(|| answer.excerpt());
                }
                if let Some(ids) = &mut self.ids {
                    ids.extend(answer.ids().filter_map(answers::id_of));
                }
            }
            503 => counts.unavailable += 1,
            _ => self.error(answer, &mut counts),
        }
        Ok(counts)
    }

    /// The decision in the answer to a reserve, and the id as text if it was allowed.
    fn reserved(&mut self, answer: Answer<'_>) -> (Counts, Option<[u8; ID_BYTES]>) {
        let mut counts = Counts::default();
        let id = || answer.ids().next().and_then(|id| <[u8; ID_BYTES]>::try_from(id).ok());
        match (answer.status, answer.ok()) {
            (200, Some(true)) => {
                counts.allowed += 1;
                let id = id();
                if let Some((ids, id)) = self.ids.as_mut().zip(id.and_then(|id| answers::id_of(&id))) {
                    ids.push(id);
                }
                return (counts, id);
            }
            (200, Some(false)) => counts.denied += 1,
            (503, _) => counts.unavailable += 1,
            _ => self.error(answer, &mut counts),
        }
        (counts, None)
    }

    fn error(&mut self, answer: Answer<'_>, counts: &mut Counts) {
        counts.errors += 1;
        self.strange.get_or_insert_with(|| answer.excerpt());
    }

    fn next_key(&mut self) {
        let digits = format!("{:0KEY_DIGITS$}\r\n", self.requests);
        // The key's line is the one before `Content-Length`, which is the last before the body.
        let body = answers::reserve_of_one(self.engine()).len();
        let rest = format!("Content-Length: {body}\r\n\r\n").len() + body;
        let at = self.first.len() - rest - digits.len();
        self.first[at..at + digits.len()].copy_from_slice(digits.as_bytes());
    }

    fn engine(&self) -> &'static str {
        match self.work {
            Work::Reserve { engine }
            | Work::Lifecycle { engine }
            | Work::Keyed { engine }
            | Work::Batch { engine, .. } => engine,
        }
    }
}
