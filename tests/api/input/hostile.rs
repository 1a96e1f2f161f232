//! No route takes a hostile body, except the stops, which take every one.

use super::posts::POSTS;
use super::{DISABLE, ENGAGE, JSON, Post, furnished, json_of, pairs_of};
use crate::support::{Answer, Service};
use serde_json::{Value, json};

const FORM: &str = "application/x-www-form-urlencoded";

/// Stop one thing, whatever the words beside it.
const ONE_STOP: [&str; 2] = ["/heimdall/recommendations/{id}/revoke", "/heimdall/demote"];

/// A request's body and query, and what it is.
struct Hostile {
    claim: String,
    content_type: Option<&'static str>,
    body: Vec<u8>,
    query: Option<&'static str>,
}

fn hostile(content_type: &'static str, body: impl Into<Vec<u8>>) -> Hostile {
    let body = body.into();
    let shown: String = String::from_utf8_lossy(&body).chars().take(120).collect();
    Hostile { claim: format!("{content_type} {shown}"), content_type: Some(content_type), body, query: None }
}

fn hostile_query(query: &'static str) -> Hostile {
    Hostile { claim: format!("?{query}"), content_type: None, body: Vec::new(), query: Some(query) }
}

/// Texts that are not a JSON object, or not one with a name in `actor`.
const NOT_JSON: &[&str] = &[
    "{",
    "}",
    "{\"actor\":",
    "{\"actor\":\"a\",}",
    "{'actor':'a'}",
    "{actor:\"a\"}",
    "{\"actor\":\"a\"}{}",
    "{\"actor\":\"a\"} x",
    "// comment\n{}",
    "[]",
    "[{\"actor\":\"a\"}]",
    "\"actor\"",
    "actor=a",
    "0",
    "true",
    "null",
    "NaN",
    "{\"actor\":NaN}",
    "{\"actor\":Infinity}",
    "{\"actor\":-Infinity}",
    "{\"actor\":undefined}",
    "{\"actor\":0x10}",
    "{\"actor\":01}",
    "{\"actor\":+1}",
    "{\"actor\":.5}",
    "{\"actor\":\"a\nb\"}",
    "{\"actor\":\"a\0b\"}",
    "{\"actor\":\"\\x41\"}",
    "{\"actor\":\"\\ud800\"}",
    "{\"actor\":\"\\udc00\\ud800\"}",
    "{\"\\ud800\":\"a\"}",
    "{\"actor\":\"a\\u0000b\"}",
    "{\"actor\":\"a\\u0007b\"}",
    "{\"actor\":\"a\\u007fb\"}",
    "{\"actor\":\"a\\u0085b\"}",
    "{\"actor\":{}}",
    "{\"actor\":[]}",
    "{\"actor\":[\"a\"]}",
    "{\"actor\":\"a\",\"actor\":\"a\"}",
    "{\"actor\":\"a\",\"actor\":null}",
    "{\"actor\":\"a\",\"act\\u006fr\":\"b\"}",
    "{\"actor\":\"a\",\"changed_by\":\"b\"}",
    "{\"actor\":\"a\",\"force\":true}",
    "{\"actor\":\"a\",\"Actor\":\"a\"}",
    "{\"actor\":\"a\",\"actor \":\"a\"}",
    "{\"actor\":\"a\",\"\":1}",
    "{\"actor\":\"a\",\"__proto__\":{}}",
];

/// Texts that every route refuses, whatever its fields are.
fn unreadable() -> Vec<Hostile> {
    let mut all: Vec<_> = NOT_JSON.iter().map(|body| hostile(JSON, *body)).collect();
    let deep = |open: &str, close: &str| format!("{{\"actor\":{}1{}}}", open.repeat(10_000), close.repeat(10_000));
    let many: Vec<_> = (0..100).map(|number| format!("\"f{number}\":1")).collect();
    let pairs: Vec<_> = (0..100).map(|number| format!("f{number}=1")).collect();
    all.extend([
        hostile(JSON, "[".repeat(60_000)),
        hostile(JSON, deep("[", "]")),
        hostile(JSON, deep("{\"a\":", "}").chars().take(60_000).collect::<String>()),
        hostile(JSON, format!("{{\"actor\":{}", "[".repeat(10_000))),
        hostile(JSON, format!("{{{}}}", many.join(","))),
        hostile(JSON, format!("{{\"actor\":\"{}\"}}", "a".repeat(65 * 1024))),
        hostile(JSON, vec![b' '; 65 * 1024]),
        hostile(FORM, format!("actor={}", "a".repeat(65 * 1024))),
        hostile(FORM, pairs.join("&")),
        hostile(JSON, &b"{\"actor\":\"\xff\"}"[..]),
        hostile(JSON, &b"{\"actor\":\"\xc0\x80\"}"[..]),
        hostile(JSON, &b"{\"actor\":\"\xed\xa0\x80\"}"[..]),
        hostile(JSON, &b"\xff\xfe{\x00}\x00"[..]),
        hostile(FORM, &b"actor=\xff"[..]),
        hostile(FORM, "actor=a&actor=b"),
        hostile(FORM, "actor=a&actor=a"),
        hostile(FORM, "actor=a&changed_by=b"),
        hostile(FORM, "actor=%zz"),
        hostile(FORM, "actor=%4"),
        hostile(FORM, "actor=%"),
        hostile(FORM, "actor=%ff"),
        hostile(FORM, "actor=%ed%a0%80"),
        hostile(FORM, "actor=a%00b"),
        hostile(FORM, "actor=a%0ab"),
        hostile(FORM, "actor=a\0b"),
        hostile(FORM, "%zz=a"),
        hostile(FORM, "actor=a&force=1"),
        hostile(FORM, "actor[]=a"),
        hostile(FORM, "{\"actor\":"),
        hostile(FORM, "[]"),
        hostile("text/plain", "{\"actor\":\"a\"}"),
        hostile("application/xml", "<actor>a</actor>"),
        hostile("application/octet-stream", "{\"actor\":\"a\"}"),
        hostile("multipart/form-data; boundary=x", "--x--"),
        hostile("application/json; charset=utf-16", "{\"actor\":\"a\"}"),
        hostile("application/json; charset=latin1", "{\"actor\":\"a\"}"),
        hostile("application/json, text/plain", "{\"actor\":\"a\"}"),
        hostile("json", "{\"actor\":\"a\"}"),
        Hostile {
            claim: "no content type".into(),
            content_type: None,
            body: b"{\"actor\":\"a\"}".to_vec(),
            query: None,
        },
        Hostile {
            claim: "body and query at odds".into(),
            content_type: Some(JSON),
            body: b"{\"actor\":\"a\"}".to_vec(),
            query: Some("actor=b"),
        },
        hostile_query("actor=%zz"),
        hostile_query("actor=%ff"),
        hostile_query("actor=a%00b"),
        hostile_query("actor=a&actor=b"),
        hostile_query("actor=a&force=1"),
    ]);
    all
}

/// Texts that are neither a number nor a yes or no here.
const NO_NUMBERS: &[&str] = &[
    "1e400",
    "-1e400",
    "1e-400",
    "-0",
    "-0.0",
    "-1",
    "1e99999999999999999999",
    "1111111111222222222233333333334444444444",
    "0.00000000000000000000000000000000000001",
    r#""0x10""#,
    r#""1,5""#,
    r#""1_000""#,
    r#""1 000""#,
    r#""NaN""#,
    r#""Infinity""#,
    r#""١""#,
    r#""1e""#,
    r#""--1""#,
    r#""+1""#,
    r#"".5""#,
    r#""5.""#,
    r#""007""#,
    r#""$400""#,
    r#""1\u0000""#,
    r#""1\n""#,
    "[]",
    "{}",
    "[1]",
];

/// Texts that this route refuses.
fn unacceptable(post: &Post) -> Vec<Hostile> {
    let valid = json_of(post.fields.iter().copied());
    let (name, token) = post.fields[0];
    let mut all = vec![
        hostile(JSON, post.json_with("skip_the_gate", "true")),
        hostile(JSON, post.json_with("actor", r#""a\u0000b""#)),
        hostile(JSON, post.json_with(name, r#""\ud800""#)),
        hostile(JSON, post.json_with(name, r#""a\u0000b""#)),
        hostile(JSON, post.json_with(name, r#"{"a":1}"#)),
        hostile(JSON, post.json_with(name, "[1]")),
        hostile(JSON, valid.replacen('{', &format!("{{{name:?}:{token},"), 1)),
        hostile(FORM, format!("{}&{}", pairs_of(post.fields), pairs_of(&post.fields[..1]))),
        hostile(FORM, format!("{}&skip_the_gate=1", pairs_of(post.fields))),
    ];
    let long = format!("\"{}\"", "a".repeat(5_000));
    all.push(hostile(JSON, post.json_with(name, &long)));
    all.extend(
        (1..valid.len())
            .step_by(7)
            .filter(|end| valid.is_char_boundary(*end))
            .map(|end| hostile(JSON, &valid.as_bytes()[..end])),
    );
    if post.needs_a_field {
        for (content_type, body) in [(JSON, "{}"), (FORM, ""), (FORM, "{}"), (JSON, "")] {
            all.push(hostile(content_type, body));
        }
    }
    if let Some(number) = post.number {
        all.extend(NO_NUMBERS.iter().map(|token| hostile(JSON, post.json_with(number, token))));
    }
    for object in ["metadata", "recommendation", "evidence"] {
        if post.fields.iter().any(|(name, _)| *name == object) {
            let deep = format!("{{\"a\":{}1{}}}", "[".repeat(1_000), "]".repeat(1_000));
            let big = format!("{{\"a\":\"{}\"}}", "a".repeat(17 * 1024));
            for token in [
                "[]",
                "1",
                r#""text""#,
                r#""[1]""#,
                r#"{"a":1,"a":2}"#,
                r#"{"a":{"b":1,"b":2}}"#,
                r#"{"a":"\u0000"}"#,
                r#"{"a\u0000":1}"#,
                r#"{"a":"\ud800"}"#,
                r#"{"a":[["\udfff"]]}"#,
                r#"{"a":1e400}"#,
                deep.as_str(),
                big.as_str(),
            ] {
                all.push(hostile(JSON, post.json_with(object, token)));
            }
        }
    }
    all
}

async fn send(service: &Service, post: &Post, hostile: &Hostile) -> Answer {
    let query = hostile.query.map(|query| format!("?{query}"));
    let path = format!("{}{}", post.path(), query.unwrap_or_default());
    service.post_bytes(&path, hostile.content_type, hostile.body.clone()).await
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn no_hostile_body_is_taken_by_any_route_or_leaves_a_trace() {
    let service = furnished().await;
    let mut taken = Vec::new();
    for post in POSTS.iter().filter(|post| ![ENGAGE, DISABLE].contains(&post.template)) {
        let before = service.everything().await;
        let taken_before = taken.len();
        for hostile in unreadable().iter().chain(&unacceptable(post)) {
            let events = service.events().await;
            let answer = send(&service, post, hostile).await;
            let wrote = service.events().await - events;
            if ONE_STOP.contains(&post.template) && !texts(&answer.json["ignored"]).is_empty() {
                continue;
            }
            if !answer.status.is_client_error() || wrote != 0 {
                let (path, claim) = (post.template, &hostile.claim);
                let status = answer.status;
                taken.push(format!("{path}: {claim}: {status}, {wrote} events"));
            }
        }
        if taken.len() == taken_before && !ONE_STOP.contains(&post.template) {
            assert_eq!(service.everything().await, before, "{}", post.template);
        }
    }
    assert!(taken.is_empty(), "{}", taken.join("\n"));
}

#[tokio::test]
async fn engage_and_disable_alone_take_every_hostile_body() {
    let service = Service::fresh().await;
    let stops = POSTS.iter().filter(|post| [ENGAGE, DISABLE].contains(&post.template));
    let all =
        stops.flat_map(|post| unreadable().into_iter().chain(unacceptable(post)).map(move |hostile| (post, hostile)));
    for (number, (post, hostile)) in (2..).zip(all.collect::<Vec<_>>()) {
        let answer = send(&service, post, &hostile).await.ok();
        assert_eq!(answer["version"], number, "{} {}", post.template, hostile.claim);
        let warnings = answer["warnings"].as_array().unwrap();
        // Body and query are read apart: each says something readable here.
        assert!(!warnings.is_empty(), "{}", hostile.claim);
    }
}

#[tokio::test]
async fn a_name_of_a_field_is_told_as_it_was_sent() {
    let service = Service::fresh().await;
    for name in ["force", "Actor", "a b", "a`b", "a at line 1 column 2", "`", "missing field `x`", "é", "actor.name"] {
        let body = json!({"actor": "a", name: 1});
        let answer = service.post("/go-live/enable", &body).await;
        let sentence = answer.invalid(name);
        assert_eq!(sentence, "is unknown: allowed are actor, reason, idempotency_key", "{name}");
    }
}

#[tokio::test]
async fn an_unknown_field_is_refused_even_if_it_is_blank() {
    let service = Service::live().await;
    service.post(ENGAGE, &json!({"actor": "a"})).await.ok();
    let before = service.everything().await;
    let release = "/go-live/kill-switch/release";
    for (answer, field) in [
        (service.post(release, &json!({"force": null})).await, "force"),
        (service.post(release, &json!({"force": ""})).await, "force"),
        (service.post_form(release, "force=").await, "force"),
        (service.get("/go-live/state?colour=").await, "colour"),
    ] {
        answer.invalid(field);
    }
    assert_eq!(service.everything().await, before);
}

#[tokio::test]
async fn a_name_without_a_value_is_refused_because_it_could_mean_either() {
    let service = Service::live().await;
    let before = service.everything().await;
    service.post_form("/go-live/kill-switch/release", "please do").await.refused(400, "MALFORMED_REQUEST");
    let reserve = "engine=WHOLESALE&amount=1&dry_run";
    service.post_query("/risk/check-and-reserve", reserve).await.refused(400, "MALFORMED_REQUEST");
    service.post_query("/risk/check-and-reserve", &format!("{reserve}=")).await.invalid("dry_run");
    assert_eq!(service.everything().await, before);
}
