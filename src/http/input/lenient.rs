//! The input of what stops something: no text can make it fail. Each field is read by itself, and what cannot be read is named.

use super::fields::{Field, json_fields_read, merge, pair_fields_each, unique};
use super::{BODY_BYTES_MAX, Format, body_fields, format_of, merged, parse, read_body, refuse_encoded};
use crate::db::to_json;
use crate::error::{Error, Result};
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
use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How long a request that acts whatever is sent waits for its body: who pulls the kill switch does not wait for a stalled one.
const LENIENT_BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// The input of a POST that acts whatever is sent: each field by itself, and a warning for each that could not be read.
#[derive(Debug)]
pub struct Lenient {
    fields: Vec<Field>,
    /// What could not be read and was ignored.
    pub warnings: Vec<String>,
}

impl<S: Send + Sync> FromRequest<S> for Lenient {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self, Self::Rejection> {
        let (parts, body) = request.into_parts();
        let seat = Seat::of(&parts);
        let hurried = async {
            match &seat {
                Some(seat) => seat.hurried().await,
                None => std::future::pending().await,
            }
        };
        let read = tokio::select! {
            biased;
            read = tokio::time::timeout(LENIENT_BODY_TIMEOUT, read_body(&parts, body, BODY_BYTES_MAX)) => read
                .unwrap_or_else(|_| Err(Error::Malformed("the body did not arrive within a second".into()))),
            () = hurried => Err(Error::Malformed("the body was not waited for: connections ran short".into())),
        };
        // However the waiting ended.
        if let Some(seat) = seat {
            seat.work()?;
            seat.take()?;
        }
        Ok(Self::of(&parts, read))
    }
}

impl Lenient {
    fn of(parts: &Parts, body: Result<Bytes>) -> Self {
        let mut input = Self { fields: Vec::new(), warnings: Vec::new() };
        match body {
            Ok(bytes) => input.read_body(parts, &bytes),
            Err(error) => input.warn(&error),
        }
        let (mut from_query, errors) = pair_fields_each(parts.uri.query().unwrap_or_default().as_bytes(), "query");
        from_query.retain(|field| !field.is(NUMBERS));
        input.extend(from_query);
        input.warn_of(&errors);
        input
    }

    fn read_body(&mut self, parts: &Parts, bytes: &[u8]) {
        let Some(first) = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) else {
            if let Err(error) = format_of(parts) {
                self.warn(&error);
            }
            return;
        };
        let (fields, errors) = match format_of(parts) {
            Err(error) => (Vec::new(), vec![error]),
            Ok(Format::Json) => json_or_part(bytes),
            Ok(Format::Form) if *first == b'{' => json_or_part(bytes),
            Ok(format) => {
                let (fields, mut errors) = pair_fields_each(line(bytes), "form");
                if format == Format::Unlabelled {
                    errors.push(Error::UnsupportedMediaType("a body without a content type".into()));
                }
                (fields, errors)
            }
        };
        self.extend(fields);
        self.warn_of(&errors);
    }

    fn warn(&mut self, error: &Error) {
        self.warnings.push(not_as_sent(error));
    }

    fn warn_of(&mut self, errors: &[Error]) {
        self.warnings.extend(errors.iter().map(not_as_sent));
    }

    fn extend(&mut self, fields: Vec<Field>) {
        let mut names = HashSet::new();
        let twice = fields.iter().filter(|field| !names.insert((field.name.as_str(), field.aliased)));
        self.warnings.extend(twice.map(|field| format!("{:.100} is given twice: send it once", field.name)));
        self.fields.extend(fields);
    }

    /// Takes a field out; one that cannot be read becomes a warning.
    pub fn take<T>(&mut self, name: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let fields: Vec<_> = self.fields.extract_if(.., |field| field.name == name).collect();
        if fields.windows(2).any(|pair| !pair[0].says_the_same(&pair[1])) {
            self.warnings
                .push(format!("{name} is given more than once, differently: the first that can be read was taken"));
        }
        for field in fields.iter().filter(|field| !field.is_blank()) {
            let text = crate::types::scalar_of(&field.value).map_err(ToString::to_string);
            match text.and_then(|text| text.parse::<T>().map_err(|error| error.to_string())) {
                Ok(value) => return Some(value),
                Err(error) => self.warnings.push(format!("{name} {error}; ignored")),
            }
        }
        None
    }

    /// Takes no notice of a field, whatever it says.
    pub fn ignore(&mut self, name: &str) {
        self.fields.retain(|field| field.name != name);
    }

    /// Ends the reading: whatever was not taken becomes a warning.
    #[must_use]
    pub fn finish(mut self, allowed: &[&str]) -> Vec<String> {
        for field in &self.fields {
            self.warnings.push(format!("{:.100} is unknown, ignored: allowed are {}", field.name, allowed.join(", ")));
        }
        self.warnings
    }
}

/// The fields of a JSON object, or those before what cannot be read of it.
fn json_or_part(bytes: &[u8]) -> (Vec<Field>, Vec<Error>) {
    let (fields, error) = json_fields_read(bytes);
    (fields, error.into_iter().collect())
}

/// An input that can stop something of its own: a domain, an engine, a recommendation.
pub(crate) trait CanStop {
    /// The flag that is `false` in a request that stops; none where every one does.
    const OFF: Option<&'static str>;
}

/// The input of a POST as [`crate::http::Keyed`] reads it, but that no words are a reason not to stop: what of them cannot be read is
/// ignored and named.
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
        refuse_encoded(&parts)?;
        let bytes = read_body(&parts, body, BODY_BYTES_MAX).await?;
        let strictly = || {
            let fields = merged(&parts, &bytes)?;
            Ok((parse(&fields)?, key_of(&parts, &fields)?, Ignored::default()))
        };
        let (input, key, ignored) =
            strictly().or_else(|error| stop_of(&parts, &bytes, T::OFF).unwrap_or(Err(error)))?;
        let intent = key.map(|key| intent_of(&parts, caller, &key, &input));
        Ok(Self { input, intent, ignored })
    }
}

/// An input, its key, and what was ignored.
type Stopped<T> = (T, Option<IdempotencyKey>, Ignored);

/// The input without those of its words that cannot be read; none if it does not stop anything.
fn stop_of<T: DeserializeOwned>(parts: &Parts, bytes: &[u8], off: Option<&str>) -> Option<Result<Stopped<T>>> {
    let mut ignored = Vec::new();
    let mut each = |bytes: &[u8], source| {
        let (fields, errors) = pair_fields_each(bytes, source);
        ignored.extend(errors.iter().map(not_as_sent));
        unique(fields, source)
    };
    let is_json = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
    let from_body = match format_of(parts) {
        Ok(Format::Form) if !is_json => each(line(bytes), "form"),
        _ => body_fields(parts, bytes).and_then(|fields| unique(fields, "body")),
    };
    let from_query = each(parts.uri.query().unwrap_or_default().as_bytes(), "query");
    let mut fields = merge(from_body.ok()?, from_query.ok()?).ok()?;
    let is_off =
        |field: &Field| crate::types::scalar_of(&field.value).is_ok_and(|text| text.parse() == Ok(Flag(false)));
    if off.is_some_and(|off| !fields.iter().any(|field| field.is(off) && is_off(field))) {
        return None;
    }
    fields.retain(|field| {
        let error = unreadable_word(field);
        ignored.extend(error.iter().map(|error| format!("{} {error}; ignored", field.name)));
        error.is_none()
    });
    let read = || Ok((parse(&fields)?, key_of(parts, &fields)?, Ignored(ignored)));
    Some(read())
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
        _ => return None,
    };
    match crate::types::scalar_of(&field.value) {
        Ok(text) => of(&text),
        Err(error) => Some(error.to_owned()),
    }
}

/// A body without the ends of its last line.
fn line(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
    &bytes[..end]
}

fn not_as_sent(error: &Error) -> String {
    format!("not read as sent: {error}")
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
