//! Numbers as strings, for readers that take every number for a double: with `numbers=string` in the query or among the
//! parameters of `Accept`, each number in a JSON answer is a string of the same digits, at any depth. The rule has no
//! exceptions, so the type of a member never depends on its value or its name.

use super::BASE_PATH;
use super::input::fields::{Field, query_values};
use super::places::{AnswerCharge, counted};
use crate::error::{Error, Result};
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

/// The name of the parameter, in the query and in a media type.
pub(crate) const NUMBERS: &str = "numbers";
pub(crate) const STRING: &str = "string";

/// True if the answer to this request should have its numbers as strings.
pub(crate) fn wanted(request: &Request) -> bool {
    let uri = request.uri();
    let by_query = || query_values(uri.query().unwrap_or_default(), NUMBERS).any(|value| value.trim() == STRING);
    let by_header = || {
        let lines = request.headers().get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).any(asks_for_text)
    };
    covers(uri.path()) && (by_query() || by_header())
}

/// True for a path whose answers are the service's own and have numbers. Answers from behind the gate are not ours, and
/// OFREP is a standard.
pub(crate) fn covers(path: &str) -> bool {
    path == "/readyz" || path.strip_prefix(BASE_PATH).is_some_and(|rest| rest.starts_with('/'))
}

/// True if a media range has the parameter.
fn asks_for_text(range: &str) -> bool {
    range.split(';').skip(1).filter_map(|parameter| parameter.split_once('=')).any(|(name, value)| {
        name.trim().eq_ignore_ascii_case(NUMBERS) && value.trim().trim_matches('"').eq_ignore_ascii_case(STRING)
    })
}

/// The fields of a query without this parameter, which every route accepts.
pub(super) fn taken(mut fields: Vec<Field>) -> Result<Vec<Field>> {
    for field in fields.extract_if(.., |field| field.is(NUMBERS)).filter(|field| !field.is_blank()) {
        if crate::types::scalar_of(&field.value).is_ok_and(|text| text.trim() != STRING) {
            return Err(Error::invalid(
                NUMBERS,
                "must be `string`: send numbers=string, or leave it out for JSON numbers",
            ));
        }
    }
    Ok(fields)
}

/// The answer with its numbers as strings. An answer that is not JSON is unchanged.
pub(crate) async fn as_text(response: Response) -> Response {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind_is_problem = kind.starts_with("application/problem+json");
    if !kind_is_problem && kind.split(';').next().unwrap_or_default().trim() != "application/json" {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let charge = parts.extensions.remove::<AnswerCharge>();
    let Ok(bytes) = axum::body::to_bytes(body, usize::MAX).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let mut bytes = quoted(&bytes);
    if kind_is_problem {
        // RFC 9457 requires a number here. The text before it is the service's own.
        let status = parts.status.as_u16();
        let text = String::from_utf8_lossy(&bytes);
        bytes = text.replacen(&format!(r#""status":"{status}""#), &format!(r#""status":{status}"#), 1).into_bytes();
    }
    if bytes.is_empty() {
        // After HEAD, the length is that of the other form; the length of this form is not known.
        parts.headers.remove(CONTENT_LENGTH);
    } else {
        parts.headers.insert(CONTENT_LENGTH, bytes.len().into());
    }
    let response = Response::from_parts(parts, Body::from(bytes));
    match charge {
        Some(charge) => counted(response, charge),
        None => response,
    }
}

/// A JSON text with each number in quotes.
fn quoted(json: &Bytes) -> Vec<u8> {
    let mut text = Vec::with_capacity(json.len() + json.len() / 4);
    let (mut in_string, mut is_escaped, mut in_number) = (false, false, false);
    for &byte in json {
        if in_string {
            in_string = is_escaped || byte != b'"';
            is_escaped = !is_escaped && byte == b'\\';
        } else {
            // Outside strings, only numbers have these characters; the e of true and false never follows a digit.
            let is_of_number =
                matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.') || (in_number && matches!(byte, b'e' | b'E'));
            if is_of_number != in_number {
                text.push(b'"');
                in_number = is_of_number;
            }
            in_string = byte == b'"';
        }
        text.push(byte);
    }
    if in_number {
        text.push(b'"');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_is_quoted_with_its_own_digits_and_nothing_else_is_touched() {
        for (json, text) in [
            ("9999999999.999999", r#""9999999999.999999""#),
            (r#"{"a":1,"b":-0.5,"c":[1,2e+5, 3E-7 ]}"#, r#"{"a":"1","b":"-0.5","c":["1","2e+5", "3E-7" ]}"#),
            (r#"{"1":"2","\"3":"\\","4":5}"#, r#"{"1":"2","\"3":"\\","4":"5"}"#),
            (r#"[true,false,null,"-1 \" 2",{}]"#, r#"[true,false,null,"-1 \" 2",{}]"#),
            ("", ""),
        ] {
            assert_eq!(String::from_utf8(quoted(&Bytes::from(json))).unwrap(), text);
        }
    }

    #[test]
    fn a_media_range_asks_by_its_parameter() {
        for (range, asks) in [
            ("application/json;numbers=string", true),
            (" application/json ; q=0.5 ; Numbers=\"string\"", true),
            ("application/json", false),
            ("application/json;numbers=number", false),
            ("numbers=string", false),
        ] {
            assert_eq!(asks_for_text(range), asks, "{range}");
        }
    }
}
