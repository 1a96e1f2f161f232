use super::fields::{Percent, percent_decode};
use super::*;
use crate::types::{Amount, Engine, Flag, JsonObject, Reason};
use proptest::prelude::*;

#[derive(Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    engine: Engine,
    amount: Option<Amount>,
    enabled: Option<Flag>,
    actor: Option<Reason>,
    metadata: Option<JsonObject>,
}

fn read(content_type: Option<&str>, body: &[u8], query: &str) -> Result<Sample> {
    let mut request = Request::builder().uri(format!("/x?{query}"));
    if let Some(content_type) = content_type {
        request = request.header(CONTENT_TYPE, content_type);
    }
    let (parts, ()) = request.body(()).unwrap().into_parts();
    let from_body = unique(body_fields(&parts, body)?, "body")?;
    parse(&merge(from_body, unique(query_fields(parts.uri.query())?, "query")?)?)
}

const JSON: Option<&str> = Some("application/json");
const FORM: Option<&str> = Some("application/x-www-form-urlencoded");

fn code(result: Result<Sample>) -> (&'static str, String) {
    let error = result.unwrap_err();
    (error.row().code, error.to_string())
}

#[test]
fn the_three_encodings_say_the_same() {
    let json = read(
        JSON,
        br#"{"engine":"e","amount":12345678901.123456,"enabled":true,"actor":"a b","metadata":{"k":1}}"#,
        "",
    );
    let form = b"engine=e&amount=12345678901.123456&enabled=yes&changed_by=a+b&metadata=%7B%22k%22%3A1%7D";
    let query = std::str::from_utf8(form).unwrap();
    assert_eq!(json.unwrap(), read(FORM, form, "").unwrap());
    assert_eq!(read(FORM, form, "").unwrap(), read(None, b"", query).unwrap());
    let curl = br#" {"engine":"e","amount":"12345678901.123456","enabled":"on","changed_by":"a b","metadata":{"k":1}}"#;
    assert_eq!(read(FORM, curl, "").unwrap(), read(None, b"", query).unwrap());
}

#[test]
fn body_and_query_merge_and_must_agree() {
    assert!(read(JSON, br#"{"engine":"e"}"#, "amount=5&engine=e").is_ok());
    assert!(read(JSON, br#"{"engine":"e","amount":5}"#, "amount=5").is_ok());
    assert_eq!(code(read(JSON, br#"{"engine":"e","amount":5}"#, "amount=6")).0, "CONTRADICTORY_INPUT");
    assert_eq!(code(read(JSON, br#"{"engine":"e","engine":"e"}"#, "")).0, "CONTRADICTORY_INPUT");
    assert_eq!(code(read(FORM, b"engine=e&engine=e", "")).0, "CONTRADICTORY_INPUT");
    assert_eq!(code(read(FORM, b"engine=e&actor=a&changed_by=b", "")).0, "CONTRADICTORY_INPUT");
    assert!(read(FORM, b"engine=e&actor=a&changed_by=a", "").is_ok());
}

#[test]
fn blank_and_null_mean_left_out() {
    let sample = read(JSON, br#"{"engine":"e","amount":null,"actor":"  ","enabled":""}"#, "").unwrap();
    assert_eq!((sample.amount, sample.actor, sample.enabled), (None, None, None));
    assert_eq!(code(read(JSON, br#"{"engine":""}"#, "")).1, "engine is required");
    assert_eq!(code(read(None, b"", "")).1, "engine is required");
}

#[test]
fn refusals_name_the_field_and_the_fix() {
    let allowed = "allowed are engine, amount, enabled, actor, metadata";
    assert_eq!(code(read(FORM, b"engine=e&force=1", "")).1, format!("force is unknown: {allowed}"));
    assert_eq!(
        code(read(JSON, br#"{"engine":"e","amount":0.30000000000000004}"#, "")).1,
        "amount has 17 decimals, at most 6: round it, or send \"0.3\""
    );
    assert_eq!(code(read(JSON, br#"{"engine":{"a":1}}"#, "")).1, "engine is an object: send one value");
    assert_eq!(code(read(JSON, br#"{"engine":"e","enabled":2}"#, "")).0, "VALIDATION_FAILED");
    for body in [
        "[]",
        "1",
        "\"x\"",
        "{",
        "{\"engine\":}",
        "{\"engine\":\"e\"}x",
        "\u{feff}{}",
        "{\"engine\":NaN}",
        "{'engine':'e'}",
    ] {
        assert_eq!(code(read(JSON, body.as_bytes(), "")).0, "MALFORMED_REQUEST", "{body}");
    }
    assert_eq!(code(read(JSON, b"{\"engine\":\"\xff\"}", "")).0, "MALFORMED_REQUEST");
    assert_eq!(code(read(FORM, b"engine=%zz", "")).0, "MALFORMED_REQUEST");
    assert_eq!(code(read(FORM, b"engine=%ff", "")).0, "MALFORMED_REQUEST");
    assert_eq!(code(read(FORM, b"engine=%4", "")).0, "MALFORMED_REQUEST");
    assert_eq!(code(read(Some("text/plain"), b"engine=e", "")).0, "UNSUPPORTED_MEDIA_TYPE");
    assert_eq!(code(read(Some("application/json; charset=utf-16"), b"{}", "")).0, "UNSUPPORTED_MEDIA_TYPE");
    assert_eq!(code(read(None, b"engine=e", "")).0, "UNSUPPORTED_MEDIA_TYPE");
}

proptest! {
    #[test]
    fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..200), query in "[ -~]{0,60}") {
        let query: String = query.chars().filter(|c| !matches!(c, '#' | '"' | '<' | '>' | '`' | '{' | '}' | ' ' | '\\' | '^' | '|')).collect();
        let _ = read(JSON, &body, &query);
        let _ = read(FORM, &body, &query);
    }

    #[test]
    fn percent_encoding_round_trips(text in "\\PC{0,40}") {
        let encoded = text.bytes().fold(String::new(), |text, byte| format!("{text}%{byte:02x}"));
        prop_assert_eq!(percent_decode(encoded.as_bytes(), Percent::Strict), Some(text));
    }
}
