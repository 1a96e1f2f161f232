//! Input: the three encodings mean the same on every route, and nothing hostile passes through any of them.

mod encodings;
mod hostile;
mod limits;
mod posts;
mod reads;

use crate::support::{Answer, Service};
use posts::POSTS;
use std::fmt::Write;

const JSON: &str = "application/json";
const ENGAGE: &str = "/go-live/kill-switch/engage";
const DISABLE: &str = "/go-live/disable";

/// A POST route and an input that it takes. The values are JSON tokens, so that numbers keep their spelling.
struct Post {
    /// As the table of routes writes it, below the base path.
    template: &'static str,
    fields: &'static [(&'static str, &'static str)],
    /// A field that takes a number or a yes or no, if there is one.
    number: Option<&'static str>,
    /// Whether the route has a required field.
    needs_a_field: bool,
}

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

/// A service on which every route works.
async fn furnished() -> Service {
    let service = Service::fresh().await;
    for post in POSTS {
        let answer = Encoding::Json.send(&service, &post.path(), post.fields).await;
        assert!(answer.status.is_success(), "{}: {}", post.template, answer.text);
    }
    service
}
