//! What goes in: the three encodings say the same on every route, and nothing hostile gets through any of them.

use crate::support::{Answer, BASE, Service, request};
use axum::http::Method;
use holdfast::enforcement::routes::ROUTES;
use serde_json::{Map, Value, json};
use std::fmt::Write;

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const ENGAGE: &str = "/go-live/kill-switch/engage";
const DISABLE: &str = "/go-live/disable";
/// Stop one thing, whatever the words beside it.
const ONE_STOP: [&str; 2] = ["/heimdall/recommendations/{id}/revoke", "/heimdall/demote"];

/// A POST route and an input that it takes. The values are JSON tokens, so that numbers keep their spelling.
struct Post {
    /// As the table of routes writes it, below the base path.
    template: &'static str,
    fields: &'static [(&'static str, &'static str)],
    /// A field that takes a number or a yes or no, if there is one.
    number: Option<&'static str>,
    /// Whether there is a field without which nothing is done.
    needs_a_field: bool,
}

const ACTOR: (&str, &str) = ("actor", r#""Bryan & Åsa = 100 %""#);
const REASON: (&str, &str) = ("reason", r#""why? a+b; \"c\" #1""#);
const CORRELATION: (&str, &str) = ("correlation_id", r#""deal/7""#);

/// Every POST route, in an order in which each of them works on a live service.
const POSTS: &[Post] = &[
    Post {
        template: "/go-live/packs",
        fields: &[
            ("id", r#""CRM""#),
            ("status", r#""installed""#),
            ("name", r#""Customers & co""#),
            ("version", "1.0"),
            ACTOR,
            REASON,
        ],
        number: None,
        needs_a_field: true,
    },
    Post { template: "/go-live/enable", fields: &[ACTOR, REASON], number: None, needs_a_field: true },
    // Of a fresh install, these three are off and were never used.
    Post {
        template: "/risk/policies/remove",
        fields: &[("engine", r#"" notify ""#), ACTOR, REASON],
        number: None,
        needs_a_field: true,
    },
    Post {
        template: "/heimdall/policies/remove",
        fields: &[("domain", r#""Capital_Route""#), ACTOR, REASON],
        number: None,
        needs_a_field: true,
    },
    Post {
        template: "/regression/policies/remove",
        fields: &[("domain", r#""Buyer_Match""#), ("metric", r#""match_success""#), ACTOR, REASON],
        number: None,
        needs_a_field: true,
    },
    Post {
        template: "/risk/policies/upsert",
        fields: &[
            ("engine", r#"" deals ""#),
            ("max_daily_loss", "250.50"),
            ("max_daily_exposure", r#""1500.000001""#),
            ("max_open_risk", "1e3"),
            ("max_actions_per_day", "10"),
            ("enabled", "true"),
            ("allow_unlimited", "false"),
            ACTOR,
            REASON,
        ],
        number: Some("max_daily_loss"),
        needs_a_field: true,
    },
    Post {
        template: "/risk/check-and-reserve",
        fields: &[
            ("engine", r#""DEALS""#),
            ("amount", "400.000001"),
            ("metadata", r#"{"b":1.50,"a":["x&y",{"c":null}]}"#),
            ("ttl_seconds", r#""3600""#),
            ("dry_run", r#""no""#),
            ACTOR,
            REASON,
            CORRELATION,
        ],
        number: Some("amount"),
        needs_a_field: true,
    },
    Post {
        template: "/risk/settle",
        fields: &[
            ("engine", r#""deals""#),
            ("reserved_amount", "400.000001"),
            ("settled_amount", r#""100""#),
            ("realized_loss", "0.5"),
            ACTOR,
            REASON,
            CORRELATION,
        ],
        number: Some("realized_loss"),
        needs_a_field: true,
    },
    Post {
        template: "/risk/reservations",
        fields: &[
            ("engine", r#""DEALS""#),
            ("amount", "5"),
            ("ttl_seconds", "60"),
            ("reservation_id", r#""0192f0c1-7f3e-7d3c-8a52-1f0c2b3a4d5e""#),
            ACTOR,
            REASON,
        ],
        number: Some("amount"),
        needs_a_field: true,
    },
    Post {
        template: "/risk/reservations/{id}/extend",
        fields: &[("ttl_seconds", r#""120""#), ("engine", r#""deals""#), ACTOR, REASON, CORRELATION],
        number: Some("ttl_seconds"),
        needs_a_field: true,
    },
    Post {
        template: "/risk/reservations/{id}/release",
        fields: &[("engine", r#""deals""#), ACTOR, REASON, CORRELATION],
        number: None,
        needs_a_field: false,
    },
    Post {
        template: "/risk/batch",
        fields: &[(
            "operations",
            r#"[{"op":"reserve","engine":"deals","amount":1.50,"reservation_id":"0192f0c1-7f3e-7d3c-8a52-1f0c2b3a4d5f"},{"op":"settle"}]"#,
        )],
        number: None,
        needs_a_field: true,
    },
    Post {
        template: "/risk/reservations/{id}/settle",
        fields: &[("settled_amount", "1.25"), ("realized_loss", r#""0.5""#), ACTOR, REASON, CORRELATION],
        number: Some("realized_loss"),
        needs_a_field: false,
    },
    Post {
        template: "/risk/adjustments",
        fields: &[("corrects_seq", "1"), ("loss_delta", r#""0.5""#), ACTOR, REASON, CORRELATION],
        // It may be negative, which the table of unacceptable numbers does not know.
        number: None,
        needs_a_field: true,
    },
    Post {
        template: "/heimdall/policies/upsert",
        fields: &[
            ("domain", r#""Routing""#),
            ("min_confidence_prod", "0.5"),
            ("min_sandbox_trials", "1"),
            ("min_sandbox_success_rate", r#""0.25""#),
            ("prod_use_enabled", "1"),
            ("engine", r#""deals""#),
            ("recommendation_ttl_seconds", "3600"),
            ("single_use", r#""yes""#),
            ("scorecard_window", r#""ROLLING_DAYS""#),
            ("window_days", r#""7""#),
            ("gate_rule", r#""POINT""#),
            ("approved_model_version", r#""v2 & later""#),
            ("calibration_gate", "false"),
            ACTOR,
            REASON,
        ],
        number: Some("min_confidence_prod"),
        needs_a_field: true,
    },
    Post {
        template: "/heimdall/sandbox/trial",
        fields: &[
            ("domain", r#""routing""#),
            ("model_version", r#"" v2 & later ""#),
            ("confidence", "0.7300000000000001"),
            ("success", r#""on""#),
            ACTOR,
            CORRELATION,
        ],
        number: Some("confidence"),
        needs_a_field: true,
    },
    Post {
        template: "/heimdall/recommend",
        fields: &[
            ("domain", r#""ROUTING""#),
            ("model_version", r#""v2 & later""#),
            ("confidence", "0.9"),
            ("recommendation", r#"{"route":"A&B","weight":1.10}"#),
            ("evidence", "{}"),
            ACTOR,
            CORRELATION,
        ],
        number: Some("confidence"),
        needs_a_field: true,
    },
    Post {
        // The trial is the first event of its stream, the recommendation the second.
        template: "/heimdall/recommendations/{id}/require-prod-eligible",
        fields: &[ACTOR, REASON, CORRELATION],
        number: None,
        needs_a_field: false,
    },
    Post {
        template: "/heimdall/recommendations/{id}/revoke",
        fields: &[ACTOR, REASON, CORRELATION],
        number: None,
        needs_a_field: false,
    },
    Post {
        template: "/heimdall/demote",
        fields: &[("domain", r#""Routing""#), ACTOR, REASON],
        number: None,
        needs_a_field: true,
    },
    Post {
        // The one trial is all that is asked for.
        template: "/heimdall/promote",
        fields: &[("domain", r#""Routing""#), ACTOR, REASON],
        number: None,
        needs_a_field: true,
    },
    Post {
        template: "/regression/policies/upsert",
        fields: &[
            ("domain", r#""deals""#),
            ("metric", r#""Close_Rate""#),
            ("window_events", "5"),
            ("baseline_events", r#""5""#),
            ("min_events_to_enforce", "5"),
            ("max_drop_fraction", "0.25"),
            ("action", r#""THROTTLE""#),
            ("engine", r#""deals""#),
            ("enabled", "true"),
            ACTOR,
            REASON,
        ],
        number: Some("max_drop_fraction"),
        needs_a_field: true,
    },
    Post {
        template: "/regression/kpi",
        fields: &[
            ("domain", r#""DEALS""#),
            ("metric", r#""close_rate""#),
            ("success", "true"),
            ("detail", r#""closed & signed""#),
            ("event_id", r#""e-1""#),
            ACTOR,
            CORRELATION,
        ],
        number: Some("success"),
        needs_a_field: true,
    },
    Post {
        template: "/regression/evaluate",
        fields: &[("domain", r#""deals""#), ("metric", r#""close_rate""#), ACTOR],
        number: None,
        needs_a_field: true,
    },
    // With the one before, five good ones and five bad: the wire trips.
    Post {
        template: "/regression/kpi/batch",
        fields: &[
            (
                "events",
                r#"[{"domain":"deals","metric":"close_rate","success":"yes","event_id":"e-1"},{"domain":"DEALS","metric":"close_rate","success":true},{"domain":"DEALS","metric":"close_rate","success":true},{"domain":"DEALS","metric":"close_rate","success":true,"actor":"a & b"},{"domain":"DEALS","metric":"close_rate","success":true},{"domain":"DEALS","metric":"close_rate","success":false},{"domain":"DEALS","metric":"close_rate","success":false},{"domain":"DEALS","metric":"close_rate","success":false},{"domain":"DEALS","metric":"close_rate","success":false},{"domain":"DEALS","metric":"close_rate","success":false},{"domain":"DEALS","value":1}]"#,
            ),
            ACTOR,
            CORRELATION,
        ],
        number: None,
        needs_a_field: true,
    },
    Post {
        template: "/regression/backtest",
        fields: &[
            ("domain", r#""deals""#),
            ("metric", r#""close_rate""#),
            ("window_events", "2"),
            ("min_events_to_enforce", "2"),
            ("detector", r#""SEQUENTIAL""#),
            ("from", r#""2020-01-01T00:00:00Z""#),
            ("shuffles", "3"),
        ],
        number: Some("shuffles"),
        needs_a_field: true,
    },
    Post {
        template: "/regression/acknowledge",
        fields: &[
            ("domain", r#""deals""#),
            ("metric", r#""close_rate""#),
            ("verdict", r#""TRUE_REGRESSION""#),
            ACTOR,
            REASON,
        ],
        number: None,
        needs_a_field: true,
    },
    Post {
        template: "/regression/kind",
        fields: &[("domain", r#""deals""#), ("metric", r#""new""#), ("kind", r#""BOOLEAN""#), ACTOR, REASON],
        number: None,
        needs_a_field: true,
    },
    Post {
        template: "/regression/rearm",
        fields: &[("domain", r#""deals""#), ("metric", r#""close_rate""#), ("baseline", r#""KEEP""#), ACTOR, REASON],
        number: None,
        needs_a_field: true,
    },
    Post {
        template: "/regression/baseline/reset",
        fields: &[
            ("domain", r#""deals""#),
            ("metric", r#""close_rate""#),
            ("source", r#""NEXT_N""#),
            ("force", r#""no""#),
            ACTOR,
            REASON,
        ],
        number: None,
        needs_a_field: true,
    },
    Post { template: DISABLE, fields: &[ACTOR, REASON], number: None, needs_a_field: false },
    Post { template: ENGAGE, fields: &[ACTOR, REASON], number: None, needs_a_field: false },
    Post { template: "/go-live/kill-switch/release", fields: &[ACTOR, REASON], number: None, needs_a_field: false },
];

type Fields = [(&'static str, &'static str)];

impl Post {
    fn path(&self) -> String {
        let id = match self.template {
            "/risk/reservations/{id}/settle" => "0192f0c1-7f3e-7d3c-8a52-1f0c2b3a4d5f",
            template if template.starts_with("/risk") => "0192f0c1-7f3e-7d3c-8a52-1f0c2b3a4d5e",
            _ => "2",
        };
        self.template.replace("{id}", id)
    }

    /// The valid input with one field set to another token, or added.
    fn json_with(&self, name: &str, token: &str) -> String {
        let others = self.fields.iter().filter(|(field, _)| *field != name);
        let mut text = json_of(others.copied());
        text.truncate(text.len() - 1);
        let comma = if text.len() > 1 { "," } else { "" };
        let _ = write!(text, "{comma}{name:?}:{token}}}");
        text
    }
}

fn json_of(fields: impl IntoIterator<Item = (&'static str, &'static str)>) -> String {
    let members: Vec<_> = fields.into_iter().map(|(name, token)| format!("{name:?}:{token}")).collect();
    format!("{{{}}}", members.join(","))
}

fn pairs_of(fields: &Fields) -> String {
    let encode = |text: &str| {
        text.bytes().fold(String::new(), |mut encoded, byte| {
            match byte {
                b' ' => encoded.push('+'),
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' => encoded.push(byte.into()),
                other => {
                    let _ = write!(encoded, "%{other:02X}");
                }
            }
            encoded
        })
    };
    let text = |token: &str| {
        if token.starts_with('"') { serde_json::from_str(token).unwrap() } else { token.to_owned() }
    };
    fields.iter().map(|(name, token)| format!("{name}={}", encode(&text(token)))).collect::<Vec<_>>().join("&")
}

/// A way to send the same fields.
#[derive(Debug, Clone, Copy)]
enum Encoding {
    Json,
    Form,
    Query,
    JsonLabelledAsForm,
    /// The first half in the body, the second in the query.
    Both,
    /// Everything twice, saying the same.
    Twice,
}

impl Encoding {
    async fn send(self, service: &Service, path: &str, fields: &Fields) -> Answer {
        let json = json_of(fields.iter().copied());
        match self {
            Self::Json => service.post_text(path, JSON, &json).await,
            Self::Form => service.post_form(path, &pairs_of(fields)).await,
            Self::Query => service.post_query(path, &pairs_of(fields)).await,
            Self::JsonLabelledAsForm => service.post_form(path, &json).await,
            Self::Both => {
                let (body, query) = fields.split_at(fields.len() / 2);
                let path = format!("{path}?{}", pairs_of(query));
                service.post_form(&path, &pairs_of(body)).await
            }
            Self::Twice => {
                let path = format!("{path}?{}", pairs_of(fields));
                service.post_text(&path, JSON, &json).await
            }
        }
    }
}

/// Takes out what differs from run to run: times, random ids, and the hashes over them.
fn masked(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let masked = members.iter().map(|(name, value)| {
                let hidden = ["hash", "request_id"].contains(&name.as_str());
                let value = if hidden { json!("…") } else { masked(value) };
                (name.clone(), value)
            });
            Value::Object(masked.collect::<Map<_, _>>())
        }
        Value::Array(items) => items.iter().map(masked).collect(),
        Value::String(text)
            if text.parse::<uuid::Uuid>().is_ok() || chrono::DateTime::parse_from_rfc3339(text).is_ok() =>
        {
            json!("…")
        }
        other => other.clone(),
    }
}

/// What the service shows of itself when all is done.
const READS: [&str; 13] = [
    "/go-live/state",
    "/go-live/events",
    "/go-live/packs",
    "/risk/policies",
    "/risk/ledger/today",
    "/risk/reservations",
    "/risk/events",
    "/heimdall/policies",
    "/heimdall/recommendations",
    "/heimdall/events",
    "/regression/kpi",
    "/regression/state",
    "/regression/trips",
];

/// Runs through every route in one encoding; the answers, and what is there to be read afterwards.
async fn run(encoding: Encoding) -> Vec<(String, Value)> {
    let service = Service::fresh().await;
    let mut seen = Vec::new();
    for post in POSTS {
        let answer = encoding.send(&service, &post.path(), post.fields).await;
        assert!(answer.status.is_success(), "{encoding:?} {}: {}", post.template, answer.text);
        seen.push((post.template.to_owned(), masked(&answer.json)));
    }
    for path in READS {
        seen.push((path.to_owned(), masked(&service.get(path).await.ok())));
    }
    seen
}

#[tokio::test]
async fn every_post_route_takes_json_form_query_and_mixtures_alike() {
    let json = run(Encoding::Json).await;
    let reserve = &json.iter().find(|(path, _)| path == "/risk/check-and-reserve").unwrap().1;
    assert_eq!(reserve["ok"], true, "the inputs do something: {reserve}");
    for encoding in [Encoding::Form, Encoding::Query, Encoding::JsonLabelledAsForm, Encoding::Both, Encoding::Twice] {
        for (seen, expected) in run(encoding).await.iter().zip(&json) {
            assert_eq!(seen, expected, "{encoding:?}");
        }
    }
}

#[test]
fn the_table_of_these_tests_holds_every_post_route() {
    // Flags are asked for with POST; nothing of it is input. No two answers of a token are alike, and
    // an approval and its rejection need one that waits: tests/api/access, tests/api/approval.
    let mut known: Vec<_> = ROUTES
        .iter()
        .filter(|route| route.method == Some(Method::POST) && route.template.starts_with(BASE))
        .filter(|route| {
            !route.template.ends_with("/access/tokens") && !route.template.starts_with("/api/governance/approvals/")
        })
        .map(|route| route.template)
        .collect();
    let mut tested: Vec<_> = POSTS.iter().map(|post| format!("{BASE}{}", post.template)).collect();
    known.sort_unstable();
    tested.sort_unstable();
    assert_eq!(tested, known);
}

// Hostile bodies

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

/// What is no JSON object, or not one with a name in `actor`.
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

/// What no route takes, whatever its fields are.
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

/// What no number and no yes or no is written like, here.
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

/// What this route does not take.
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

/// A service on which every route works.
async fn furnished() -> Service {
    let service = Service::fresh().await;
    for post in POSTS {
        let answer = Encoding::Json.send(&service, &post.path(), post.fields).await;
        assert!(answer.status.is_success(), "{}: {}", post.template, answer.text);
    }
    service
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

#[tokio::test]
async fn a_hostile_id_in_the_path_is_refused() {
    let service = furnished().await;
    let before = service.everything().await;
    for id in [
        "0",
        "-1",
        "3",
        "999999999999",
        "1e400",
        "NaN",
        "x",
        "0x2",
        "2.5",
        "9223372036854775808",
        "1111111111222222222233333333334444444444",
        "%20",
        "%80",
        "%e2%80%ae",
        "2'--",
        "..",
        "2%2f..",
        "%00",
    ] {
        for path in [format!("/heimdall/recommendations/{id}"), format!("/risk/reservations/{id}")] {
            let answer = service.get(&path).await;
            assert!(answer.status.is_client_error(), "{path}: {}", answer.text);
        }
        let path = format!("/heimdall/recommendations/{id}/require-prod-eligible");
        let answer = service.post(&path, &json!({"actor": "a"})).await;
        assert!(answer.status.is_client_error(), "{path}: {}", answer.text);
    }
    assert_eq!(service.everything().await, before);
}

// Queries of reads

/// Every read below the base path.
fn gets() -> Vec<String> {
    ROUTES
        .iter()
        .filter(|route| route.method == Some(Method::GET))
        .filter_map(|route| route.template.strip_prefix(BASE))
        .map(|template| {
            let id = if template.starts_with("/risk") { "0192f0c1-7f3e-7d3c-8a52-1f0c2b3a4d5e" } else { "2" };
            template.replace("{id}", id)
        })
        .collect()
}

#[tokio::test]
async fn a_read_refuses_a_parameter_that_it_does_not_know_and_names_those_it_does() {
    let service = Service::fresh().await;
    for path in gets() {
        let sentence = service.get(&format!("{path}?colour=red")).await.invalid("colour");
        assert!(sentence.starts_with("is unknown: allowed are "), "{path}: {sentence}");
    }
    for (path, allowed) in [
        ("/go-live/state", "none"),
        ("/go-live/events", "limit, cursor"),
        ("/review", "format"),
        ("/risk/reservations", "engine, status, older_than, correlation_id, limit, cursor"),
        ("/risk/events", "engine, action, ok, correlation_id, from, to, limit, cursor"),
        ("/regression/kpi", "domain, metric, limit, cursor"),
    ] {
        let sentence = service.get(&format!("{path}?colour=red")).await.invalid("colour");
        assert_eq!(sentence, format!("is unknown: allowed are {allowed}"), "{path}");
    }
    for path in ["/health", "/livez", "/readyz", "/metrics"] {
        let answer = service.get_root(&format!("{path}?colour=red")).await;
        assert_eq!(answer.invalid("colour"), "is unknown: allowed are none", "{path}");
    }
}

#[tokio::test]
async fn no_query_of_a_read_is_a_failure_of_the_service() {
    let service = furnished().await;
    let mut failed = Vec::new();
    for path in gets() {
        for (name, values) in [
            ("limit", &["0", "-1", "1001", "1.5", "x", "NaN", "1e400", "9223372036854775808", "%00", "%ff", "%zz"][..]),
            ("cursor", &["0", "-1", "x", "1000000000000", "9223372036854775807", "1e400", "%00"]),
            ("engine", &["%00", "a%20b", "%ff", "'--", "%F0%9F%92%A3", "*"]),
            ("domain", &["%00", "a%20b", "%ff", "'--"]),
            ("metric", &["%00", "a%20b", "%ff", "'--"]),
            ("correlation_id", &["%00", "%0a", "%ff", "'%3B--", "%F0%9F%92%A3"]),
            ("status", &["x", "open", "%00"]),
            ("action", &["x", "deny", "%00"]),
            ("ok", &["maybe", "2", "%00"]),
            ("prod_eligible", &["maybe", "%00"]),
            ("format", &["pdf", "%00"]),
            (
                "from",
                &[
                    "x",
                    "%00",
                    "2026-02-30T00:00:00Z",
                    "0000-01-01T00:00:00Z",
                    "-4800-01-01T00:00:00Z",
                    "-200000-01-01T00:00:00Z",
                    "%2B262000-01-01T00:00:00Z",
                    "9999-12-31T23:59:60Z",
                    "infinity",
                ],
            ),
            ("to", &["x", "-200000-01-01T00:00:00Z", "%2B262000-01-01T00:00:00Z", "-infinity"]),
        ] {
            for value in values {
                let uri = format!("{path}?{name}={value}");
                let answer = service.get(&uri).await;
                if answer.status.is_server_error() {
                    failed.push(format!("{uri}: {}", answer.status));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

// Limits

#[tokio::test]
async fn names_and_texts_are_taken_up_to_their_limits_and_not_beyond() {
    let service = Service::live().await;
    let risk = json!({"max_daily_loss": 1, "max_daily_exposure": 1, "max_open_risk": 1, "engine": "E"});
    let kpi = json!({"domain": "D", "metric": "m", "success": true});
    let pack = json!({"id": "p", "status": "installed"});
    let reserve = json!({"engine": "WHOLESALE", "amount": 1});
    let by = json!({"actor": "a"});
    for (path, valid, field, unit, most) in [
        ("/risk/policies/upsert", &risk, "engine", "a", 50),
        ("/regression/kpi", &kpi, "domain", "a", 80),
        ("/regression/kpi", &kpi, "metric", "a", 64),
        ("/regression/kpi", &kpi, "event_id", "é", 200),
        ("/regression/kpi", &kpi, "correlation_id", "é", 200),
        ("/regression/kpi", &kpi, "detail", "a", 4_096),
        ("/regression/kpi", &kpi, "detail", "é", 2_048),
        ("/go-live/packs", &pack, "id", "a", 64),
        ("/go-live/packs", &pack, "name", "é", 64),
        ("/go-live/packs", &pack, "version", "é", 64),
        ("/go-live/enable", &by, "actor", "a", 200),
        ("/go-live/enable", &by, "actor", "é", 200),
        ("/go-live/enable", &by, "actor", "💣", 200),
        ("/go-live/enable", &by, "reason", "a", 1_000),
        ("/go-live/enable", &by, "reason", "💣", 1_000),
        ("/risk/check-and-reserve", &reserve, "correlation_id", "💣", 200),
        ("/risk/check-and-reserve", &reserve, "reason", "💣", 1_000),
    ] {
        let with = |count: usize| {
            let mut body = valid.clone();
            body[field] = json!(unit.repeat(count));
            body
        };
        service.post(path, &with(most)).await.ok();
        let before = service.everything().await;
        let sentence = service.post(path, &with(most + 1)).await.invalid(field);
        assert!(sentence.contains("at most") && sentence.contains("shorten it"), "{path} {field}: {sentence}");
        assert_eq!(service.everything().await, before, "{path} {field}");
    }
}

#[tokio::test]
async fn objects_are_taken_up_to_16_kib_and_kept_as_written() {
    let service = Service::live().await;
    let object = |bytes: usize| format!("{{\"b\": 1.50, \"a\": \"{}\"}}", "x".repeat(bytes - 20));
    let most = object(16 * 1024);
    assert_eq!(most.len(), 16 * 1024);
    let reserve = |metadata: &str| {
        let body = format!(r#"{{"engine":"WHOLESALE","amount":1,"metadata":{metadata}}}"#);
        service.post_text("/risk/check-and-reserve", JSON, &body)
    };
    let recommend = |name: &str, object: &str| {
        let body = format!(r#"{{"domain":"BUYER_MATCH","confidence":0.5,"{name}":{object}}}"#);
        service.post_text("/heimdall/recommend", JSON, &body)
    };
    reserve(&most).await.ok();
    recommend("recommendation", &most).await.ok();
    recommend("evidence", &most).await.ok();
    let written = service.get("/risk/events").await;
    assert!(written.text.contains(&most), "the object is kept as written");
    let before = service.everything().await;
    let beyond = object(16 * 1024 + 1);
    reserve(&beyond).await.invalid("metadata");
    recommend("recommendation", &beyond).await.invalid("recommendation");
    recommend("evidence", &beyond).await.invalid("evidence");
    assert_eq!(service.everything().await, before);
}

#[tokio::test]
async fn the_largest_legitimate_request_fits() {
    let service = Service::live().await;
    let object = format!("{{\"a\":\"{}\"}}", "x".repeat(16 * 1024 - 8));
    let actor = "💣".repeat(200);
    let body = format!(
        r#"{{"domain":"{}","confidence":0.123456789012345678,"recommendation":{object},"evidence":{object},"actor":"{actor}","correlation_id":"{actor}"}}"#,
        "D".repeat(80)
    );
    service.post_text("/heimdall/recommend", JSON, &body).await.ok();
}

#[tokio::test]
async fn names_are_trimmed_and_in_one_case() {
    let service = Service::live().await;
    let policy = json!({"engine": " de-als_1.x ", "max_daily_loss": 1, "max_daily_exposure": 1, "max_open_risk": 1});
    assert_eq!(service.post("/risk/policies/upsert", &policy).await.ok()["engine"], "DE-ALS_1.X");
    let kpi = json!({"domain": "\tdeals ", "metric": " Close.Rate ", "success": "yes"});
    service.post("/regression/kpi", &kpi).await.ok();
    let listed = service.get("/regression/kpi").await.ok();
    assert_eq!((&listed["items"][0]["domain"], &listed["items"][0]["metric"]), (&json!("DEALS"), &json!("close.rate")));
    for engine in ["a b", "a/b", "é", "a\nb", "ſ", "a,b", "a:b", "*", "%"] {
        let mut policy = policy.clone();
        policy["engine"] = json!(engine);
        service.post("/risk/policies/upsert", &policy).await.invalid("engine");
    }
}

#[tokio::test]
async fn booleans_have_four_spellings_each_in_any_case() {
    let service = Service::live().await;
    for (spelling, enabled) in [
        ("true", true),
        ("TRUE", true),
        ("1", true),
        ("yes", true),
        ("On", true),
        ("false", false),
        ("0", false),
        ("No", false),
        ("off", false),
    ] {
        let policy = service
            .post_form("/risk/policies/upsert", &format!("engine=WHOLESALE&enabled={spelling}&reason=r"))
            .await
            .ok();
        assert_eq!(policy["enabled"], enabled, "{spelling}");
    }
    for spelling in ["2", "y", "t", "enabled", "-1", "1.0", "truefalse"] {
        service
            .post_form("/risk/policies/upsert", &format!("engine=WHOLESALE&enabled={spelling}"))
            .await
            .invalid("enabled");
    }
}

#[tokio::test]
async fn body_and_query_must_not_contradict_each_other() {
    let service = Service::live().await;
    let before = service.everything().await;
    let uri = format!("{BASE}/risk/check-and-reserve?amount=401");
    let body = r#"{"engine":"WHOLESALE","amount":400}"#;
    let refused = service.send(request(Method::POST, &uri, Some(JSON), body)).await.refused(400, "CONTRADICTORY_INPUT");
    assert_eq!(refused["errors"][0]["field"], "amount");
    assert_eq!(service.everything().await, before);
}
