//! Routes that somebody may have meant who asked for one that is not there. Of the caller's path nothing is repeated, and only so much
//! of it is looked at.

use super::routes::{ROUTES, Route};
use crate::http::BASE_PATH;
use std::cmp::Reverse;

/// The cost of making one path another, and the names that are in both: of two at the same distance the one with more is nearer.
type Distance = (usize, Reverse<usize>);

/// Segments of a path that are looked at; the longest route has fewer.
const SEGMENTS_MAX: usize = 8;
/// Bytes of a segment that are compared letter by letter.
const SEGMENT_MAX: usize = 32;
/// Routes that are named at most.
const NAMED_MAX: usize = 3;
/// A segment that is missing, too much, or another one.
const OTHER: usize = 2;
/// The furthest that is near: a segment more or less, and a misspelt one.
const FAR: usize = OTHER + 1;

/// The hint about a path that its address does not serve; none where nothing is near.
#[must_use]
pub fn missing(path: &str) -> Option<String> {
    if ROUTES.iter().any(|route| route.template == path) {
        let told =
            "this address does not serve that route: METRICS_ADDR has /metrics and the probes alone; ask BIND_ADDR";
        return Some(told.to_owned());
    }
    near(path).map(|routes| format!("there is no such route; the nearest: {routes}; see /docs/ for all of them"))
}

/// The nearest routes with their methods, as a sentence says them; none where nothing is near.
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

/// The segments below the base path, which is often left out; none where there are too many.
fn segments(path: &str) -> Option<Vec<&str>> {
    let path = path.strip_prefix(BASE_PATH).unwrap_or(path);
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).take(SEGMENTS_MAX + 1).collect();
    (segments.len() <= SEGMENTS_MAX).then_some(segments)
}

/// How far a path is from a route; none where it is far, or no name is in both.
fn distance(asked: &[&str], template: &[&str]) -> Option<Distance> {
    if asked.len().abs_diff(template.len()) > 1 {
        return None;
    }
    // Each place has the distance to the route's beginnings, and the names in common on the way there.
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

/// The cost of reading one segment as another, and whether the name is in both.
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
            ("/api/governance/risk/ledger", "GET /api/governance/risk/ledger/today"),
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
