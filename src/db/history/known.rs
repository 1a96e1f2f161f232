//! The known history of a database, the marks in it, and the verdict on a read: pure functions without SQL.

use crate::types::{Point, Stream};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use uuid::Uuid;

/// The number of rejected histories that are remembered; a database that shows more stays blocked.
const REJECTED_MAX: usize = 64;

/// The last event of each stream. A stream without events is left out.
pub type Heads = BTreeMap<Stream, Point>;

/// The result of a read of the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The identity of the history that the database shows.
    pub generation: Uuid,
    /// The history before it, which an acceptance ended.
    pub follows: Option<Uuid>,
    /// The last event of each stream.
    pub heads: Heads,
}

/// Known events of a stream that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// The stream of the lost events.
    pub stream: Stream,
    /// The last event that is known to still exist; 0 for none.
    pub kept: i64,
    /// The last event of the stream now.
    pub head: i64,
    /// The last event that was known.
    pub known: i64,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, kept, head, known } = self;
        let (stream, first) = (stream.as_str(), kept + 1);
        if head < known {
            write!(f, "{stream}: {} lost", range(head + 1, *known))?;
            if first <= *head {
                write!(f, " ({} may be another than the one that was answered)", range(first, *head))?;
            }
            return Ok(());
        }
        write!(f, "{stream}: event {known} is another one; {} may be lost", range(first, *known))
    }
}

fn range(first: i64, last: i64) -> String {
    if first == last { format!("event {last}") } else { format!("events {first} to {last}") }
}

/// The verdict on a read, compared with the history that was known before it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// The history is the known one, as far as heads show. These streams have moved on; only their events show whether
    /// the known ones still exist.
    Stands(Vec<(Stream, Point)>),
    /// Somebody has accepted the new history.
    Accepted,
    /// The known history changed during the read, so the read says nothing.
    Overtaken,
    /// The history is another one.
    Other,
    /// Known events are missing.
    Lost(Vec<Lost>),
}

/// The history as known when a question was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// How often the believed history had changed by then.
    pub epoch: u64,
    /// The last events that were known then.
    pub heads: Heads,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct KnownHistory {
    /// The identity of the history; none before the first read.
    pub(super) generation: Option<Uuid>,
    /// Other histories that were read since and not believed, for example those of an empty cluster or of another
    /// backup.
    rejected: Vec<Uuid>,
    /// The last known event of each stream.
    pub(super) heads: Heads,
    /// How often the believed history has changed.
    pub(super) epoch: u64,
    /// The lost events, until somebody accepts the loss.
    pub(super) lost: Vec<Lost>,
}

impl KnownHistory {
    fn has_seen(&self, generation: Uuid) -> bool {
        self.generation == Some(generation) || self.rejected.contains(&generation)
    }

    /// Remembers a history that is not believed.
    pub(super) fn reject(&mut self, generation: Uuid) {
        if !self.has_seen(generation) && self.rejected.len() < REJECTED_MAX {
            self.rejected.push(generation);
        }
    }

    pub(super) fn asked(&self) -> Asked {
        Asked { epoch: self.epoch, heads: self.heads.clone() }
    }

    /// The verdict on a read that was sent when `asked` was known.
    pub(super) fn judge(&self, asked: &Asked, found: &Found) -> Judged {
        if asked.epoch != self.epoch {
            return Judged::Overtaken;
        }
        // Only an acceptance starts a history that follows one that was seen.
        if !self.has_seen(found.generation) && found.follows.is_some_and(|before| self.has_seen(before)) {
            return Judged::Accepted;
        }
        if self.generation.is_some_and(|known| known != found.generation) {
            return Judged::Other;
        }
        let (mut lost, mut moved) = (Vec::new(), Vec::new());
        for (&stream, &known) in asked.heads.iter().filter(|(_, known)| known.seq > 0) {
            let head = found.heads.get(&stream).copied().unwrap_or(Point::BEGINNING);
            if contradicts(known, head) {
                lost.push(Lost { stream, kept: 0, head: head.seq, known: known.seq });
            } else if head.seq > known.seq {
                moved.push((stream, known));
            }
        }
        if lost.is_empty() { Judged::Stands(moved) } else { Judged::Lost(lost) }
    }

    /// Takes over an event that exists, if it belongs to the history of this epoch. Returns whether it is news, or
    /// fails if its number is known with another event.
    pub(super) fn note(&mut self, epoch: u64, stream: Stream, point: Point) -> Result<bool, Lost> {
        if epoch != self.epoch {
            return Ok(false);
        }
        let known = self.heads.entry(stream).or_insert(Point::BEGINNING);
        if known.seq == point.seq && known.hash != point.hash {
            return Err(Lost { stream, kept: 0, head: point.seq, known: known.seq });
        }
        let is_news = known.seq < point.seq;
        if is_news {
            *known = point;
        }
        Ok(is_news)
    }

    /// Starts again with an accepted history: nothing of the one before counts.
    pub(super) fn restart(&mut self, generation: Uuid, heads: Heads) {
        *self = Self { generation: Some(generation), heads, epoch: self.epoch + 1, ..Self::default() };
    }
}

/// True if the known event and the head cannot both belong to one history.
pub(super) fn contradicts(known: Point, head: Point) -> bool {
    head.seq < known.seq || (head.seq == known.seq && head.hash != known.hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HISTORY: Uuid = Uuid::from_u128(1);

    fn point(seq: i64, content: u8) -> Point {
        Point { seq, hash: [content; 32] }
    }

    fn found(generation: Uuid, follows: Option<Uuid>, risk: Point) -> Found {
        Found { generation, follows, heads: Heads::from([(Stream::Risk, risk)]) }
    }

    fn knowing(risk: Point) -> KnownHistory {
        KnownHistory {
            generation: Some(HISTORY),
            heads: Heads::from([(Stream::Risk, risk)]),
            ..KnownHistory::default()
        }
    }

    fn judge(known: &KnownHistory, found: &Found) -> Judged {
        known.judge(&known.asked(), found)
    }

    #[test]
    fn a_head_before_a_known_event_or_another_event_at_its_number_is_a_loss() {
        let known = knowing(point(3, 3));
        let lost = |head| Judged::Lost(vec![Lost { stream: Stream::Risk, kept: 0, head, known: 3 }]);
        assert_eq!(judge(&known, &found(HISTORY, None, point(2, 2))), lost(2));
        assert_eq!(judge(&known, &found(HISTORY, None, point(3, 9))), lost(3));
        assert_eq!(judge(&known, &found(HISTORY, None, Point::BEGINNING)), lost(0));
        assert_eq!(judge(&known, &found(HISTORY, None, point(3, 3))), Judged::Stands(Vec::new()));
        // Beyond the known event, only the event itself shows whether it exists.
        assert_eq!(
            judge(&known, &found(HISTORY, None, point(4, 4))),
            Judged::Stands(vec![(Stream::Risk, point(3, 3))])
        );
        let gone = Found { heads: Heads::new(), ..found(HISTORY, None, point(3, 3)) };
        assert_eq!(judge(&known, &gone), lost(0), "a head that is not there");
    }

    #[test]
    fn nothing_known_contradicts_nothing() {
        assert_eq!(judge(&KnownHistory::default(), &found(HISTORY, None, point(7, 7))), Judged::Stands(Vec::new()));
    }

    #[test]
    fn another_history_is_accepted_only_if_it_follows_one_that_was_seen() {
        let mut known = knowing(point(3, 3));
        let (empty, next) = (Uuid::from_u128(8), Uuid::from_u128(9));
        assert_eq!(judge(&known, &found(empty, None, point(3, 3))), Judged::Other);
        assert_eq!(judge(&known, &found(next, Some(empty), point(1, 1))), Judged::Other);
        known.reject(empty);
        assert_eq!(judge(&known, &found(next, Some(empty), point(1, 1))), Judged::Accepted);
        assert_eq!(judge(&known, &found(empty, Some(HISTORY), point(1, 1))), Judged::Other, "it was turned down");
    }

    #[test]
    fn after_an_acceptance_what_was_sent_before_it_says_nothing() {
        let mut known = knowing(point(3, 3));
        let asked = known.asked();
        known.restart(Uuid::from_u128(2), Heads::from([(Stream::Risk, point(1, 1))]));
        assert_eq!(known.judge(&asked, &found(HISTORY, None, point(3, 3))), Judged::Overtaken);
        assert_eq!(known.note(asked.epoch, Stream::Risk, point(4, 4)), Ok(false));
        assert_eq!(known.heads[&Stream::Risk], point(1, 1));
    }

    #[test]
    fn a_mark_only_moves_forward_and_an_event_has_one_content() {
        let mut known = knowing(point(3, 3));
        assert_eq!(known.note(0, Stream::Risk, point(2, 7)), Ok(false));
        assert_eq!(known.note(0, Stream::Risk, point(3, 3)), Ok(false));
        let lost = Lost { stream: Stream::Risk, kept: 0, head: 3, known: 3 };
        assert_eq!(known.note(0, Stream::Risk, point(3, 9)), Err(lost));
        assert_eq!(known.note(0, Stream::Risk, point(5, 5)), Ok(true));
        assert_eq!(known.heads[&Stream::Risk], point(5, 5));
    }

    #[test]
    fn what_is_lost_is_said_with_its_numbers() {
        let lost = |kept, head, known| Lost { stream: Stream::Risk, kept, head, known }.to_string();
        assert_eq!(lost(1, 1, 3), "risk: events 2 to 3 lost");
        assert_eq!(lost(2, 2, 3), "risk: event 3 lost");
        assert_eq!(
            lost(1, 4, 9),
            "risk: events 5 to 9 lost (events 2 to 4 may be another than the one that was answered)"
        );
        assert_eq!(lost(1, 7, 3), "risk: event 3 is another one; events 2 to 3 may be lost");
    }
}
