//! The input of a change, with the caller's idempotency key.

use super::Caller;
use super::input::{BODY_BYTES_MAX, Field, merged_fields, parse, take_field};
use crate::error::{Error, FieldError, Result};
use crate::idempotency::{Asked, Fields, Intent};
use crate::types::{Actor, CorrelationId, IdempotencyKey};
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// The header with the key; the field `idempotency_key` means the same.
const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The header that marks an earlier answer: nothing was done this time.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// An input that names its actor and its correlation id.
pub trait Said {
    /// The actor that the caller names; none if it names nobody.
    fn actor(&self) -> Option<Actor>;

    /// The caller's correlation id; none if it sent none.
    fn correlation_id(&self) -> Option<CorrelationId> {
        None
    }
}

/// Implements [`Said`] with an input's field `actor`, and maybe its field `correlation_id`.
macro_rules! said {
    (with correlation_id: $($input:ty),+ $(,)?) => {
        $(impl $crate::http::Said for $input {
            fn actor(&self) -> Option<$crate::types::Actor> {
                self.actor.clone().into()
            }

            fn correlation_id(&self) -> Option<$crate::types::CorrelationId> {
                self.correlation_id.clone()
            }
        })+
    };
    ($($input:ty),+ $(,)?) => {
        $(impl $crate::http::Said for $input {
            fn actor(&self) -> Option<$crate::types::Actor> {
                self.actor.clone().into()
            }
        })+
    };
}
pub(crate) use said;

/// A change: its input as [`super::Input`] reads it, with its caller and its key.
#[derive(Debug)]
pub struct Change<T> {
    /// The parsed input.
    pub input: T,
    /// The caller, its correlation id, and its key.
    pub asked: Asked,
}

impl<S: Send + Sync, T: DeserializeOwned + Serialize + Said> FromRequest<S> for Change<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let (mut parts, body) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, state).await?;
        let fields = merged_fields(&parts, body, BODY_BYTES_MAX).await?;
        let input: T = parse(&fields)?;
        let intent = key_of(&parts, &fields)?.map(|key| intent_of(&parts, caller.clone(), &key, &input));
        let asked = Asked::new(caller.origin(input.actor(), input.correlation_id()), intent);
        Ok(Self { input, asked })
    }
}

pub(crate) fn intent_of<T: Serialize>(parts: &Parts, caller: Caller, key: &IdempotencyKey, input: &T) -> Intent {
    let route = parts.uri.path().to_owned();
    Intent { principal: caller.principal, key: key.to_string(), route, fields: Fields::of(input) }
}

/// The key of a request, from its header or its field. Both may give it, if they agree.
pub(crate) fn key_of(parts: &Parts, fields: &[Field]) -> Result<Option<IdempotencyKey>> {
    let mut headers = parts.headers.get_all(KEY).iter();
    let header = headers.next().map(read_header).transpose()?;
    let said_twice = || {
        let error = FieldError::new("idempotency_key", "is given more than once with different values: send one key");
        Error::Contradictory(format!("{} {}", error.field, error.detail), error)
    };
    if headers.next().is_some() {
        return Err(said_twice());
    }
    let field = fields.iter().find(|field| field.name == "idempotency_key" && !field.is_blank());
    let field = field.map(|field| read_key(crate::types::scalar_of(&field.value).unwrap_or_default().as_ref()));
    match (header, field.transpose()?) {
        (Some(header), Some(field)) if header != field => Err(said_twice()),
        (header, field) => Ok(header.or(field)),
    }
}

pub(crate) fn read_key(text: &str) -> Result<IdempotencyKey> {
    text.parse().map_err(|error: crate::types::ParseTextError| Error::invalid("idempotency_key", error.to_string()))
}

fn read_header(value: &HeaderValue) -> Result<IdempotencyKey> {
    let text = value.to_str().map_err(|_| Error::invalid("idempotency_key", "is not visible ASCII in its header"))?;
    let text = text.trim();
    // The draft standard writes the key as a quoted string; most clients do not.
    let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    read_key(bare)
}

/// An answer, marked if it is a replay.
pub fn marked(replayed: bool, response: impl IntoResponse) -> Response {
    let mut response = response.into_response();
    if replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// A list of operations in one body, not parsed yet, with the fields that apply to all.
#[derive(Debug)]
pub(crate) struct Many {
    /// The operations in order, as they were sent.
    pub(crate) list: Vec<Box<RawValue>>,
    /// The key of the whole list.
    pub(crate) key: Option<IdempotencyKey>,
    pub(crate) fields: Vec<Field>,
}

impl Many {
    /// Reads a body whose field `name` is a list of objects; `others` are the other allowed fields.
    pub(crate) async fn read(parts: &Parts, body: Body, name: &str, others: &[&str], limit: usize) -> Result<Self> {
        let mut fields = merged_fields(parts, body, limit).await?;
        let key = key_of(parts, &fields)?;
        let list: Option<Box<RawValue>> = take_field(&mut fields, name)?;
        fields.retain(|field| field.name != "idempotency_key");
        if let Some(unknown) = fields.iter().find(|field| !others.contains(&field.name.as_str())) {
            let allowed = [&[name], others, &["idempotency_key"]].concat().join(", ");
            return Err(Error::invalid(&unknown.name, format!("is unknown: allowed are {allowed}")));
        }
        let list = list.map(|list| read_list(name, &list)).transpose()?.unwrap_or_default();
        Ok(Self { list, key, fields })
    }
}

/// A list of objects. A form or a query carries it as a string.
fn read_list(name: &str, list: &RawValue) -> Result<Vec<Box<RawValue>>> {
    let read = match list.get().strip_prefix('"') {
        None => serde_json::from_str(list.get()),
        Some(_) => serde_json::from_str::<String>(list.get()).and_then(|text| serde_json::from_str(&text)),
    };
    let list: Option<Vec<Box<RawValue>>> = read.ok();
    list.filter(|list| list.iter().all(|one| one.get().starts_with('{')))
        .ok_or_else(|| Error::invalid(name, "is not a list of JSON objects: send [{…}, …]"))
}
