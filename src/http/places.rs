//! Places for requests in flight, and for their bodies and answers. A request without a body takes its place at once;
//! any other takes it when the body has arrived, so that stalled bodies keep nobody out.

use super::connections::{Connection, For};
use crate::budget::{Budget, Charge};
use crate::error::{Error, Result};
use crate::types::Principal;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};

/// Most ordinary requests in flight; the next is refused with 503.
pub const IN_FLIGHT_MAX: usize = 8_192;
/// Most reads in flight; they take no place of a change.
pub const IN_FLIGHT_READS: usize = 1_024;
/// Most engages and disables in flight, and most requests for health and metrics: nobody else takes these places.
pub const IN_FLIGHT_RESERVED: usize = 1_024;
/// Most of these places that one principal has for engage and disable.
pub const SWITCHES_SHARE: usize = 256;
/// Bytes of each body that are not counted: together they are limited by the connections.
pub const BODY_BYTES_FREE: usize = 8 * 1024;

/// Bytes of an answer that are not counted.
pub const ANSWER_BYTES_FREE: usize = 16 * 1024;

/// The mark of a request whose answer has its numbers as strings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AsText;

/// The largest factor by which such an answer grows, except for one byte: two bytes more for each number, and there is a
/// byte between any two numbers.
const GROWTH_MAX: usize = 2;

/// The pool of places that a route uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Places of all changes.
    Ordinary,
    /// Places of reads.
    Read,
    /// Places reserved for engage and disable, which also have no rate limit.
    Switch,
    /// Places reserved for health and metrics.
    Probe,
}

/// Places for requests in flight, and bytes for their bodies and answers.
#[derive(Debug, Clone)]
pub struct Places {
    ordinary: Budget,
    reads: Budget,
    switches: Budget,
    probes: Budget,
    bodies: Budget,
    answers: Budget,
}

impl Places {
    /// Empty places with these byte limits; one principal may use half of each.
    #[must_use]
    pub fn new(body_bytes: usize, answer_bytes: usize) -> Self {
        let places = |count| Budget::new(count, count);
        Self {
            ordinary: places(IN_FLIGHT_MAX),
            reads: places(IN_FLIGHT_READS),
            switches: Budget::new(IN_FLIGHT_RESERVED, SWITCHES_SHARE),
            probes: places(IN_FLIGHT_RESERVED),
            bodies: Budget::new(body_bytes, body_bytes / 2),
            answers: Budget::new(answer_bytes, answer_bytes / 2),
        }
    }

    /// The seat of a request of this principal, not taken yet.
    pub(crate) fn seat(&self, share: Share, principal: &Principal, request: &Request) -> Seat {
        Seat {
            places: self.clone(),
            share,
            principal: principal.clone(),
            connection: request.extensions().get::<Arc<Connection>>().cloned(),
            as_text: request.extensions().get::<AsText>().is_some(),
            held: OnceLock::new(),
            body: Mutex::new(self.bodies.open(principal.clone())),
        }
    }
}

/// A request's place and the bytes of its body, both released with the answer.
#[derive(Debug)]
pub(crate) struct Seat {
    places: Places,
    share: Share,
    principal: Principal,
    connection: Option<Arc<Connection>>,
    /// True if the numbers of the answer become strings, which are longer.
    as_text: bool,
    held: OnceLock<Charge>,
    body: Mutex<Charge>,
}

impl Seat {
    /// The seat of a request; none if it was given none.
    pub(crate) fn of(parts: &Parts) -> Option<Arc<Self>> {
        parts.extensions.get::<Arc<Self>>().cloned()
    }

    /// Takes the place; further calls do nothing.
    pub(crate) fn take(&self) -> Result<()> {
        if self.held.get().is_some() {
            return Ok(());
        }
        let places = match self.share {
            Share::Ordinary => &self.places.ordinary,
            Share::Read => &self.places.reads,
            Share::Probe => &self.places.probes,
            Share::Switch => &self.places.switches,
        };
        let _ = self.held.set(places.take(self.principal.clone(), 1)?);
        Ok(())
    }

    /// Counts this many bytes of the body.
    pub(crate) fn grow_body(&self, bytes: usize) -> Result<()> {
        // A principal that does not read its answers may not cause large ones.
        if bytes > BODY_BYTES_FREE && !self.places.answers.has_room(&self.principal) {
            return Err(Error::Overloaded);
        }
        let mut body = self.body.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(body.grow_to(bytes.saturating_sub(BODY_BYTES_FREE))?)
    }

    /// Counts a large answer until it is written. An answer that only reads is refused if there is no room; the answer
    /// to a completed change is always sent.
    pub(crate) fn answer(&self, response: Response) -> Response {
        let length = response.body().size_hint().exact().and_then(|length| usize::try_from(length).ok());
        let growth = if self.as_text { GROWTH_MAX } else { 1 };
        let Some(length) =
            length.map(|length| length.saturating_mul(growth)).filter(|length| *length > ANSWER_BYTES_FREE)
        else {
            return response;
        };
        let mut charge = self.places.answers.open(self.principal.clone());
        if charge.grow_to(length).is_err() {
            if self.share == Share::Read {
                return Error::Overloaded.into_response();
            }
            charge.overdraw_to(length);
        }
        counted(response, Arc::new(charge))
    }

    /// Marks that the body is awaited: a connection that does nothing else can make room.
    pub(crate) fn wait_for_body(&self) {
        let what = if self.share == Share::Switch { For::Stop } else { For::Body };
        if let Some(connection) = &self.connection {
            connection.waits(what);
        }
    }

    /// Marks that the body is no longer awaited; an error if the connection has made room meanwhile.
    pub(crate) fn work(&self) -> Result<()> {
        let works = self.connection.as_ref().is_none_or(|connection| connection.works());
        if works { Ok(()) } else { Err(Error::Overloaded) }
    }

    /// Resolves when the body should no longer be awaited.
    pub(crate) async fn hurried(&self) {
        match &self.connection {
            Some(connection) => connection.hurried().await,
            None => std::future::pending().await,
        }
    }
}

/// The charge of an answer, in its extensions: a layer that replaces the body counts the new one with it.
pub(crate) type AnswerCharge = Arc<Charge>;

/// An answer that is counted until its last byte is written, or it is dropped.
pub(crate) fn counted(mut response: Response, charge: AnswerCharge) -> Response {
    response.extensions_mut().insert(Arc::clone(&charge));
    response.map(|body| Body::new(Counted { body, charge }))
}

/// The body of such an answer. The server drops it after the last piece, long before a slow reader has it, so each
/// piece carries the charge too.
struct Counted {
    body: Body,
    charge: AnswerCharge,
}

/// A piece of such a body. The server keeps it until the socket has taken all of it.
struct Piece {
    data: Bytes,
    _charge: AnswerCharge,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let piece = |data| Bytes::from_owner(Piece { data, _charge: Arc::clone(&self.charge) });
        polled.map_ok(|frame| frame.map_data(piece))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::numbers::as_text;
    use axum::http::header::CONTENT_TYPE;
    use http_body_util::BodyExt;

    /// An answer of this many bytes to a read, and the places that count it.
    fn answered(text: String, as_text: bool) -> (Places, Response) {
        let places = Places::new(1 << 20, 1 << 20);
        let mut request = Request::new(Body::empty());
        if as_text {
            request.extensions_mut().insert(AsText);
        }
        let seat = places.seat(Share::Read, &Principal::unauthenticated(), &request);
        let response = seat.answer(([(CONTENT_TYPE, "application/json")], text).into_response());
        (places, response)
    }

    #[tokio::test]
    async fn an_answer_counts_until_the_last_of_its_bytes_is_gone() {
        let length = ANSWER_BYTES_FREE + 1;
        let (places, response) = answered(" ".repeat(length), false);
        assert_eq!(places.answers.used(), length);
        let mut body = response.into_body();
        let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(body.is_end_stream());
        // The server has taken the last piece and still has to write all of it.
        drop(body);
        assert_eq!((piece.len(), places.answers.used()), (length, length));
        drop(piece);
        assert_eq!(places.answers.used(), 0);
    }

    #[tokio::test]
    async fn an_answer_whose_numbers_became_texts_counts_until_it_is_gone() {
        let json = format!("[{}7]", "7,".repeat(ANSWER_BYTES_FREE / 2));
        let (places, response) = answered(json.clone(), true);
        let response = as_text(response).await;
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        assert!(bytes.len() > 2 * json.len() - 2, "{}", bytes.len());
        assert!(places.answers.used() >= bytes.len());
        drop(bytes);
        assert_eq!(places.answers.used(), 0);
        // The small answer becomes a large one.
        let (places, _response) = answered(" ".repeat(ANSWER_BYTES_FREE), true);
        assert_eq!(places.answers.used(), 2 * ANSWER_BYTES_FREE);
    }

    #[test]
    fn a_read_is_refused_where_answers_have_no_room_and_a_change_is_answered() {
        let places = Places::new(0, 2 * ANSWER_BYTES_FREE);
        let large = || " ".repeat(ANSWER_BYTES_FREE + 1).into_response();
        let seat = |share| places.seat(share, &Principal::unauthenticated(), &Request::new(Body::empty()));
        assert_eq!(seat(Share::Read).answer(large()).status(), 503);
        let told = seat(Share::Ordinary).answer(large());
        assert_eq!((told.status().as_u16(), places.answers.used()), (200, ANSWER_BYTES_FREE + 1));
    }
}
