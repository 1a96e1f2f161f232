//! The places of connections, and who makes room.
//!
//! Places are limited by the files that the process may open. When all are taken, those make room who lose nothing by it: of the
//! address that has the most connections, those that have waited the longest, for a request or for its body. So nobody keeps
//! others out by having many, and a flood from elsewhere costs no busy connection anything. A few places more are kept for the
//! switches and the probes, for one request each.

use crate::clock::Clock;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Connections that may stay, where the files suffice.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Connections beyond those, for one request each that stops something or asks how the service is.
pub const CONNECTIONS_KEPT: usize = 1_024;
/// Files for everything else: connections to the database, logs, the runtime, the kill file.
const FILES_OTHER: usize = 128;
/// Connections of a listener for metrics alone.
const METRICS: Limits = Limits { staying: 48, kept: 16 };
/// How many make room at once, of how many there are: looking for them costs a look at each.
const ROOM_SHARE: usize = 256;
/// How long a new connection waits for the room that was made: a stop that hurries answers first.
const ROOM_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections that made room.
pub(super) fn made_room() -> metrics::Counter {
    metrics::counter!("holdfast_connections_made_room_total")
}

/// How many connections there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Those that stay.
    pub staying: usize,
    /// Those that are kept for the switches and the probes.
    pub kept: usize,
}

impl Limits {
    /// The room of a process that may open so many files, and the part of it for metrics.
    #[must_use]
    pub fn of_files(files: u64) -> (Self, Self) {
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        let free = files.saturating_sub(FILES_OTHER + METRICS.staying + METRICS.kept);
        let kept = (free / 8).clamp(8, CONNECTIONS_KEPT);
        (Self { staying: free.saturating_sub(kept).clamp(8, CONNECTIONS_MAX), kept }, METRICS)
    }

    /// The files that a process needs to have all the connections that it would have.
    #[must_use]
    pub const fn files_wanted() -> usize {
        FILES_OTHER + METRICS.staying + METRICS.kept + CONNECTIONS_MAX + CONNECTIONS_KEPT
    }
}

/// The use of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any number of requests.
    Staying,
    /// One, of those that are served whatever goes on.
    Kept,
}

/// The thing that a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum For {
    /// A request.
    Request,
    /// The body of one of which nothing was begun.
    Body,
    /// The body of one that stops something, whatever it says: it goes on instead of making room.
    Stop,
}

const BUSY: u64 = 0;
const GONE: u64 = u64::MAX;
/// Bits of a state that say what is waited for; the others say since when.
const FOR_BITS: u32 = 2;

/// One connection, as whoever serves its requests sees it.
#[derive(Debug)]
pub struct Connection {
    peer: IpAddr,
    kind: Kind,
    clock: Clock,
    /// Busy, gone, or since when it waits for what.
    state: AtomicU64,
    gone: Notify,
    hurry: Notify,
    /// Whether it ends with the answer that it hurries for.
    ends: AtomicBool,
}

impl Connection {
    /// Whether it is one of the kept.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.kind == Kind::Kept
    }

    /// Something was begun: it makes no room from now on. False where it has made room already.
    pub(crate) fn works(&self) -> bool {
        let begin = |state| (state != GONE).then_some(BUSY);
        self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, begin).is_ok()
    }

    /// It waits from now on.
    pub(crate) fn waits(&self, what: For) {
        let word = (self.clock.now_ns() << FOR_BITS) | (what as u64 + 1);
        let _ = self.state.compare_exchange(BUSY, word, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Resolves when whoever waits for the body of a stop should do so no longer.
    pub(crate) async fn hurried(&self) {
        self.hurry.notified().await;
    }

    /// Whether it has hurried for others, who need its place when it has answered.
    pub(crate) fn ends(&self) -> bool {
        self.ends.load(Ordering::Acquire)
    }

    /// Since when it waits, and for what; none while it works.
    fn waiting(&self) -> Option<(For, u64)> {
        let word = self.state.load(Ordering::Acquire);
        let what = match word & ((1 << FOR_BITS) - 1) {
            _ if word == GONE => return None,
            1 => For::Request,
            2 => For::Body,
            3 => For::Stop,
            _ => return None,
        };
        Some((what, word))
    }

    /// Makes it make room, if it still waits.
    fn end(&self, what: For, word: u64) {
        let (next, told) = if what == For::Stop { (BUSY, &self.hurry) } else { (GONE, &self.gone) };
        if self.state.compare_exchange(word, next, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            self.ends.store(true, Ordering::Release);
            if next == GONE {
                made_room().increment(1);
            }
            told.notify_one();
        }
    }

    /// Ends it, whatever it does.
    fn close(&self) {
        self.state.store(GONE, Ordering::Release);
        self.gone.notify_one();
    }
}

/// All connections of one listener. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Connections(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    staying: Arc<Semaphore>,
    kept: Arc<Semaphore>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    connections: HashMap<u64, Arc<Connection>>,
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    connections: Connections,
    number: u64,
    connection: Arc<Connection>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// The connection.
    #[must_use]
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Resolves when it has to end: it makes room, or everything ends.
    pub async fn ended(&self) {
        self.connection.gone.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open().connections.remove(&self.number);
    }
}

impl Connections {
    /// Room for so many.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Inner {
            clock: Clock::system(),
            staying: Arc::new(Semaphore::new(limits.staying)),
            kept: Arc::new(Semaphore::new(limits.kept)),
            open: Mutex::default(),
        }))
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection from there; none where nobody can make room.
    pub async fn admit(&self, peer: IpAddr) -> Option<Place> {
        for (kind, places) in [(Kind::Staying, &self.0.staying), (Kind::Kept, &self.0.kept)] {
            if let Ok(permit) = Arc::clone(places).try_acquire_owned() {
                return Some(self.place(peer, kind, permit));
            }
            if self.make_room(kind) == 0 {
                continue;
            }
            // The connection that made room is on its way out: its file is closed before another one is taken.
            let freed = tokio::time::timeout(ROOM_TIMEOUT, Arc::clone(places).acquire_owned()).await;
            if let Ok(Ok(permit)) = freed {
                return Some(self.place(peer, kind, permit));
            }
        }
        None
    }

    fn place(&self, peer: IpAddr, kind: Kind, permit: OwnedSemaphorePermit) -> Place {
        let clock = self.0.clock.clone();
        let state = AtomicU64::new(BUSY);
        let peer = network(peer);
        let (gone, hurry, ends) = (Notify::new(), Notify::new(), AtomicBool::new(false));
        let connection = Arc::new(Connection { peer, kind, clock, state, gone, hurry, ends });
        connection.waits(For::Request);
        let mut open = self.open();
        let number = open.next;
        open.next += 1;
        open.connections.insert(number, Arc::clone(&connection));
        drop(open);
        Place { connections: self.clone(), number, connection, _permit: permit }
    }

    /// Ends all of them, also those that work.
    pub fn end_all(&self) {
        for connection in self.open().connections.values() {
            connection.close();
        }
    }

    /// Ends a few of those that wait: first of the address that has the most, then those that nothing was begun for the longest.
    /// Says how many.
    #[must_use]
    pub fn make_room(&self, kind: Kind) -> usize {
        let open = self.open();
        let mut by_peer: HashMap<IpAddr, usize> = HashMap::new();
        let of_kind = || open.connections.values().filter(|connection| connection.kind == kind);
        for connection in of_kind() {
            *by_peer.entry(connection.peer).or_default() += 1;
        }
        let mut waiting: Vec<_> = of_kind()
            .filter_map(|connection| {
                let (what, word) = connection.waiting()?;
                let has = by_peer.get(&connection.peer).copied().unwrap_or_default();
                // The word is by time first, among those that wait for the same.
                Some(((std::cmp::Reverse(has), what, word), connection))
            })
            .collect();
        let count = (1 + waiting.len() / ROOM_SHARE).min(waiting.len());
        if count == 0 {
            return 0;
        }
        waiting.select_nth_unstable_by_key(count - 1, |(key, _)| *key);
        for ((_, what, word), connection) in &waiting[..count] {
            connection.end(*what, *word);
        }
        count
    }
}

/// Addresses of one owner as one: a customer of IPv6 has at least 64 bits of them.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_follow_the_files_and_leave_some_for_the_switches() {
        let (most, metrics) = Limits::of_files(1_048_576);
        assert_eq!(most, Limits { staying: CONNECTIONS_MAX, kept: CONNECTIONS_KEPT });
        for files in [64, 256, 512, 1_024, 4_096, 12_000, 1 << 40] {
            let (limits, _) = Limits::of_files(files);
            let all = limits.staying + limits.kept + metrics.staying + metrics.kept + FILES_OTHER;
            assert!(limits.kept >= 8 && limits.staying >= 8, "{files}: {limits:?}");
            assert!(files < 256 || all as u64 <= files, "{files}: {limits:?}");
        }
        let wanted = Limits::of_files(Limits::files_wanted() as u64).0;
        assert_eq!(wanted, most);
        assert_ne!(Limits::of_files(Limits::files_wanted() as u64 - 1).0, most);
    }

    #[tokio::test]
    async fn the_address_with_the_most_makes_room_and_of_those_the_longest_idle() {
        let connections = Connections::new(Limits { staying: 4, kept: 1 });
        let [one, other]: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        let mut places = Vec::new();
        for peer in [other, one, one, one] {
            places.push(connections.admit(peer).await.unwrap());
        }
        // One that works makes no room, however many its address has.
        assert!(places[1].connection().works());
        assert_eq!(connections.make_room(Kind::Staying), 1);
        let gone = |place: &Place| place.connection().state.load(Ordering::Acquire) == GONE;
        assert_eq!(places.iter().map(gone).collect::<Vec<_>>(), [false, false, true, false]);
        // It has, and can begin nothing more.
        assert!(!places[2].connection().works());
        places.remove(2);
        let next = connections.admit(other).await.unwrap();
        assert!(!next.connection().is_kept());
        for place in places.iter().chain([&next]) {
            assert!(place.connection().works());
        }
        assert_eq!(connections.make_room(Kind::Staying), 0);
        let kept = connections.admit(one).await.unwrap();
        assert!(kept.connection().is_kept());
        assert!(kept.connection().works());
        assert!(connections.admit(one).await.is_none());
    }

    #[tokio::test]
    async fn a_stop_that_waits_for_its_body_goes_on_instead_of_making_room() {
        let connections = Connections::new(Limits { staying: 1, kept: 1 });
        let place = connections.admit([10, 0, 0, 1].into()).await.unwrap();
        assert!(place.connection().works());
        place.connection().waits(For::Stop);
        assert_eq!(connections.make_room(Kind::Staying), 1);
        place.connection().hurried().await;
        assert!(place.connection().works());
    }
}
