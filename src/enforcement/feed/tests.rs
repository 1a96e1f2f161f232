use super::*;
use crate::db::history::{self, Heads};
use crate::enforcement::gate::{EnforcementScope, Verdict, decide};
use crate::enforcement::instance::Configuration;
use crate::enforcement::kill_file::Found;
use crate::enforcement::{ExecutionClass, RouteClass};
use proptest::prelude::*;
use uuid::Uuid;

const HISTORY: Uuid = Uuid::from_u128(1);
const MS: u64 = 1_000_000;

pub(super) fn feed(clock: &Clock) -> Feed {
    let configuration = Configuration {
        enforcement: "all",
        execution_classes: None,
        state_lease_ms: 2_000,
        required_packs: Vec::new(),
    };
    Feed::new(clock.clone(), LEASE_MAX, Instance::new("test", &configuration), None, History::default())
}

fn reading(version: i64, go_live_enabled: bool, kill_switch_engaged: bool) -> Reading {
    Reading {
        version,
        go_live_enabled,
        kill_switch_engaged,
        found: history::Found { generation: HISTORY, follows: None, heads: Heads::new() },
        now: chrono::DateTime::UNIX_EPOCH,
        latest: chrono::DateTime::UNIX_EPOCH,
    }
}

/// The same reading in another history.
fn of(generation: Uuid, follows: Option<Uuid>, read: Reading) -> Reading {
    Reading { found: history::Found { generation, follows, heads: read.found.heads }, ..read }
}

fn take(feed: &Feed, read: &Reading, sent_ns: u64) -> Result<Vec<(Stream, Point)>> {
    feed.take(read, &feed.history().asked(), sent_ns)
}

const fn state(version: i64, go_live_enabled: bool, kill_switch_engaged: bool) -> GateState {
    GateState { version, go_live_enabled, kill_switch_engaged }
}

fn admits(feed: &Feed) -> bool {
    let class = RouteClass::Class(ExecutionClass::ProdExec);
    decide(class, feed.view(), EnforcementScope::All) == Verdict::Allow
}

#[test]
fn nothing_read_is_stale_and_the_lease_ends_exactly() {
    let clock = Clock::manual(10_000);
    let feed = feed(&clock);
    assert_eq!(feed.view(), View::Stale);
    feed.apply_own(state(1, true, false));
    assert_eq!(feed.view(), View::Stale, "a change of our own does not renew the lease");
    clock.advance(1);
    take(&feed, &reading(1, true, false), clock.now_ns()).unwrap();
    assert_eq!(feed.view(), View::Fresh { version: 1, go_live_enabled: true, kill_switch_engaged: false });
    clock.advance(2_000);
    assert!(admits(&feed));
    clock.advance(1);
    assert_eq!(feed.view(), View::Stale);
}

#[test]
fn the_lease_counts_from_before_the_read_was_sent() {
    let clock = Clock::manual(10_000);
    let feed = feed(&clock);
    let sent = clock.now_ns();
    clock.advance(1_999);
    take(&feed, &reading(1, true, false), sent).unwrap();
    assert!(admits(&feed));
    clock.advance(2);
    assert_eq!(feed.view(), View::Stale, "a slow answer is as old as its question");
}

#[test]
fn a_shorter_lease_is_kept_and_a_longer_one_is_not_believed() {
    let clock = Clock::manual(0);
    let shorter = feed(&clock);
    let instance = shorter.instance().clone();
    for (asked, lease) in [(500, 500), (10_000, 2_000), (1, 200)] {
        let feed = Feed::new(clock.clone(), Duration::from_millis(asked), instance.clone(), None, History::default());
        assert_eq!(feed.lease(), Duration::from_millis(lease));
    }
}

#[test]
fn an_overtaken_read_never_undoes_a_newer_change() {
    let clock = Clock::manual(10);
    let feed = feed(&clock);
    take(&feed, &reading(7, true, false), clock.now_ns()).unwrap();
    let sent = clock.now_ns();
    clock.advance(1);
    feed.apply_own(state(8, true, true));
    take(&feed, &reading(7, true, false), sent).unwrap();
    assert!(matches!(feed.view(), View::Fresh { version: 8, kill_switch_engaged: true, .. }));
}

#[test]
fn a_state_that_moves_backwards_blocks_everything_until_its_history_is_a_new_one() {
    for older in [reading(6, true, false), reading(7, false, false), reading(7, true, true)] {
        let clock = Clock::manual(10);
        let feed = feed(&clock);
        take(&feed, &reading(7, true, false), clock.now_ns()).unwrap();
        clock.advance(1);
        assert!(take(&feed, &older, clock.now_ns()).is_err());
        assert_eq!(feed.view(), View::Rewound, "{older:?}");
        clock.advance(1);
        // Any change in that history is refused, since it is not the known history.
        assert!(take(&feed, &reading(9, true, false), clock.now_ns()).is_err());
        assert_eq!(feed.view(), View::Rewound);
        let accepted = of(Uuid::from_u128(2), Some(HISTORY), reading(older.version + 1, true, false));
        take(&feed, &accepted, clock.now_ns()).unwrap();
        assert!(admits(&feed), "{:?}", feed.view());
        assert!(!feed.is_rewound());
    }
}

#[test]
fn another_history_is_a_rewind_unless_it_follows_the_known_one() {
    for (follows, admitted) in [(None, false), (Some(Uuid::from_u128(9)), false), (Some(HISTORY), true)] {
        let clock = Clock::manual(10);
        let feed = feed(&clock);
        take(&feed, &reading(7, true, false), clock.now_ns()).unwrap();
        clock.advance(1);
        let other = of(Uuid::from_u128(2), follows, reading(8, true, false));
        assert_eq!(take(&feed, &other, clock.now_ns()).is_ok(), admitted);
        assert_eq!(admits(&feed), admitted);
    }
}

#[test]
fn an_older_database_behind_an_empty_one_is_not_an_acceptance() {
    let clock = Clock::manual(10);
    let feed = feed(&clock);
    let other = |number| Uuid::from_u128(number);
    take(&feed, &reading(3, true, true), clock.now_ns()).unwrap();
    let next = |read: Reading| {
        clock.advance(1);
        take(&feed, &read, clock.now_ns()).is_ok()
    };
    // A restore: first the empty cluster, then the backup from before the engage, then changes in either.
    assert!(!next(of(other(2), None, reading(1, false, false))));
    for version in [2, 3, 9] {
        assert!(!next(reading(version, true, false)), "{version}");
    }
    assert!(!next(of(other(3), Some(other(7)), reading(4, true, false))));
    assert_eq!(feed.view(), View::Rewound);
    // Each of these histories may be the accepted one.
    assert!(next(of(other(4), Some(HISTORY), reading(3, true, false))));
    assert!(admits(&feed));
}

#[test]
fn a_rewind_that_was_accepted_before_it_was_noticed_is_none() {
    let clock = Clock::manual(10);
    let feed = feed(&clock);
    take(&feed, &reading(7, true, true), clock.now_ns()).unwrap();
    clock.advance(1);
    let accepted = of(Uuid::from_u128(2), Some(HISTORY), reading(3, true, false));
    take(&feed, &accepted, clock.now_ns()).unwrap();
    assert_eq!(feed.view(), View::Fresh { version: 3, go_live_enabled: true, kill_switch_engaged: false });
}

#[test]
fn a_rewound_database_blocks_at_the_next_read_though_it_takes_changes_of_our_own() {
    let clock = Clock::manual(10);
    let feed = feed(&clock);
    take(&feed, &reading(13, true, false), clock.now_ns()).unwrap();
    feed.apply_own(state(2, false, true));
    clock.advance(1);
    assert!(take(&feed, &reading(2, false, true), clock.now_ns()).is_err());
    assert_eq!(feed.view(), View::Rewound);
}

#[test]
fn changes_of_our_own_that_arrive_out_of_order_block_nothing_and_leave_the_newest() {
    let clock = Clock::manual(10);
    let feed = feed(&clock);
    take(&feed, &reading(7, false, false), clock.now_ns()).unwrap();
    feed.apply_own(state(9, true, false));
    feed.apply_own(state(8, false, false));
    assert_eq!(feed.view(), View::Fresh { version: 9, go_live_enabled: true, kill_switch_engaged: false });
}

#[test]
fn changes_of_our_own_beside_a_read_are_never_taken_for_a_rewind() {
    let feed = feed(&Clock::system());
    let committed = AtomicI64::new(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for version in 2..50_000 {
                committed.store(version, Ordering::SeqCst);
                feed.apply_own(state(version, version % 2 == 0, false));
            }
        });
        while committed.load(Ordering::SeqCst) < 49_999 {
            let sent = feed.now() - 1;
            let version = committed.load(Ordering::SeqCst);
            assert!(take(&feed, &reading(version, version % 2 == 0, false), sent).is_ok(), "{version}");
        }
    });
    assert!(!feed.is_rewound());
}

#[test]
fn a_version_that_cannot_be_is_refused_and_renews_nothing() {
    for version in [0, -1, i64::MIN, i64::MAX, VERSION_MAX + 1] {
        let feed = feed(&Clock::manual(10));
        assert!(take(&feed, &reading(version, true, false), 10 * MS).is_err());
        assert_eq!(feed.view(), View::Stale, "{version}");
    }
}

#[test]
fn a_notification_tightens_at_once_and_only_until_the_next_read() {
    for (payload, killed) in [(renewal::ENGAGED, true), (renewal::DISABLED, false)] {
        let clock = Clock::manual(10);
        let feed = feed(&clock);
        let before = clock.now_ns();
        take(&feed, &reading(7, true, false), before).unwrap();
        clock.advance(1);
        feed.take_notice(payload);
        let told = View::Fresh { version: 7, go_live_enabled: killed, kill_switch_engaged: killed };
        assert_eq!(feed.view(), told);
        take(&feed, &reading(7, true, false), before).unwrap();
        assert_eq!(feed.view(), told, "a read that was sent before it knows nothing of it");
        clock.advance(1);
        take(&feed, &reading(7, true, false), clock.now_ns()).unwrap();
        assert!(admits(&feed), "it was forged, or undone since");
    }
}

#[test]
fn a_notification_of_a_version_that_is_known_is_no_news() {
    for payload in [renewal::ENGAGED, renewal::DISABLED] {
        let told = |version: &str| {
            let clock = Clock::manual(10);
            let feed = feed(&clock);
            take(&feed, &reading(7, true, false), clock.now_ns()).unwrap();
            feed.take_notice(&format!("{payload} {version}"));
            admits(&feed)
        };
        for overtaken in ["6", "7"] {
            assert!(told(overtaken), "{payload} of {overtaken}");
        }
        for news in ["8", "", "x", "99999999999999999999"] {
            assert!(!told(news), "{payload} of {news:?}");
        }
    }
}

#[test]
fn a_notification_never_loosens_and_never_renews() {
    let clock = Clock::manual(10);
    let feed = feed(&clock);
    take(&feed, &reading(7, true, true), clock.now_ns()).unwrap();
    for payload in ["changed", "go_live_enabled", "", "\u{0}", "kill_switch_released", "{\"version\":99}", "9"] {
        feed.take_notice(payload);
        assert!(!admits(&feed), "{payload:?}");
    }
    clock.advance(2_001);
    feed.take_notice("changed");
    assert_eq!(feed.view(), View::Stale);
}

#[tokio::test]
async fn a_kill_file_that_cannot_be_written_stops_the_process_all_the_same() {
    let clock = Clock::manual(10);
    let file = KillFile::new("/dev/null/KILL".into());
    let feed = Feed::new(clock.clone(), LEASE_MAX, feed(&clock).instance().clone(), Some(file), History::default());
    take(&feed, &reading(7, true, false), clock.now_ns()).unwrap();
    assert!(feed.kill_locally("test").await.is_err());
    assert_eq!(feed.view(), View::Killed);
    feed.note_kill_file(Found::Absent, clock.now_ns() + 1);
    assert_eq!(feed.view(), View::Killed, "until it is restarted");
    assert!(matches!(feed.kill_file().unwrap().look().await, Found::Unknown(_)));
    feed.note_kill_file(feed.kill_file().unwrap().look().await, feed.now());
    assert_eq!(feed.view(), View::Killed, "what cannot be looked at is there");
}

#[test]
fn a_look_that_began_before_the_kill_file_was_written_does_not_open_the_gate() {
    let clock = Clock::manual(10);
    let feed = feed(&clock);
    take(&feed, &reading(7, true, false), clock.now_ns()).unwrap();
    let looked = feed.now();
    clock.advance(1);
    feed.0.killed.store(true, Ordering::Release);
    feed.0.killed_ns.store(feed.now(), Ordering::Release);
    feed.note_kill_file(Found::Absent, looked);
    assert_eq!(feed.view(), View::Killed);
    clock.advance(1);
    feed.note_kill_file(Found::Absent, feed.now());
    assert!(admits(&feed), "it was removed");
}

/// A step between a database and an instance.
#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    Send,
    /// The database looks at its state for the oldest question that waits.
    Answer,
    /// The oldest answer arrives.
    Arrive,
    /// The oldest answer is lost.
    Lose,
    Engage,
    Release,
    /// A notification of an unknown sender.
    Notice(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0_u64..900).prop_map(Step::Pass),
        3 => Just(Step::Send),
        3 => Just(Step::Answer),
        3 => Just(Step::Arrive),
        1 => Just(Step::Lose),
        1 => Just(Step::Engage),
        1 => Just(Step::Release),
        1 => any::<bool>().prop_map(Step::Notice),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// The receipt holds for any interleaving of reads, answers, losses, changes and notifications: two seconds after
    /// the commit of an engage nothing is admitted, for as long as it stands.
    #[test]
    fn nothing_is_admitted_a_lease_after_an_engage_committed(steps in steps()) {
        let clock = Clock::manual(1);
        let feed = feed(&clock);
        let (mut version, mut engaged_at) = (1, None::<u64>);
        let mut sent = std::collections::VecDeque::new();
        let mut answers = std::collections::VecDeque::new();
        for step in steps {
            match step {
                Step::Pass(ms) => clock.advance(ms),
                Step::Send => sent.push_back(clock.now_ns()),
                Step::Answer => {
                    if let Some(sent) = sent.pop_front() {
                        answers.push_back((sent, reading(version, true, engaged_at.is_some())));
                    }
                }
                Step::Arrive => {
                    if let Some((sent, read)) = answers.pop_front() {
                        // In reality one read at a time is under way. Here they overtake each other, so some are
                        // refused.
                        let _ = take(&feed, &read, sent);
                    }
                }
                Step::Lose => {
                    answers.pop_front();
                }
                Step::Engage => {
                    version += 1;
                    engaged_at = engaged_at.or(Some(clock.now_ns()));
                }
                Step::Release => {
                    version += 1;
                    engaged_at = None;
                }
                Step::Notice(kill) => feed.take_notice(if kill { renewal::ENGAGED } else { "changed" }),
            }
            if let Some(at) = engaged_at
                && clock.now_ns() > at + 2_000 * MS
            {
                prop_assert!(!admits(&feed));
            }
        }
    }
}
