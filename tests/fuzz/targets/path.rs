//! The canonical path: whatever is accepted has one reading, also to a reader that decodes, climbs and drops.
//!
//! The input is a path.

#![no_main]

use axum::http::Method;
use holdfast::enforcement::Rules;
use holdfast::enforcement::path::canonical;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

/// The defaults, and rules of every shape that a file can have.
static RULES: LazyLock<[Rules; 2]> = LazyLock::new(|| {
    let file = r#"
        [[rule]]
        path = "/api/deals/{id}"
        method = "GET"
        class = "OBSERVE_ONLY"

        [[rule]]
        path = "/api/deals/{id}/notes/**"
        class = "SANDBOX_EXEC"

        [[rule]]
        path = "/reports/"
        class = "OBSERVE_ONLY"

        [[rule]]
        path = "/reports/x/{name}"
        class = "SANDBOX_EXEC"
    "#;
    [Rules::default(), Rules::with_file(file).expect("the rules are acceptable")]
});

/// A careless reader's reading of a path: decoded until nothing changes, a backslash as a slash, parameters, query and
/// fragment dropped, empty and dot segments resolved. None if it is not text.
fn careless(path: &str) -> Option<String> {
    let mut bytes = path.as_bytes().to_vec();
    loop {
        let decoded = decoded(&bytes);
        if decoded == bytes {
            break;
        }
        bytes = decoded;
    }
    let text = String::from_utf8(bytes).ok()?.replace('\\', "/");
    let text = text.split(['?', '#', '\0']).next().unwrap_or_default();
    let mut segments: Vec<&str> = Vec::new();
    for segment in text.split('/') {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    // The trailing slash stays: services route by it.
    let slash = if segments.is_empty() || !text.ends_with('/') { "" } else { "/" };
    Some(format!("/{}{slash}", segments.join("/")))
}

fn decoded(bytes: &[u8]) -> Vec<u8> {
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).expect("two digits"));
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

fuzz_target!(|path: &str| {
    let accepted = match canonical(path) {
        Ok(accepted) => accepted,
        Err(refused) => {
            assert!(refused.offset <= path.len(), "{refused} points past the end");
            return;
        }
    };
    assert_eq!(accepted, path, "an accepted path is never repaired");
    assert_eq!(canonical(accepted), Ok(accepted));
    assert!(accepted.starts_with('/'));
    for never in ["//", "/./", "/../", "\\", "\0", ";", "?", "#", " "] {
        assert!(!accepted.contains(never), "{never:?}");
    }
    assert!(!accepted.ends_with("/.") && !accepted.ends_with("/.."));
    assert!(accepted.bytes().all(|byte| byte.is_ascii_graphic()));
    for code in accepted.split('%').skip(1) {
        let byte = u8::from_str_radix(&code[..2], 16).expect("two digits follow every percent sign");
        let unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        assert!(!unreserved && !byte.is_ascii_control() && !b"/\\%;#?".contains(&byte), "%{byte:02x}");
    }
    let reading = careless(accepted);
    for rules in RULES.iter() {
        for method in [Method::GET, Method::HEAD, Method::POST] {
            let class = rules.classify(&method, accepted);
            assert_eq!(class, rules.classify(&method, canonical(accepted).expect("accepted")));
            if let Some(reading) = &reading {
                assert_eq!(class, rules.classify(&method, reading), "{method} as {reading:?}");
            }
        }
    }
});
