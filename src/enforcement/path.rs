//! The canonical path: the one spelling of a path that the gate, the router and every handler read alike.
//!
//! A gate that matches `/health/../api/deals` while the service behind it serves `/api/deals` has a hole. Most bypasses
//! of path rules are such disagreements (CVE-2019-9901, CVE-2021-29492, CVE-2025-66490), so a path that two readers
//! could read differently is refused. It is never repaired: a repaired path is a second spelling that another reader
//! may miss.
//!
//! An accepted path guarantees:
//! - it starts with `/` and holds printable ASCII only, without `\`, `;`, `#`, `?` and space;
//! - no segment is `.` or `..`, and none is empty but the last (one trailing slash stays and matches literally);
//! - every `%` starts a whole encoding, of a byte that neither separates, ends, traverses nor hides anything when
//!   decoded.
//!
//! The result is the path itself, borrowed: one scan over the bytes, no allocation. Case is kept, because routers keep
//! it.
//! The encodings that remain (spaces, UTF-8) have one spelling but for the case of its digits. A service that compares
//! names without regard to case treats more paths as equal than the rules do: write its rules with `/**` at the first
//! name.

/// The refusal of a path that could be read in more than one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path has {reason} at byte {offset}: {fix}")]
pub struct AmbiguousPath {
    /// The fault, as a noun phrase ("an encoded slash (%2f)"). It never contains text of the caller, so it is safe to
    /// show and to log.
    pub reason: &'static str,
    /// The fix, as an imperative.
    pub fix: &'static str,
    /// The place of the fault, in bytes from the start of the path.
    pub offset: usize,
}

/// Accepts `path` unchanged, or returns its fault. The path comes without query and fragment.
pub fn canonical(path: &str) -> Result<&str, AmbiguousPath> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        // `OPTIONS *`, the authority form of CONNECT (whose path is empty) and an HTTP/2 `:path` without its slash.
        return Err(refusal(0, "no leading slash", "send a path that starts with /"));
    }
    let mut segment_start = 1;
    let mut at = 1;
    while at < bytes.len() {
        let width = match bytes[at] {
            b'/' => {
                check_segment(bytes, segment_start, at)?;
                segment_start = at + 1;
                1
            }
            b'%' => check_encoding(bytes, at)?,
            b'!'..=b'~' if !matches!(bytes[at], b'\\' | b';' | b'#' | b'?') => 1,
            byte => return Err(forbidden_byte(byte, at)),
        };
        at += width;
    }
    // Only the last segment may be empty: that is the one trailing slash.
    if segment_start < bytes.len() {
        check_segment(bytes, segment_start, bytes.len())?;
    }
    Ok(path)
}

/// Refuses the segments that a lenient reader would drop or climb with.
fn check_segment(bytes: &[u8], start: usize, end: usize) -> Result<(), AmbiguousPath> {
    match &bytes[start..end] {
        b"" => Err(refusal(start, "an empty segment (//)", "send one slash")),
        b"." | b".." => Err(refusal(start, "a dot segment", "send the path it leads to")),
        _ => Ok(()),
    }
}

/// Refuses an encoding that is broken or decodes to a byte that a path cannot carry safely. Returns its width.
fn check_encoding(bytes: &[u8], at: usize) -> Result<usize, AmbiguousPath> {
    let digit = |index: usize| bytes.get(index).and_then(|byte| hex_value(*byte));
    let (Some(high), Some(low)) = (digit(at + 1), digit(at + 2)) else {
        return Err(refusal(at, "a broken percent-encoding", "follow every % with two hexadecimal digits"));
    };
    let reason = match high << 4 | low {
        b'/' => "an encoded slash (%2f)",
        b'\\' => "an encoded backslash (%5c)",
        b'%' => "an encoded percent sign (%25)",
        b'.' => "an encoded dot (%2e)",
        b';' => "an encoded semicolon (%3b)",
        b'#' => "an encoded number sign (%23)",
        b'?' => "an encoded question mark (%3f)",
        0x00..=0x1f | 0x7f => "an encoded control character",
        // RFC 3986 treats it as equal to the character itself, but a rule would treat it as different.
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => "an encoded letter, digit, - , _ or ~",
        // Never part of UTF-8; lenient decoders read the overlong %c0%af as a slash.
        0xc0 | 0xc1 | 0xf5..=0xff => "an encoded byte that UTF-8 never uses",
        _ => return Ok(3),
    };
    Err(refusal(at, reason, "write the character itself if you mean it, else leave it out"))
}

/// The refusal of a byte that a path may not contain.
fn forbidden_byte(byte: u8, at: usize) -> AmbiguousPath {
    let (reason, fix) = match byte {
        b'\\' => ("a backslash", "separate segments with /"),
        b';' => ("a semicolon", "send parameters in the query"),
        b'#' => ("a number sign", "leave the fragment out"),
        b'?' => ("a question mark", "send the query apart from the path"),
        b' ' => ("a space", "encode it as %20"),
        0x80.. => ("a byte outside ASCII", "percent-encode it"),
        _ => ("a control character", "leave it out"),
    };
    refusal(at, reason, fix)
}

/// The value of a hexadecimal digit in either case.
fn hex_value(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Refusals are rare, so they are kept out of the scan.
#[cold]
fn refusal(offset: usize, reason: &'static str, fix: &'static str) -> AmbiguousPath {
    AmbiguousPath { reason, fix, offset }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The place where `path` is refused.
    fn offset(path: &str) -> Option<usize> {
        canonical(path).err().map(|refused| refused.offset)
    }

    #[test]
    fn plain_paths_pass_unchanged_and_borrowed() {
        for path in [
            "/",
            "/health",
            "/docs/",
            "/api/deals/",
            "/API/Deals",
            "/api/governance/risk/reservations/0192f0c1-7f3e-7d3c-8a52-1f0c2b3a4d5e",
            "/a.b/..c/d../...",
            "/~x/@y:z/(1,2)*+!$&'=",
            "/caf%C3%A9/a%20b",
        ] {
            let accepted = canonical(path).expect(path);
            assert!(std::ptr::eq(accepted, path), "{path}");
        }
    }

    #[test]
    fn suspicious_encodings_are_refused_in_either_case() {
        for code in [
            "00", "09", "0a", "0d", "1f", "7f", "2f", "5c", "25", "2e", "3b", "23", "3f", "c0", "c1", "f5", "ff", "64",
            "41", "30", "2d", "5f", "7e",
        ] {
            for code in [code.to_lowercase(), code.to_uppercase()] {
                for path in [format!("/api%{code}"), format!("/api%{code}x/deals")] {
                    assert_eq!(offset(&path), Some(4), "{path}");
                }
            }
        }
    }

    #[test]
    fn broken_encodings_are_refused_where_they_begin() {
        for path in ["/ab%", "/ab%4", "/ab%zz", "/ab%4g", "/ab%g4", "/ab%/4", "/ab%%41", "/ab%u0041", "/ab%é", "/ab%+1"]
        {
            assert_eq!(offset(path), Some(3), "{path}");
        }
    }

    #[test]
    fn bytes_outside_a_path_are_refused_where_they_stand() {
        for byte in (0..=0x20).chain([0x7f]).map(char::from).chain(['\\', ';', '#', '?', '\u{80}', 'é', '／']) {
            assert_eq!(offset(&format!("/ab{byte}c")), Some(3), "{byte:?}");
        }
    }

    #[test]
    fn empty_and_dot_segments_are_refused_but_one_trailing_slash_is_kept() {
        for (path, at) in [("//", 1), ("//a", 1), ("/a//b", 3), ("/a//", 3), ("/.", 1), ("/./a", 1), ("/..", 1)] {
            assert_eq!(offset(path), Some(at), "{path}");
        }
        for (path, at) in [("/../a", 1), ("/a/.", 3), ("/a/..", 3), ("/a/../b", 3), ("/a/./", 3)] {
            assert_eq!(offset(path), Some(at), "{path}");
        }
        assert_eq!(canonical("/a/b/"), Ok("/a/b/"));
    }

    #[test]
    fn a_path_without_a_leading_slash_is_refused() {
        for path in ["", "*", "api/deals", "example.com:443", "%2fapi", "?x"] {
            assert_eq!(offset(path), Some(0), "{path}");
        }
    }

    #[test]
    fn a_refusal_says_what_where_and_the_fix() {
        let refused = canonical("/docs/..%2fapi").expect_err("refused");
        assert_eq!(
            refused.to_string(),
            "the path has an encoded slash (%2f) at byte 8: write the character itself if you mean it, else leave it out"
        );
    }

    /// Any text, and texts made of the pieces of known path tricks.
    fn any_path() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "/", "/", "/", ".", "..", "%", "%2e", "%2F", "%61", "%c3%a9", "%7", "\\", ";", "#", "?", " ", "a", "api",
            "é", "\0",
        ]);
        prop_oneof![
            any::<String>(),
            any::<String>().prop_map(|text| format!("/{text}")),
            prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat())),
        ]
    }

    proptest! {
        #[test]
        fn every_accepted_path_has_one_reading(path in any_path()) {
            let Ok(accepted) = canonical(&path) else { return Ok(()) };
            prop_assert_eq!(accepted, path.as_str());
            prop_assert!(accepted.bytes().all(|byte| byte.is_ascii_graphic() && !b"\\;#?".contains(&byte)));
            let rest = accepted.strip_prefix('/').expect("a leading slash");
            let rest = rest.strip_suffix('/').unwrap_or(rest);
            if !rest.is_empty() {
                prop_assert!(rest.split('/').all(|segment| !["", ".", ".."].contains(&segment)));
            }
            for code in accepted.split('%').skip(1) {
                let byte = u8::from_str_radix(&code[..2], 16).expect("two digits");
                prop_assert!(!byte.is_ascii_control() && !byte.is_ascii_alphanumeric() && !b"/\\%.;#?-_~".contains(&byte));
            }
        }

        #[test]
        fn every_refusal_points_into_the_path(path in any_path()) {
            if let Err(refused) = canonical(&path) {
                prop_assert!(refused.offset <= path.len());
            }
        }
    }
}
