//! The reader of requests: one for JSON, form and query.
//!
//! Every POST takes a JSON object, a form body, or query parameters; body and query are merged. All three first become
//! the same flat list of fields, which one deserialiser reads, so a field means the same however it is sent:
//!
//! - A body that is labelled as a form and starts with `{` is JSON: `curl -d '{...}'` sends that.
//! - `changed_by` is an alias of `actor`.
//! - A field that is `null` or blank counts as left out.
//! - A field in both body and query must have the same value, else 400; a key that occurs twice in one of them is 400.
//! - Numbers are read from their own digits (`crate::types`). Unknown fields are 422, with the allowed ones.
//!
//! Request types never use `flatten`, or untagged and tagged enums: these buffer, and exact numbers do not survive
//! that.

pub(super) mod fields;
mod lenient;
mod stopping;

pub(crate) use fields::Field;
pub use lenient::Lenient;
pub(crate) use stopping::{CanStop, Off, Stopping};

use super::places::Seat;
use crate::error::{Error, FieldError, Result};
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::request::Parts;
use fields::{json_fields, merge, pair_fields, unique};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use std::fmt;
use std::time::Duration;

/// Largest body of an ordinary request, in bytes. The largest legitimate one has three 16 KiB objects and a few fields.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// The input of a POST: its body and its query parameters, merged and parsed.
#[derive(Debug)]
pub struct Input<T>(pub T);

/// The query parameters of a GET, parsed. An unknown one is 422.
#[derive(Debug)]
pub struct Query<T>(pub T);

/// A parsed segment of the path.
#[derive(Debug)]
pub struct Segment<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Input<T> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        let (parts, body) = request.into_parts();
        parse(&merged_fields(&parts, body, BODY_BYTES_MAX).await?).map(Self)
    }
}

pub(super) async fn merged_fields(parts: &Parts, body: Body, limit: usize) -> Result<Vec<Field>> {
    refuse_encoded(parts)?;
    let bytes = read_body(parts, body, limit).await?;
    merged(parts, &bytes)
}

fn merged(parts: &Parts, bytes: &[u8]) -> Result<Vec<Field>> {
    let from_body = unique(body_fields(parts, bytes)?, "body")?;
    let from_query = query_fields(parts.uri.query())?;
    merge(from_body, from_query)
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        parse(&query_fields(parts.uri.query())?).map(Self)
    }
}

impl<S: Send + Sync, T> FromRequestParts<S> for Segment<T>
where
    T: std::str::FromStr + Send,
    T::Err: fmt::Display,
{
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let axum::extract::Path(text) =
            axum::extract::Path::<String>::from_request_parts(parts, state).await.map_err(|_| Error::RouteNotFound)?;
        text.parse().map(Self).map_err(|error: T::Err| {
            Error::invalid(
                "id",
                format!("is not an id of this kind ({error}): copy it from the answer that created it"),
            )
        })
    }
}

/// True if a body is labelled as JSON objects, one per line.
fn is_ndjson(parts: &Parts) -> bool {
    let label = parts.headers.get(CONTENT_TYPE).and_then(|label| label.to_str().ok()).unwrap_or_default();
    let essence = label.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    ["application/x-ndjson", "application/ndjson", "application/jsonl"].contains(&essence.as_str())
}

/// The elements of a body that is a list: one per line, or a JSON array. Each comes with its place, from 1 (blank lines
/// count), and is none if it is not an object. Also the fields of the query, which may only be `others` and the key.
/// Any other body is returned unchanged.
pub(crate) async fn elements(
    parts: &Parts,
    body: Body,
    others: &[&str],
    limit: usize,
) -> Result<std::result::Result<(Vec<Element>, Vec<Field>), Body>> {
    refuse_encoded(parts)?;
    let is_lines = is_ndjson(parts);
    let bytes = read_body(parts, body, limit).await?;
    let is_array = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    if !is_lines && (!is_array || format_of(parts)? != Format::Json) {
        return Ok(Err(Body::from(bytes)));
    }
    let fields = query_fields(parts.uri.query())?;
    let is_known = |field: &Field| field.is("idempotency_key") || others.iter().any(|name| field.is(name));
    if let Some(unknown) = fields.iter().find(|field| !is_known(field)) {
        let allowed = [others, &["idempotency_key"]].concat().join(", ");
        return Err(Error::invalid(&unknown.name, format!("is unknown: allowed are {allowed}")));
    }
    let object = |read: Option<Box<RawValue>>| read.filter(|one| one.get().starts_with('{'));
    let elements: Vec<Element> = if is_lines {
        let lines = (1..).zip(bytes.split(|byte| *byte == b'\n'));
        let lines = lines.filter(|(_, line)| !line.iter().all(u8::is_ascii_whitespace));
        lines.map(|(place, line)| (place, object(serde_json::from_slice(line).ok()))).collect()
    } else {
        let read: Vec<Box<RawValue>> = serde_json::from_slice(&bytes)
            .map_err(|error| Error::Malformed(format!("the body is not a JSON array: {error}")))?;
        (1..).zip(read).map(|(place, one)| (place, object(Some(one)))).collect()
    };
    if !elements.is_empty() && elements.iter().all(|(_, element)| element.is_none()) {
        return Err(Error::Malformed("the body has no JSON object: send at least one".into()));
    }
    Ok(Ok((elements, fields)))
}

/// An element of a body that is a list, with its place; none if it is not an object.
pub(crate) type Element = (usize, Option<Box<RawValue>>);

/// Refuses a compressed body: bodies are read without decoding.
fn refuse_encoded(parts: &Parts) -> Result<()> {
    match parts.headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"" | b"identity") => Ok(()),
        Some(_) => Err(Error::UnsupportedMediaType("a body with a content encoding".into())),
    }
}

/// The fields of a JSON object inside a body, each once.
pub(crate) fn object_fields(object: &RawValue) -> Result<Vec<Field>> {
    unique(json_fields(object.get().as_bytes())?, "object")
}

/// Removes and parses the field of this name; none if it is missing or blank.
pub(crate) fn take_field<T: DeserializeOwned>(fields: &mut Vec<Field>, name: &str) -> Result<Option<T>> {
    let taken: Vec<_> = fields.extract_if(.., |field| field.name == name).filter(|field| !field.is_blank()).collect();
    let read = |field: &Field| {
        let error = |error: serde_json::Error| Error::Invalid(vec![field_error(name, &error.to_string())]);
        serde_json::from_str(field.value.get()).map_err(error)
    };
    taken.first().map(read).transpose()
}

/// How long a body may take to arrive: far longer than 64 KiB need, and shorter than the request's deadline, after
/// which the outcome would be unknown.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads a whole body, then takes the request's place.
pub(crate) async fn read_body(parts: &Parts, body: Body, limit: usize) -> Result<Bytes> {
    let seat = Seat::of(parts);
    let reading = collect(seat.as_deref(), body, limit);
    let Ok(read) = tokio::time::timeout(BODY_TIMEOUT, reading).await else {
        let detail = format!("the body did not arrive within {} s: send it whole", BODY_TIMEOUT.as_secs());
        return Err(Error::Malformed(detail));
    };
    let read = read?;
    if let Some(seat) = seat {
        seat.take()?;
    }
    Ok(read)
}

/// The byte order mark, which some editors put before UTF-8 text. It is not part of the text.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The bytes of a body without a byte order mark, each counted when it arrives. A request that waits for more may have
/// to make room.
async fn collect(seat: Option<&Seat>, body: Body, limit: usize) -> Result<Bytes> {
    let mut body = Limited::new(body, limit);
    let mut read = Vec::new();
    let mut whole = Bytes::new();
    loop {
        if let Some(seat) = seat {
            seat.wait_for_body();
        }
        let frame = body.frame().await;
        if let Some(seat) = seat {
            seat.work()?;
        }
        let data = match frame {
            None => break,
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
            Some(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => {
                return Err(Error::BodyTooLarge { limit });
            }
            Some(Err(_)) => {
                return Err(Error::Malformed("the body ended early or could not be read: send it whole".into()));
            }
        };
        if let Some(seat) = seat {
            seat.grow_body(whole.len() + read.len() + data.len())?;
        }
        // Most bodies come in one piece, which is not copied.
        if whole.is_empty() && read.is_empty() {
            whole = data;
        } else {
            read.extend_from_slice(&std::mem::take(&mut whole));
            read.extend_from_slice(&data);
        }
    }
    let body = if read.is_empty() { whole } else { Bytes::from(read) };
    Ok(if body.starts_with(BYTE_ORDER_MARK) { body.slice(BYTE_ORDER_MARK.len()..) } else { body })
}

/// The format that a body's content type states.
#[derive(Debug, PartialEq, Eq)]
enum Format {
    Json,
    Form,
    Unlabelled,
}

fn format_of(parts: &Parts) -> Result<Format> {
    let Some(header) = parts.headers.get(CONTENT_TYPE) else {
        return Ok(Format::Unlabelled);
    };
    let label =
        header.to_str().map_err(|_| Error::UnsupportedMediaType("that content type".into()))?.to_ascii_lowercase();
    let (essence, parameters) = label.split_once(';').unwrap_or((&label, ""));
    let charset = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("charset="));
    if charset.is_some_and(|charset| !matches!(charset.trim_matches('"'), "utf-8" | "utf8" | "us-ascii")) {
        return Err(Error::UnsupportedMediaType(label));
    }
    match essence.trim() {
        "" => Ok(Format::Unlabelled),
        "application/x-www-form-urlencoded" => Ok(Format::Form),
        "application/json" => Ok(Format::Json),
        essence if essence.starts_with("application/") && essence.ends_with("+json") => Ok(Format::Json),
        _ => Err(Error::UnsupportedMediaType(label)),
    }
}

fn body_fields(parts: &Parts, bytes: &[u8]) -> Result<Vec<Field>> {
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    match format_of(parts)? {
        _ if first.is_none() => Ok(Vec::new()),
        Format::Json => json_fields(bytes),
        Format::Form if first == Some(&b'{') => json_fields(bytes),
        Format::Form => {
            let text = std::str::from_utf8(bytes).map_err(|_| Error::Malformed("the form is not UTF-8".into()))?;
            pair_fields(text.trim_end_matches(['\r', '\n']), "form")
        }
        Format::Unlabelled => Err(Error::UnsupportedMediaType("a body without a content type".into())),
    }
}

fn query_fields(query: Option<&str>) -> Result<Vec<Field>> {
    let fields = query.map_or_else(|| Ok(Vec::new()), |query| pair_fields(query, "query"))?;
    super::numbers::taken(unique(fields, "query")?)
}

pub(crate) fn parse<T: DeserializeOwned>(fields: &[Field]) -> Result<T> {
    let length: usize = fields.iter().map(|field| field.name.len() + field.value.get().len() + r#""":,"#.len()).sum();
    let mut text = String::with_capacity(length + "{}".len());
    text.push('{');
    for field in fields {
        if text.len() > 1 {
            text.push(',');
        }
        if field.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            text.extend(["\"", &field.name, "\""]);
        } else {
            text.push_str(&serde_json::to_string(&field.name).expect("a string has a JSON form"));
        }
        text.push(':');
        // A blank field is null, but present: an unknown name is refused whatever its value.
        text.push_str(if field.is_blank() { "null" } else { field.value.get() });
    }
    text.push('}');
    // Tracking the path costs as much as the reading, so only a refused input is read again with it.
    if let Ok(input) = serde_json::from_str(&text) {
        return Ok(input);
    }
    let mut reader = serde_json::Deserializer::from_str(&text);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        Error::Invalid(vec![field_error(&path, &error.into_inner().to_string())])
    })
}

/// Longest unknown name that an error repeats, in characters.
const NAME_SHOWN_MAX: usize = 100;

/// A deserialiser's message as an error of one field.
fn field_error(path: &str, message: &str) -> FieldError {
    // The position is in the merged text, which the caller has never seen.
    let message = message.rsplit_once(" at line ").map_or(message, |(message, _)| message);
    if let Some(name) = message.strip_prefix("missing field `") {
        return FieldError::new(name.trim_end_matches('`'), "is required");
    }
    if message.starts_with("UUID parsing failed") {
        let detail = "is not a UUID: send it as it was answered, for example 01a203ce-08d7-72be-aa62-ea38a27122ff";
        return FieldError::new(path, detail);
    }
    if message == crate::types::IS_NULL {
        return FieldError::new(path, "is required");
    }
    if let Some(unknown) = message.strip_prefix("unknown field `") {
        // The allowed names are ours and have no quotes; the unknown one is the caller's and may have any.
        let (name, allowed) = unknown.rsplit_once("`, expected ").unwrap_or((unknown.trim_end_matches('`'), ""));
        let names: Vec<_> = allowed.split('`').skip(1).step_by(2).collect();
        let name = name.split_once("`, there are no fields").map_or(name, |(name, _)| name);
        // Cut, so that an answer does not repeat a name of 60 KB.
        let name: String = name.chars().take(NAME_SHOWN_MAX).collect();
        let allowed = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return FieldError::new(name, format!("is unknown: allowed are {allowed}"));
    }
    FieldError::new(if path == "." { "" } else { path }, message)
}

#[cfg(test)]
mod tests;
