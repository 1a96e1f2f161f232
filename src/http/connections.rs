//! The connections of a listener, and the choice of those that make room.
//!
//! The number of connections is limited by the open files of the process. When all places are taken, a waiting
//! connection ends to make room: of the address with the most connections, those that have waited longest for a request
//! or for its body. So nobody keeps others out with many connections, and a flood from elsewhere ends no busy
//! connection. A few more places are reserved for the switches and the probes, for one request each.

use crate::clock::Clock;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Most connections that may stay, if the process may open enough files.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Connections beyond those, for one request each that stops something or asks for the state of the service.
pub const CONNECTIONS_KEPT: usize = 1_024;
/// Files for everything else: connections to the database, logs, the runtime, the kill file.
const FILES_OTHER: usize = 128;
/// Files that are not connections of the main listener.
const FILES_BESIDE: usize = FILES_OTHER + Limits::METRICS.staying + Limits::METRICS.kept;
/// The share of the connections that make room at once: each search looks at all of them.
const ROOM_SHARE: usize = 256;
/// How long a new connection waits for the freed place: a hurried stop answers first.
const ROOM_TIMEOUT: Duration = Duration::from_secs(1);

/// The counter of connections that made room.
pub(super) fn made_room() -> metrics::Counter {
    metrics::counter!("holdfast_connections_made_room_total")
}

/// The number of connections of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections that stay.
    pub staying: usize,
    /// Connections that are reserved for the switches and the probes.
    pub kept: usize,
}

impl Limits {
    /// The limits of a listener for metrics alone.
    pub const METRICS: Self = Self { staying: 48, kept: 16 };

    /// The limits of the main listener, for a process that may open this many files.
    #[must_use]
    pub fn of_files(files: u64) -> Self {
        let free = usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(FILES_BESIDE);
        let kept = (free / 8).clamp(8, CONNECTIONS_KEPT);
        Self { staying: free.saturating_sub(kept).clamp(8, CONNECTIONS_MAX), kept }
    }

    /// The number of files that a process needs for the largest limits.
    #[must_use]
    pub const fn files_wanted() -> usize {
        FILES_BESIDE + CONNECTIONS_MAX + CONNECTIONS_KEPT
    }
}

/// The use of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any number of requests.
    Staying,
    /// One request, of those that are always served.
    Kept,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    /// A request.
    Request,
    /// The body of a request that has not started.
    Body,
    /// The body of a stop, which proceeds without its body instead of making room.
    Stop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Activity {
    /// A request is being served.
    Works,
    Waits(Wait),
    /// It has made room, or the listener ends.
    Gone,
}

/// A wait and its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wait {
    what: For,
    since_ns: u64,
}

impl Wait {
    /// The order in which waits make room: the longest first, and stops last. A wait for a request has no other rank
    /// than a wait for a body: otherwise each new connection would make room for the next while bodies stall.
    fn order(self) -> (bool, u64) {
        (self.what == For::Stop, self.since_ns)
    }
}

#[derive(Debug)]
struct State {
    activity: Activity,
    /// True if a stop hurries, because another connection needs its place after the answer.
    hurries: bool,
}

/// One connection, as the service of its requests sees it.
#[derive(Debug)]
pub struct Connection {
    peer: IpAddr,
    kind: Kind,
    clock: Clock,
    state: Mutex<State>,
    gone: Notify,
    hurry: Notify,
}

impl Connection {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True for a reserved place.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.kind == Kind::Kept
    }

    /// Marks the start of a request: the connection makes no room from now on. False if it has already made room.
    pub(crate) fn works(&self) -> bool {
        let mut state = self.state();
        if state.activity == Activity::Gone {
            return false;
        }
        state.activity = Activity::Works;
        true
    }

    /// Marks the start of a wait.
    pub(crate) fn waits(&self, what: For) {
        let since_ns = self.clock.now_ns();
        let mut state = self.state();
        if state.activity == Activity::Works {
            state.activity = Activity::Waits(Wait { what, since_ns });
        }
    }

    /// Resolves when a stop should no longer wait for its body.
    pub(crate) async fn hurried(&self) {
        self.hurry.notified().await;
    }

    /// True if the connection must end after its answer, because another one needs its place.
    pub(crate) fn ends(&self) -> bool {
        self.state().hurries
    }

    /// The current wait; none while a request is served.
    fn wait(&self) -> Option<Wait> {
        if let Activity::Waits(wait) = self.state().activity { Some(wait) } else { None }
    }

    /// Makes it make room, if it is still in this wait.
    fn make_room(&self, wait: Wait) {
        let mut state = self.state();
        if state.activity != Activity::Waits(wait) {
            return;
        }
        if wait.what == For::Stop {
            *state = State { activity: Activity::Works, hurries: true };
            self.hurry.notify_one();
        } else {
            state.activity = Activity::Gone;
            made_room().increment(1);
            self.gone.notify_one();
        }
    }

    fn end(&self) {
        self.state().activity = Activity::Gone;
        self.gone.notify_one();
    }
}

/// All connections of one listener. Cheap to clone; all clones share one state.
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

/// An open connection that keeps its place until it is dropped.
#[derive(Debug)]
pub struct OpenConnection {
    connections: Connections,
    number: u64,
    connection: Arc<Connection>,
    _permit: OwnedSemaphorePermit,
}

impl OpenConnection {
    /// The state that the service of its requests shares.
    #[must_use]
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Resolves when the connection must end: it makes room, or the listener ends.
    pub async fn ended(&self) {
        self.connection.gone.notified().await;
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.connections.open().connections.remove(&self.number);
    }
}

impl Connections {
    /// An empty set with these limits.
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

    /// A place for a connection from this address; none if no connection can make room.
    pub async fn admit(&self, peer: IpAddr) -> Option<OpenConnection> {
        for (kind, places) in [(Kind::Staying, &self.0.staying), (Kind::Kept, &self.0.kept)] {
            if let Ok(permit) = Arc::clone(places).try_acquire_owned() {
                return Some(self.opened(peer, kind, permit));
            }
            if self.make_room(kind) == 0 {
                continue;
            }
            // The connection that made room is closing: its file is freed before another one is used.
            let freed = tokio::time::timeout(ROOM_TIMEOUT, Arc::clone(places).acquire_owned()).await;
            if let Ok(Ok(permit)) = freed {
                return Some(self.opened(peer, kind, permit));
            }
        }
        None
    }

    fn opened(&self, peer: IpAddr, kind: Kind, permit: OwnedSemaphorePermit) -> OpenConnection {
        let clock = self.0.clock.clone();
        let activity = Activity::Waits(Wait { what: For::Request, since_ns: clock.now_ns() });
        let state = Mutex::new(State { activity, hurries: false });
        let (peer, gone, hurry) = (network(peer), Notify::new(), Notify::new());
        let connection = Arc::new(Connection { peer, kind, clock, state, gone, hurry });
        let mut open = self.open();
        let number = open.next;
        open.next += 1;
        open.connections.insert(number, Arc::clone(&connection));
        drop(open);
        OpenConnection { connections: self.clone(), number, connection, _permit: permit }
    }

    /// Ends all connections, busy ones too.
    pub fn end_all(&self) {
        for connection in self.open().connections.values() {
            connection.end();
        }
    }

    /// Ends a few waiting connections: first those of the address with the most, then those that have been idle
    /// longest. Returns how many.
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
                let wait = connection.wait()?;
                let has = by_peer.get(&connection.peer).copied().unwrap_or_default();
                Some(((Reverse(has), wait.order()), wait, connection))
            })
            .collect();
        let count = (1 + waiting.len() / ROOM_SHARE).min(waiting.len());
        if count == 0 {
            return 0;
        }
        waiting.select_nth_unstable_by_key(count - 1, |(key, _, _)| *key);
        for (_, wait, connection) in &waiting[..count] {
            connection.make_room(*wait);
        }
        count
    }
}

/// The owner of an address: a customer of IPv6 has at least 64 bits of addresses.
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
        let most = Limits::of_files(1_048_576);
        assert_eq!(most, Limits { staying: CONNECTIONS_MAX, kept: CONNECTIONS_KEPT });
        for files in [64, 256, 512, 1_024, 4_096, 12_000, 1 << 40] {
            let limits = Limits::of_files(files);
            assert!(limits.kept >= 8 && limits.staying >= 8, "{files}: {limits:?}");
            assert!(
                files < 256 || (limits.staying + limits.kept + FILES_BESIDE) as u64 <= files,
                "{files}: {limits:?}"
            );
        }
        assert_eq!(Limits::of_files(Limits::files_wanted() as u64), most);
        assert_ne!(Limits::of_files(Limits::files_wanted() as u64 - 1), most);
    }

    #[tokio::test]
    async fn the_address_with_the_most_makes_room_and_of_those_the_longest_idle() {
        let connections = Connections::new(Limits { staying: 4, kept: 1 });
        let [first, other]: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        let mut open = Vec::new();
        for peer in [other, first, first, first] {
            open.push(connections.admit(peer).await.unwrap());
        }
        // A busy connection makes no room, however many its address has.
        assert!(open[1].connection().works());
        assert_eq!(connections.make_room(Kind::Staying), 1);
        let is_gone = |open: &OpenConnection| open.connection().state().activity == Activity::Gone;
        assert_eq!(open.iter().map(is_gone).collect::<Vec<_>>(), [false, false, true, false]);
        // It has made room and can start nothing more.
        assert!(!open[2].connection().works());
        open.remove(2);
        let next = connections.admit(other).await.unwrap();
        assert!(!next.connection().is_kept());
        assert!(open.iter().chain([&next]).all(|one| one.connection().works()));
        assert_eq!(connections.make_room(Kind::Staying), 0);
        let kept = connections.admit(first).await.unwrap();
        assert!(kept.connection().is_kept() && kept.connection().works());
        assert!(connections.admit(first).await.is_none());
    }

    /// A connection that waits for the body of a request.
    async fn awaiting(connections: &Connections, what: For) -> OpenConnection {
        let one = connections.admit([10, 0, 0, 1].into()).await.unwrap();
        assert!(one.connection().works());
        one.connection().waits(what);
        one
    }

    #[tokio::test]
    async fn a_new_connection_makes_no_room_before_bodies_that_stall() {
        let connections = Connections::new(Limits { staying: 2, kept: 1 });
        let stalled = awaiting(&connections, For::Body).await;
        let new = connections.admit([10, 0, 0, 1].into()).await.unwrap();
        assert_eq!(connections.make_room(Kind::Staying), 1);
        assert!(new.connection().works() && !stalled.connection().works());
    }

    #[tokio::test]
    async fn a_stop_that_waits_for_its_body_goes_on_instead_of_making_room() {
        let connections = Connections::new(Limits { staying: 1, kept: 1 });
        let one = awaiting(&connections, For::Stop).await;
        assert_eq!(connections.make_room(Kind::Staying), 1);
        one.connection().hurried().await;
        // The client has already been told that the connection ends with the answer.
        assert!(one.connection().works() && one.connection().ends());
    }
}
