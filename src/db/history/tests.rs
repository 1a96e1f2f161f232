use super::*;

fn point(seq: i64, content: u8) -> Point {
    Point { seq, hash: [content; 32] }
}

fn history() -> History {
    let history = History::default();
    let found =
        Found { generation: Uuid::from_u128(1), follows: None, heads: Heads::from([(Stream::Risk, point(3, 3))]) };
    history.take(&history.asked(), &found);
    history
}

#[test]
fn a_head_before_the_mark_stops_everything_that_appends_until_it_is_accepted() {
    for contradicting in [point(2, 2), point(3, 9), point(0, 0)] {
        let history = history();
        let mark = history.mark(Stream::Risk);
        history.weigh(&mark, point(3, 3), true).unwrap();
        history.weigh(&mark, point(9, 9), true).unwrap();
        assert!(matches!(history.weigh(&mark, contradicting, true), Err(Error::StateRewound)));
        assert!(history.is_rewound() && history.has_lost_events());
        // A head that fits is refused too.
        let mark = history.mark(Stream::Risk);
        assert!(matches!(history.weigh(&mark, point(3, 3), true), Err(Error::StateRewound)));
        let accepted = Found { generation: Uuid::from_u128(2), follows: Some(Uuid::from_u128(1)), heads: Heads::new() };
        assert_eq!(history.judge(&history.asked(), &accepted), Judged::Accepted);
        history.restart(&accepted);
        assert!(!history.is_rewound() && !history.has_lost_events());
        // A mark of the earlier history does not count.
        assert!(history.weigh(&mark, point(3, 3), true).is_err());
        history.weigh(&history.mark(Stream::Risk), point(1, 7), true).unwrap();
    }
}

#[test]
fn a_commit_that_contradicts_a_mark_is_noticed_and_moves_none() {
    let history = history();
    let epoch = history.epoch();
    history.note(epoch, Stream::Risk, point(3, 9));
    assert!(history.has_lost_events());
    assert_ne!(history.epoch(), epoch);
    // A tightening may still append; its numbers say nothing about the known events.
    history.note(history.epoch(), Stream::Risk, point(8, 8));
    assert_eq!(history.mark(Stream::Risk).point, point(3, 3));
}

#[test]
fn a_head_past_the_mark_contradicts_it_where_the_marked_event_is_another_one() {
    let history = history();
    history.note(history.epoch(), Stream::Risk, point(3, 3));
    let mark = history.mark(Stream::Risk);
    history.weigh(&mark, point(9, 9), true).unwrap();
    assert!(matches!(history.weigh(&mark, point(9, 9), false), Err(Error::StateRewound)));
    assert!(history.has_lost_events());
}

#[test]
fn switches_that_went_back_over_a_whole_trail_stop_no_append() {
    let history = history();
    history.contradict(history.epoch(), &Fault::Switches);
    assert!(history.is_rewound() && !history.has_lost_events());
    history.require_whole().unwrap();
    history.contradict(history.epoch(), &Fault::Other);
    assert!(history.require_whole().is_err());
}

#[test]
fn a_finding_from_before_an_acceptance_blocks_nothing_after_it() {
    let history = history();
    let before = history.asked();
    let accepted = Found { generation: Uuid::from_u128(2), follows: Some(Uuid::from_u128(1)), heads: Heads::new() };
    history.restart(&accepted);
    history.contradict(before.epoch, &Fault::Other);
    assert!(!history.is_rewound() && !history.has_lost_events());
}

#[tokio::test]
async fn marks_stay_unsaved_until_a_write_has_ended_well() {
    let dir = std::env::temp_dir().join(format!("holdfast-unsaved-{}", std::process::id()));
    let file = MarksFile::new(&dir, "localhost:5432/holdfast/public");
    let history = history();
    history.remember_in(file.clone()).await.unwrap();
    // A file is where the directory should be.
    std::fs::write(&dir, "").unwrap();
    history.save().await.unwrap_err();
    std::fs::remove_file(&dir).unwrap();
    // A write whose task is cancelled.
    {
        let mut left = std::pin::pin!(history.save());
        assert!(left.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_pending());
    }
    history.save().await.unwrap();
    let marks = file.load().await.unwrap().expect("they are written");
    assert_eq!(marks.heads.get(&Stream::Risk), Some(&point(3, 3)));
    std::fs::remove_file(file.path()).unwrap();
    history.save().await.unwrap();
    assert_eq!(file.load().await.unwrap(), None, "there was nothing new");
    std::fs::remove_dir_all(dir).unwrap();
}
