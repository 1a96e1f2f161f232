//! The input of what stops one thing: of such a request only the field that names the thing can make it fail.

use super::fields::{Field, json_fields, pair_fields_each};
use super::lenient::{cut, json_or_part, line, not_as_sent};
use super::{BODY_BYTES_MAX, Format, NAME_SHOWN_MAX, format_of, merged, parse, read_body, refuse_encoded};
use crate::db::to_json;
use crate::error::{Error, FieldError, Result};
use crate::http::Caller;
use crate::http::keyed::{intent_of, key_of, marked};
use crate::http::numbers::NUMBERS;
use crate::http::places::Seat;
use crate::idempotency::{Earlier, Intent, Once};
use crate::types::{Actor, CorrelationId, Flag, IdempotencyKey, ParseTextError, Reason};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use std::str::FromStr;

/// An input that can stop something of its own: a domain, an engine, a recommendation.
pub(crate) trait CanStop {
    /// The flag that is `false` in a request that stops; none where every one does.
    const OFF: Option<&'static str>;
    /// Whether the path names what is stopped: then nothing of the body or the query can make the request fail but another `id`.
    const IN_PATH: bool = false;
}

/// The input of a POST as [`crate::http::Change`] reads it, but that no words are a reason not to stop: what of them cannot be read is
/// ignored and named, and so is a field that the route does not know. The settings beside the flag of an upsert are no words.
#[derive(Debug)]
pub(crate) struct Stopping<T> {
    /// The input.
    pub(crate) input: T,
    /// What the key stands for; none without a key.
    pub(crate) intent: Option<Intent>,
    /// What of the request was ignored.
    pub(crate) ignored: Ignored,
}

impl<S: Send + Sync, T: DeserializeOwned + Serialize + CanStop> FromRequest<S> for Stopping<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let (mut parts, body) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, state).await?;
        let read = match refuse_encoded(&parts) {
            Ok(()) => read_body(&parts, body, BODY_BYTES_MAX).await,
            Err(error) => Err(error),
        };
        let (bytes, unread) = match read {
            Ok(bytes) => (bytes, None),
            Err(error) if T::IN_PATH && is_of_the_body(&error) => {
                if let Some(seat) = Seat::of(&parts) {
                    seat.work()?;
                    seat.take()?;
                }
                (Bytes::new(), Some(not_as_sent(&error)))
            }
            Err(error) => return Err(error),
        };
        let strictly = || {
            let fields = merged(&parts, &bytes)?;
            Ok((parse(&fields)?, key_of(&parts, &fields)?, Ignored::default()))
        };
        let (input, key, mut ignored) = strictly().or_else(|error| stop_of(&parts, &bytes).unwrap_or(Err(error)))?;
        ignored.0.extend(unread);
        let intent = key.map(|key| intent_of(&parts, caller, &key, &input));
        Ok(Self { input, intent, ignored })
    }
}

/// Whether a body could not be read because of what it is, and not because there is no place for it.
const fn is_of_the_body(error: &Error) -> bool {
    matches!(error, Error::Malformed(_) | Error::BodyTooLarge { .. } | Error::UnsupportedMediaType(_))
}

/// An input, its key, and what was ignored.
type Stopped<T> = (T, Option<IdempotencyKey>, Ignored);

/// The input without what of it cannot be read or is not known; none if it does not stop anything, or what it stops is not among what
/// could be read.
fn stop_of<T: DeserializeOwned + CanStop>(parts: &Parts, bytes: &[u8]) -> Option<Result<Stopped<T>>> {
    let mut ignored = Vec::new();
    let (mut fields, is_whole) = sent_fields(parts, bytes, &mut ignored);
    if let Some(off) = T::OFF {
        // Beside the flag there may be settings, which part of a body would say wrongly.
        let mut flags = fields.iter().filter(|field| field.is(off)).peekable();
        if !is_whole || flags.peek().is_none() || !flags.all(is_off) {
            return None;
        }
    }
    fields.retain(|field| {
        let error = unreadable_word(field);
        ignored.extend(error.iter().map(|error| cut(format!("{} {error}; ignored", field.name))));
        error.is_none()
    });
    let (mut fields, contradictory) = first_of_each(fields, &mut ignored);
    let input = loop {
        match parse::<T>(&fields) {
            Ok(input) => break input,
            Err(Error::Invalid(errors)) => {
                let unknown = errors.first().and_then(|error| fields.iter().position(|field| is_unknown(field, error)));
                let Some(at) = unknown else {
                    // Of a body that could not be read, the error says more than what is missing in it.
                    return is_whole.then_some(Err(Error::Invalid(errors)));
                };
                if T::IN_PATH && fields.get(at).is_some_and(|field| field.is("id")) {
                    // Beside the path it names another thing.
                    return Some(Err(Error::Invalid(errors)));
                }
                let field = fields.remove(at);
                let detail = errors.first().map_or("", |error| error.detail.as_str());
                ignored.push(cut(format!("{:.100} {detail}; ignored", field.name)));
            }
            Err(error) => return Some(Err(error)),
        }
    };
    if let Some(field) = fields.iter().find(|field| contradictory.contains(&field.name)) {
        let error = FieldError::new(&field.name, "is given more than once, differently: send it once");
        return Some(Err(Error::Contradictory(format!("{} {}", error.field, error.detail), error)));
    }
    let key = key_of(parts, &fields).unwrap_or_else(|error| {
        ignored.push(cut(format!("{error}; the key is ignored")));
        None
    });
    Some(Ok((input, key, Ignored(ignored))))
}

/// Every field of body and query that can be read, and whether the body is what it says it is.
fn sent_fields(parts: &Parts, bytes: &[u8], ignored: &mut Vec<String>) -> (Vec<Field>, bool) {
    let format = format_of(parts);
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    let is_json = first == Some(&b'{') || matches!(format, Ok(Format::Json));
    let (mut fields, errors) = match first {
        None => (Vec::new(), Vec::new()),
        Some(_) if is_json => json_or_part(bytes),
        Some(_) => pair_fields_each(line(bytes), "form"),
    };
    let mut is_whole = !is_json || first.is_none() || json_fields(bytes).is_ok();
    ignored.extend(errors.iter().map(not_as_sent));
    let label = match format {
        Ok(Format::Unlabelled) if first.is_some() => {
            Some(Error::UnsupportedMediaType("a body without a content type".into()))
        }
        Ok(_) => None,
        Err(error) => Some(error),
    };
    is_whole &= label.is_none();
    ignored.extend(label.iter().map(not_as_sent));
    let (mut from_query, errors) = pair_fields_each(parts.uri.query().unwrap_or_default().as_bytes(), "query");
    from_query.retain(|field| !field.is(NUMBERS));
    ignored.extend(errors.iter().map(not_as_sent));
    fields.extend(from_query);
    (fields, is_whole)
}

fn is_off(field: &Field) -> bool {
    crate::types::scalar_of(&field.value).is_ok_and(|text| text.parse() == Ok(Flag(false)))
}

/// Words say who and why, and name the request; they move nothing.
const WORDS: [&str; 4] = ["actor", "reason", "correlation_id", "idempotency_key"];

/// The first of each field, and the names of those that say different things and are no words.
fn first_of_each(fields: Vec<Field>, ignored: &mut Vec<String>) -> (Vec<Field>, Vec<String>) {
    let mut kept: Vec<Field> = Vec::with_capacity(fields.len());
    let mut contradictory = Vec::new();
    for field in fields {
        match kept.iter().find(|twin| twin.name == field.name) {
            None => kept.push(field),
            Some(twin) if twin.says_the_same(&field) => {
                ignored.push(format!("{:.100} is given more than once: send it once", field.name));
            }
            Some(_) if WORDS.iter().any(|word| field.is(word)) => {
                let first = "is given more than once, differently: the first that can be read was taken";
                ignored.push(format!("{} {first}", field.name));
            }
            Some(_) => contradictory.push(field.name),
        }
    }
    (kept, contradictory)
}

/// Whether this is the field that the route does not know.
fn is_unknown(field: &Field, error: &FieldError) -> bool {
    // The error has so much of a long name.
    let is_it = field.name.chars().take(NAME_SHOWN_MAX).eq(error.field.chars());
    is_it && error.detail.starts_with("is unknown: allowed are")
}

/// Why the value of a field of words cannot be taken.
fn unreadable_word(field: &Field) -> Option<String> {
    fn error<T: FromStr<Err = ParseTextError>>(text: &str) -> Option<String> {
        text.parse::<T>().err().map(|error| error.to_string())
    }
    if field.is_blank() {
        return None;
    }
    let of: fn(&str) -> Option<String> = match field.name.as_str() {
        "actor" => error::<Actor>,
        "reason" => error::<Reason>,
        "correlation_id" => error::<CorrelationId>,
        "idempotency_key" => error::<IdempotencyKey>,
        _ => return None,
    };
    match crate::types::scalar_of(&field.value) {
        Ok(text) => of(&text),
        Err(error) => Some(error.to_owned()),
    }
}

/// What of a request that stops something was ignored.
#[derive(Debug, Default)]
pub(crate) struct Ignored(Vec<String>);

impl Ignored {
    /// The answer, with the member `ignored` where something was.
    pub(crate) fn beside<T: Serialize>(&self, answer: Once<T>) -> Response {
        if self.0.is_empty() {
            return answer.into_response();
        }
        let (replayed, text) = match answer {
            Once::Done(answer) => (false, to_json(&answer)),
            Once::Replayed(Earlier::Done(text)) => (true, text),
            // What waits is nothing that stops.
            waiting @ Once::Replayed(Earlier::Waiting(_)) => return waiting.into_response(),
        };
        let members = text.get().trim_end().strip_suffix('}').expect("an answer is an object");
        let text = format!("{members},\"ignored\":{}}}", to_json(&self.0).get());
        let whole = RawValue::from_string(text).expect("an object with one more member is JSON");
        marked(replayed, Json(whole))
    }
}
