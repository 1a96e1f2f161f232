//! The input of a stop of everything: no text can make it fail. Each field is read by itself, and an unreadable one
//! becomes a warning.

use super::fields::{Field, json_fields_read, pair_fields_each};
use super::{BODY_BYTES_MAX, Format, format_of, read_body};
use crate::error::{Error, Result};
use crate::http::numbers::NUMBERS;
use crate::http::places::Seat;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::request::Parts;
use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How long a request that acts on any input waits for its body: an operator at the kill switch does not wait for a
/// stalled one.
const LENIENT_BODY_TIMEOUT: Duration = Duration::from_secs(1);

/// The input of a POST that always acts: each field by itself, and a warning for each unreadable one.
#[derive(Debug)]
pub struct Lenient {
    fields: Vec<Field>,
    /// The unreadable parts of the request, which were ignored.
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
            () = hurried => Err(Error::Malformed("the body was not read: too few connections were left to wait for it".into())),
        };
        // However the wait ended, the request takes its place.
        if let Some(seat) = seat {
            seat.work()?;
            seat.take()?;
        }
        Ok(Self::of(&parts, read))
    }
}

impl Lenient {
    fn of(parts: &Parts, body: Result<Bytes>) -> Self {
        let (bytes, unread) = match body {
            Ok(bytes) => (bytes, None),
            Err(error) => (Bytes::new(), Some(error)),
        };
        let Readable { body, query, errors } = Readable::of(parts, &bytes);
        let warnings = unread.iter().chain(&errors).map(not_as_sent).collect();
        let mut input = Self { fields: Vec::new(), warnings };
        input.extend(body);
        input.extend(query);
        input
    }

    fn extend(&mut self, fields: Vec<Field>) {
        let mut names = HashSet::new();
        let twice = fields.iter().filter(|field| !names.insert((field.name.as_str(), field.aliased)));
        self.warnings.extend(twice.map(|field| format!("{:.100} is given twice: send it once", field.name)));
        self.fields.extend(fields);
    }

    /// Removes and parses a field. An unreadable one becomes a warning.
    pub fn take<T>(&mut self, name: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        let fields: Vec<_> = self.fields.extract_if(.., |field| field.name == name).collect();
        if fields.windows(2).any(|pair| !pair[0].says_the_same(&pair[1])) {
            self.warnings.push(format!(
                "{name} is given more than once with different values: the first readable one was taken"
            ));
        }
        for field in fields.iter().filter(|field| !field.is_blank()) {
            let text = crate::types::scalar_of(&field.value).map_err(ToString::to_string);
            match text.and_then(|text| text.parse::<T>().map_err(|error| error.to_string())) {
                Ok(value) => return Some(value),
                Err(error) => self.warnings.push(cut(format!("{name} {error}; ignored"))),
            }
        }
        None
    }

    /// Drops a field, whatever its value.
    pub fn ignore(&mut self, name: &str) {
        self.fields.retain(|field| field.name != name);
    }

    /// Ends the reading: each remaining field becomes a warning.
    #[must_use]
    pub fn finish(mut self, allowed: &[&str]) -> Vec<String> {
        for field in &self.fields {
            self.warnings.push(format!("{:.100} is unknown, ignored: allowed are {}", field.name, allowed.join(", ")));
        }
        self.warnings
    }
}

/// The readable fields of a request: the members before a fault, if the body begins with `{`; else the readable pairs,
/// whatever its content type.
pub(super) struct Readable {
    pub(super) body: Vec<Field>,
    pub(super) query: Vec<Field>,
    /// The faults of the request; empty if everything was read.
    pub(super) errors: Vec<Error>,
}

impl Readable {
    pub(super) fn of(parts: &Parts, bytes: &[u8]) -> Self {
        let label = format_of(parts);
        let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
        let (body, mut errors) = match first {
            None => (Vec::new(), Vec::new()),
            Some(first) if *first == b'{' || matches!(label, Ok(Format::Json)) => {
                let (fields, error) = json_fields_read(bytes);
                (fields, error.into_iter().collect())
            }
            Some(_) => pair_fields_each(line(bytes), "form"),
        };
        match label {
            Ok(Format::Unlabelled) if first.is_some() => {
                errors.push(Error::UnsupportedMediaType("a body without a content type".into()));
            }
            Ok(_) => {}
            Err(error) => errors.push(error),
        }
        let (mut query, of_query) = pair_fields_each(parts.uri.query().unwrap_or_default().as_bytes(), "query");
        query.retain(|field| !field.is(NUMBERS));
        errors.extend(of_query);
        Self { body, query, errors }
    }
}

/// A body without the ends of its last line.
fn line(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
    &bytes[..end]
}

/// Most characters of a warning, which may repeat the caller's text.
const WARNING_MAX: usize = 400;

pub(super) fn not_as_sent(error: &Error) -> String {
    cut(format!("not read as sent: {error}"))
}

/// A sentence on one line. A long one is cut and its length added.
pub(super) fn cut(sentence: String) -> String {
    match sentence.char_indices().nth(WARNING_MAX) {
        None => sentence,
        Some((end, _)) => format!("{}… ({} bytes)", &sentence[..end], sentence.len()),
    }
}
