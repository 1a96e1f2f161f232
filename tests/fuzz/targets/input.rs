//! The input reader: a request is a value or a refusal, the same for JSON, form and query, and a value that was read is read
//! again from whatever it is written as.
//!
//! The input is text in lines. The first line says what the rest is:
//! - `=`: fields, `name=value` a line, which are sent in every way there is and must mean the same;
//! - else a request: this line is the content type (`j` JSON, `f` form, empty none, or as it stands), the next the query, the
//!   next the header Idempotency-Key (empty for none), the rest the body.

#![no_main]

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::Method;
use axum::http::header::CONTENT_TYPE;
use axum::http::uri::PathAndQuery;
use holdfast::error::Error;
use holdfast::http::{BODY_BYTES_MAX, Change, Input, Lenient, Said};
use holdfast::identity::{Admitted, Authority};
use holdfast::types::{
    Actor, Amount, Confidence, CorrelationId, Count, Domain, Engine, Flag, IdempotencyKey, JsonObject, Measured,
    Metric, Principal, Reason, Ttl,
};
use libfuzzer_sys::fuzz_target;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashSet};
use std::sync::LazyLock;
use tokio::runtime::{Builder, Runtime};

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

/// A field of every kind that a request of the service has.
#[derive(Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Sample {
    engine: Engine,
    amount: Option<Amount>,
    value: Option<Measured>,
    count: Option<Count>,
    confidence: Option<Confidence>,
    ttl_seconds: Option<Ttl>,
    enabled: Option<Flag>,
    domain: Option<Domain>,
    metric: Option<Metric>,
    actor: Option<Actor>,
    reason: Option<Reason>,
    correlation_id: Option<CorrelationId>,
    reservation_id: Option<uuid::Uuid>,
    metadata: Option<JsonObject>,
    idempotency_key: Option<IdempotencyKey>,
}

impl Said for Sample {
    fn actor(&self) -> Option<Actor> {
        self.actor.clone()
    }

    fn correlation_id(&self) -> Option<CorrelationId> {
        self.correlation_id.clone()
    }
}

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));

/// The input.
#[derive(Clone, Default)]
struct Sent<'a> {
    content_type: Option<&'a [u8]>,
    query: &'a [u8],
    key: &'a [u8],
    body: Vec<u8>,
}

impl Sent<'_> {
    /// As a request; none where no server would hand it on.
    fn request(&self) -> Option<Request> {
        let target = [b"/x?", self.query].concat();
        let target = PathAndQuery::from_maybe_shared(target).ok()?;
        let mut request = Request::builder().method(Method::POST).uri(target);
        if let Some(content_type) = self.content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        if !self.key.is_empty() {
            request = request.header("idempotency-key", self.key);
        }
        // As the guard admits it.
        let admitted = Admitted { principal: Principal::unauthenticated(), authority: Some(Authority::Unlimited) };
        request.extension(admitted).body(Body::from(self.body.clone())).ok()
    }

    fn read(&self) -> Option<Result<Sample, Error>> {
        let request = self.request()?;
        Some(RUNTIME.block_on(Input::from_request(request, &())).map(|Input(sample)| sample))
    }

    fn read_change(&self) -> Option<Result<Change<Sample>, Error>> {
        let request = self.request()?;
        Some(RUNTIME.block_on(Change::from_request(request, &())))
    }

    /// Routes that always act are never refused, so only the accepted parts and the number of warnings are compared.
    fn read_leniently(&self) -> Option<(Option<Actor>, Option<Reason>, usize)> {
        let request = self.request()?;
        let mut lenient =
            RUNTIME.block_on(Lenient::from_request(request, &())).expect("a stop is never refused for its words");
        let (actor, reason) = (lenient.take("actor"), lenient.take("reason"));
        Some((actor, reason, lenient.finish(&["actor", "reason"]).len()))
    }
}

/// A value as fields: each name with the text and the JSON token of what it says.
fn fields_of(sample: &Sample) -> Vec<(String, String, String)> {
    let json = serde_json::to_string(sample).expect("a sample has a JSON form");
    let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(&json).expect("an object");
    let given = fields.into_iter().filter(|(_, value)| value.get() != "null");
    given
        .map(|(name, value)| {
            let text = serde_json::from_str::<String>(value.get()).unwrap_or_else(|_| value.get().to_owned());
            (name, text, value.get().to_owned())
        })
        .collect()
}

fn as_json<'a>(fields: impl IntoIterator<Item = (&'a str, String)>) -> Vec<u8> {
    let members: Vec<_> = fields.into_iter().map(|(name, token)| format!("{}:{token}", quoted(name))).collect();
    format!("{{{}}}", members.join(",")).into_bytes()
}

fn as_pairs<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let encoded = |text: &str| -> String {
        let escape = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => char::from(byte).to_string(),
            b' ' => "+".to_owned(),
            byte => format!("%{byte:02x}"),
        };
        text.bytes().map(escape).collect()
    };
    let pairs: Vec<_> =
        fields.into_iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    pairs.join("&").into_bytes()
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string has a JSON form")
}

/// A refusal without what may depend on how it was sent: the code and, where fields were refused, which and why.
fn refusal(error: &Error) -> (&'static str, Vec<(String, String)>) {
    let fields = match error {
        Error::Invalid(errors) => errors.iter().map(|error| (error.field.clone(), error.detail.clone())).collect(),
        // The place of the second value differs.
        Error::Contradictory(_, error) => vec![(error.field.clone(), String::new())],
        Error::Malformed(_) | Error::UnsupportedMediaType(_) | Error::BodyTooLarge { .. } => Vec::new(),
        other => panic!("the reader refuses input, and nothing else: {other:?}"),
    };
    (error.row().code, fields)
}

/// A value reads as itself from JSON, form and query, and asks for the same.
fn check_round_trip(sample: &Sample) {
    let fields = fields_of(sample);
    let json = as_json(fields.iter().map(|(name, _, token)| (name.as_str(), token.clone())));
    let pairs = as_pairs(fields.iter().map(|(name, text, _)| (name.as_str(), text.as_str())));
    let ways = [
        Sent { content_type: Some(JSON.as_bytes()), body: json.clone(), ..Sent::default() },
        Sent { content_type: Some(FORM.as_bytes()), body: json, ..Sent::default() },
        Sent { content_type: Some(FORM.as_bytes()), body: pairs.clone(), ..Sent::default() },
        Sent { query: &pairs, ..Sent::default() },
    ];
    for sent in ways.iter().filter(|sent| sent.body.len() <= BODY_BYTES_MAX) {
        // A query can be too long for an address.
        let Some(read) = sent.read() else { continue };
        assert_eq!(&read.expect("what was read is accepted"), sample);
        let keyed = sent.read_change().expect("it was a request").expect("what was read is accepted");
        assert_eq!(keyed.input, *sample);
        let wanted = sample.idempotency_key.as_ref().map(ToString::to_string);
        assert_eq!(keyed.asked.intent.map(|intent| intent.key), wanted);
    }
}

/// A request as it stands.
fn check_request(sent: &Sent<'_>) {
    let Some(read) = sent.read() else { return };
    let keyed = sent.read_change().expect("it was a request");
    sent.read_leniently().expect("it was a request");
    match (&read, keyed) {
        (Ok(sample), Ok(keyed)) => {
            assert_eq!(keyed.input, *sample);
            check_round_trip(sample);
            // The meaning does not depend on the spelling.
            if let Some(intent) = keyed.asked.intent {
                let fields = fields_of(sample);
                let body = as_json(fields.iter().map(|(name, text, _)| (name.as_str(), quoted(text))));
                let again = Sent { content_type: Some(JSON.as_bytes()), key: sent.key, body, ..Sent::default() };
                if again.body.len() <= BODY_BYTES_MAX {
                    let again = again.read_change().expect("a request").expect("what was read is accepted");
                    let again = again.asked.intent.expect("it has the same key");
                    assert_eq!((again.key, again.fields), (intent.key, intent.fields));
                }
            }
        }
        (Err(error), Err(keyed)) => assert_eq!(refusal(error), refusal(&keyed)),
        // The key alone is not acceptable.
        (Ok(_), Err(error)) => assert_eq!(refusal(&error).1[0].0, "idempotency_key"),
        (Err(error), Ok(_)) => panic!("accepted only with a key: {error}"),
    }
}

/// The same fields in every way they can be sent.
fn check_ways(fields: &[(&str, &str)]) {
    let strings = as_json(fields.iter().map(|(name, text)| (*name, quoted(text))));
    let pairs = as_pairs(fields.iter().copied());
    if strings.len().max(pairs.len()) > BODY_BYTES_MAX {
        return;
    }
    let json = Sent { content_type: Some(JSON.as_bytes()), body: strings, ..Sent::default() };
    let expected = json.read().expect("a request");
    if let Ok(sample) = &expected {
        check_round_trip(sample);
    }
    let leniently = json.read_leniently().expect("a request");

    let half = fields.len() / 2;
    let (first, second) = (as_pairs(fields[..half].iter().copied()), as_pairs(fields[half..].iter().copied()));
    let first_json = as_json(fields[..half].iter().map(|(name, text)| (*name, quoted(text))));
    let form = Sent { content_type: Some(FORM.as_bytes()), body: pairs.clone(), ..Sent::default() };
    let query = Sent { query: &pairs, ..Sent::default() };
    let mut ways = vec![form, query];
    // In two places, a field may be given twice.
    let names: HashSet<&str> =
        fields.iter().map(|(name, _)| if *name == "changed_by" { "actor" } else { *name }).collect();
    if names.len() == fields.len() && fields.len() <= 64 {
        ways.push(Sent { content_type: Some(FORM.as_bytes()), body: first, query: &second, ..Sent::default() });
        ways.push(Sent { content_type: Some(JSON.as_bytes()), body: first_json, query: &second, ..Sent::default() });
    }
    for sent in ways {
        let Some(read) = sent.read() else { continue };
        match (&expected, read) {
            (Ok(expected), Ok(read)) => assert_eq!(*expected, read),
            (Err(expected), Err(read)) => assert_eq!(refusal(expected), refusal(&read)),
            (expected, read) => panic!("{expected:?} as JSON, {read:?} as {:?}", String::from_utf8_lossy(&sent.body)),
        }
        assert_eq!(sent.read_leniently().expect("a request"), leniently);
    }

    // Numbers, booleans and objects as what they are in JSON, where the string is one of those.
    let bare = |text: &str| {
        let token: Option<&RawValue> = serde_json::from_str(text).ok();
        // Null leaves a field out, a string in a string is another string, and white space around a token is lost.
        let token = token.map(RawValue::get).filter(|token| token.len() == text.len());
        let token = token.filter(|token| *token != "null" && !token.starts_with(['"', '[']));
        token.map_or_else(|| quoted(text), str::to_owned)
    };
    let body = as_json(fields.iter().map(|(name, text)| (*name, bare(text))));
    let sent = Sent { content_type: Some(JSON.as_bytes()), body, ..Sent::default() };
    let read = sent.read().expect("a request");
    match (&expected, read) {
        (Ok(expected), Ok(read)) => assert_eq!(*expected, read),
        (Err(_), Err(_)) => {}
        // Objects are no text, and ids no numbers.
        (Ok(_), Err(Error::Invalid(errors))) => {
            let field = errors[0].field.as_str();
            let text = fields.iter().find(|(name, _)| *name == field || (*name == "changed_by" && field == "actor"));
            let (_, text) = text.expect("a field that was sent");
            assert!(text.trim_start().starts_with('{') || field == "reservation_id", "{errors:?}");
        }
        (expected, read) => panic!("{expected:?} as strings, {read:?} as tokens"),
    }
}

fuzz_target!(|data: &[u8]| {
    let mut lines = data.splitn(4, |byte| *byte == b'\n');
    let mut next = || lines.next().unwrap_or_default();
    let first = next();
    if first == b"=" {
        let Ok(text) = std::str::from_utf8(&data[2.min(data.len())..]) else { return };
        let fields: Vec<_> = text.lines().filter_map(|line| line.split_once('=')).collect();
        return check_ways(&fields);
    }
    let content_type = match first {
        b"j" => Some(JSON.as_bytes()),
        b"f" => Some(FORM.as_bytes()),
        b"" => None,
        other => Some(other),
    };
    let (query, key) = (next(), next());
    check_request(&Sent { content_type, query, key, body: next().to_vec() });
});
