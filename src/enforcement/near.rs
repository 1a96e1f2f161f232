//! Suggests routes for a path that does not exist. The hint never repeats the caller's path, and only a bounded part of
//! the path is compared.

use super::routes::{ROUTES, Route};
use crate::http::BASE_PATH;
use std::cmp::Reverse;

/// The cost of turning one path into another, and the number of common names. At equal cost, more common names are
/// nearer.
type Distance = (usize, Reverse<usize>);

/// The most segments of a path that are compared; the longest route has fewer.
const SEGMENTS_MAX: usize = 8;
/// The bytes of a segment that are compared letter by letter.
const SEGMENT_MAX: usize = 32;
/// The most routes in a hint.
const NAMED_MAX: usize = 3;
/// The cost of a segment that is missing, extra or different.
const OTHER: usize = 2;
/// The largest cost that counts as near: one segment more or less, and one misspelt.
const FAR: usize = OTHER + 1;

/// The hint about a path that this address does not serve; none if no route is near.
#[must_use]
pub fn missing(path: &str) -> Option<String> {
    if ROUTES.iter().any(|route| route.template == path) {
        let told =
            "this address does not serve that route: METRICS_ADDR serves only /metrics and the probes; use BIND_ADDR";
        return Some(told.to_owned());
    }
    near(path).map(|routes| format!("there is no such route; the nearest: {routes}; see /docs/ for all of them"))
}

/// The nearest routes with their methods, as a text; none if no route is near.
fn near(path: &str) -> Option<String> {
    let asked = segments(path)?;
    let mut found: Vec<(Distance, &Route)> =
        ROUTES.iter().filter_map(|row| Some((distance(&asked, &segments(row.template)?)?, row))).collect();
    let nearest = found.iter().map(|(distance, _)| *distance).min()?;
    found.retain(|(distance, row)| *distance == nearest && row.method.is_some());
    let named =
        found.iter().take(NAMED_MAX).filter_map(|(_, row)| Some(format!("{} {}", row.method.as_ref()?, row.template)));
    let named = named.collect::<Vec<_>>().join(", ");
    (!named.is_empty()).then_some(named)
}

/// The segments after the base path, which clients often leave out; none if there are too many.
fn segments(path: &str) -> Option<Vec<&str>> {
    let path = path.strip_prefix(BASE_PATH).unwrap_or(path);
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).take(SEGMENTS_MAX + 1).collect();
    (segments.len() <= SEGMENTS_MAX).then_some(segments)
}

/// The distance of a path from a route; none if it is far, or no name is common.
fn distance(asked: &[&str], template: &[&str]) -> Option<Distance> {
    if asked.len().abs_diff(template.len()) > 1 {
        return None;
    }
    // Each place holds the distance to the route's beginnings, and the common names on the way.
    let mut row: Vec<Distance> = (0..=template.len()).map(|at| (at * OTHER, Reverse(0))).collect();
    for (above, segment) in asked.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = ((above + 1) * OTHER, Reverse(0));
        for (at, wanted) in template.iter().enumerate() {
            let (cost, names) = step(segment, wanted);
            let stepped = (diagonal.0 + cost, Reverse(diagonal.1.0 + names));
            let without = (row[at].0 + OTHER, row[at].1);
            let above = row[at + 1];
            row[at + 1] = stepped.min(without).min((above.0 + OTHER, above.1));
            diagonal = above;
        }
    }
    row.pop().filter(|(far, names)| *far <= FAR && names.0 > 0)
}

/// The cost of reading one segment as another, and the number of common names.
fn step(segment: &str, wanted: &str) -> (usize, usize) {
    if wanted.starts_with('{') {
        (0, 0)
    } else if segment == wanted {
        (0, 1)
    } else if is_misspelt(segment.as_bytes(), wanted.as_bytes()) {
        (1, 1)
    } else {
        (OTHER, 0)
    }
}

/// Whether two names differ in one or two letters, and less than half; case, `_` and `-` do not count.
fn is_misspelt(segment: &[u8], wanted: &[u8]) -> bool {
    let most = 2.min(wanted.len() / 3);
    if segment.len() > SEGMENT_MAX || segment.len().abs_diff(wanted.len()) > most {
        return false;
    }
    let letter = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    let mut row: Vec<usize> = (0..=wanted.len()).collect();
    for (above, byte) in segment.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for (at, other) in wanted.iter().enumerate() {
            let changed = diagonal + usize::from(letter(*byte) != letter(*other));
            diagonal = row[at + 1];
            row[at + 1] = changed.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row.last().is_some_and(|letters| *letters <= most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_nearly_is_a_route_is_told_that_route_and_its_method() {
        for (path, route) in [
            ("/api/governance/go-live/state/", "GET /api/governance/go-live/state"),
            ("/api/governance/golive/state", "GET /api/governance/go-live/state"),
            ("/go-live/state", "GET /api/governance/go-live/state"),
            ("/api/governance/risk/check_and_reserve", "POST /api/governance/risk/check-and-reserve"),
            ("/api/governance/ledger/today", "GET /api/governance/risk/ledger/today"),
            ("/api/governance/kill-switch/engage", "POST /api/governance/go-live/kill-switch/engage"),
            ("/api/governance/risk/reservations/7/setle", "POST /api/governance/risk/reservations/{id}/settle"),
            ("/Health", "GET /health"),
        ] {
            assert_eq!(near(path).as_deref(), Some(route), "{path}");
        }
    }

    #[test]
    fn a_path_that_is_near_nothing_is_told_nothing_however_long_it_is() {
        let long = format!("/api/governance/{}", "risk/".repeat(10_000));
        let wide = format!("/api/governance/{}", "r".repeat(60_000));
        for path in ["/", "/nope", "/api/governance/nope", "/api/deals", "/api/governance", "/a/b/c/d/e", &long, &wide]
        {
            assert_eq!(near(path), None, "{path:.40}");
        }
    }

    #[test]
    fn at_most_three_routes_are_named() {
        let named = near("/api/governance/risk").expect("something is near");
        assert_eq!(named.split(", ").count(), NAMED_MAX, "{named}");
    }
}
