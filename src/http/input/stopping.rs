//! The input of a stop of one thing: only the field that names the thing can make it fail.

use super::fields::Field;
use super::lenient::{Readable, cut, not_as_sent};
use super::{BODY_BYTES_MAX, merged, parse, read_body, refuse_encoded};
use crate::db::to_json;
use crate::error::{Error, FieldError, Result};
use crate::http::Caller;
use crate::http::keyed::{Said, intent_of, key_of, marked};
use crate::http::places::Seat;
use crate::idempotency::{Asked, Earlier, Once};
use crate::types::{Actor, CorrelationId, Flag, IdempotencyKey, ParseTextError, Reason};
use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::{DeserializeOwned, Deserializer, Visitor, value};
use serde_json::value::RawValue;
use std::str::FromStr;

/// An input that can stop one thing: a domain, an engine, a recommendation.
pub(crate) trait CanStop {
    /// The mark of a stop among upserts; none if every request of the route stops.
    const OFF: Option<Off>;
    /// True if the path names the thing. Then nothing in body or query can make the request fail, except another `id`.
    const IN_PATH: bool = false;
}

/// The mark of an upsert that stops.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Off {
    /// The field that names the thing.
    pub(crate) thing: &'static str,
    /// The flag that is `false` in a stop.
    pub(crate) flag: &'static str,
}

/// The input of a POST as [`crate::http::Change`] reads it, but texts never prevent a stop: unreadable texts and
/// unknown fields are ignored and reported. Settings beside the flag of an upsert are not texts: if there are any, and
/// a part of the request cannot be read, the whole request is refused.
#[derive(Debug)]
pub(crate) struct Stopping<T> {
    pub(crate) input: T,
    /// The caller, its correlation id, and its key.
    pub(crate) asked: Asked,
    /// The ignored parts of the request.
    pub(crate) ignored: Ignored,
}

impl<S: Send + Sync, T: DeserializeOwned + Serialize + CanStop + Said> FromRequest<S> for Stopping<T> {
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
        let (input, key, mut ignored): Stopped<T> =
            strictly().or_else(|error| stop_of(&parts, &bytes).unwrap_or(Err(error)))?;
        ignored.0.extend(unread);
        let intent = key.map(|key| intent_of(&parts, caller.clone(), &key, &input));
        let asked = Asked::new(caller.origin(input.actor(), input.correlation_id()), intent);
        Ok(Self { input, asked, ignored })
    }
}

/// True if the content of a body made it unreadable, not a lack of places.
const fn is_of_the_body(error: &Error) -> bool {
    matches!(error, Error::Malformed(_) | Error::BodyTooLarge { .. } | Error::UnsupportedMediaType(_))
}

/// An input, its key, and the ignored parts.
type Stopped<T> = (T, Option<IdempotencyKey>, Ignored);

/// The input without its unreadable and unknown parts; none if it stops nothing, or if the readable part does not name
/// the thing.
fn stop_of<T: DeserializeOwned + CanStop>(parts: &Parts, bytes: &[u8]) -> Option<Result<Stopped<T>>> {
    let Readable { body: mut fields, query, errors } = Readable::of(parts, bytes);
    let is_whole = errors.is_empty();
    let mut ignored: Vec<_> = errors.iter().map(not_as_sent).collect();
    fields.extend(query);
    let known = names_of::<T>();
    // A part of a request would set other values than the caller meant.
    let mut sets_a_part = false;
    if let Some(Off { thing, flag }) = T::OFF {
        let mut flags = fields.iter().filter(|field| field.is(flag)).peekable();
        let is_stop = flags.peek().is_some() && flags.all(is_off);
        let is_setting = |field: &Field| {
            known.contains(&field.name.as_str()) && !field.is(thing) && !field.is(flag) && !is_word(field)
        };
        if !is_stop {
            return None;
        }
        sets_a_part = !is_whole && fields.iter().any(is_setting);
    }
    fields.retain(|field| {
        let error = unreadable_word(field);
        ignored.extend(error.iter().map(|error| cut(format!("{} {error}; ignored", field.name))));
        error.is_none()
    });
    // With the thing in the path, an `id` names another thing: it is refused with the rest.
    let is_known = |field: &Field| known.contains(&field.name.as_str()) || (T::IN_PATH && field.is("id"));
    for field in fields.extract_if(.., |field| !is_known(field)) {
        ignored.push(cut(format!("{:.100} is unknown: allowed are {}; ignored", field.name, known.join(", "))));
    }
    let (fields, contradictory) = first_of_each(fields, T::OFF, &mut ignored);
    let input = match parse::<T>(&fields) {
        Ok(_) if sets_a_part => return None,
        Ok(input) => input,
        // For an unreadable body, that error says more than a missing field; a wrong setting is reported first.
        Err(error) => return (is_whole || sets_a_part).then_some(Err(error)),
    };
    if let Some(field) = fields.iter().find(|field| contradictory.contains(&field.name)) {
        let error = FieldError::new(&field.name, "is given more than once with different values: send it once");
        return Some(Err(Error::Contradictory(format!("{} {}", error.field, error.detail), error)));
    }
    let key = key_of(parts, &fields).unwrap_or_else(|error| {
        ignored.push(cut(format!("{error}; the key is ignored")));
        None
    });
    Some(Ok((input, key, Ignored(ignored))))
}

fn is_off(field: &Field) -> bool {
    crate::types::scalar_of(&field.value).is_ok_and(|text| text.parse() == Ok(Flag(false)))
}

/// True for a field that only gives the actor, the reason or the request's name: it changes no setting.
fn is_word(field: &Field) -> bool {
    ["actor", "reason", "correlation_id", "idempotency_key"].iter().any(|word| field.is(word))
}

/// The first of each field, and the names of the settings with different values. If the flag is `false` in any of them,
/// it is off.
fn first_of_each(fields: Vec<Field>, off: Option<Off>, ignored: &mut Vec<String>) -> (Vec<Field>, Vec<String>) {
    let mut kept: Vec<Field> = Vec::with_capacity(fields.len());
    let mut contradictory = Vec::new();
    for field in fields {
        match kept.iter().find(|twin| twin.name == field.name) {
            None => kept.push(field),
            Some(twin) if twin.says_the_same(&field) || off.is_some_and(|off| field.is(off.flag)) => {
                ignored.push(format!("{:.100} is given more than once: send it once", field.name));
            }
            Some(_) if is_word(&field) => {
                let first = "is given more than once with different values: the first readable one was taken";
                ignored.push(format!("{} {first}", field.name));
            }
            Some(_) => contradictory.push(field.name),
        }
    }
    (kept, contradictory)
}

/// The field names of an input, as its deserialiser asks for them.
fn names_of<T: DeserializeOwned>() -> &'static [&'static str] {
    struct Names<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Names<'_> {
        type Error = value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(serde::de::Error::custom("nothing is read here"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            self.deserialize_any(visitor)
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq tuple
            tuple_struct map enum identifier ignored_any
        }
    }

    let mut names: &[&str] = &[];
    let _ = T::deserialize(Names(&mut names));
    names
}

/// The reason why the value of a text field is unusable; none if it is usable.
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

/// The ignored parts of a request that stops something.
#[derive(Debug, Default)]
pub(crate) struct Ignored(Vec<String>);

impl Ignored {
    /// The answer, with the member `ignored` if something was.
    pub(crate) fn beside<T: Serialize>(&self, answer: Once<T>) -> Response {
        if self.0.is_empty() {
            return answer.into_response();
        }
        let (replayed, text) = match answer {
            Once::Done(answer) => (false, to_json(&answer)),
            Once::Replayed(Earlier::Done(text)) => (true, text),
            // A change that waits for approval stops nothing.
            waiting @ Once::Replayed(Earlier::Waiting(_)) => return waiting.into_response(),
        };
        let members = text.get().trim_end().strip_suffix('}').expect("an answer is an object");
        let text = format!("{members},\"ignored\":{}}}", to_json(&self.0).get());
        let whole = RawValue::from_string(text).expect("an object with one more member is JSON");
        marked(replayed, Json(whole))
    }
}
