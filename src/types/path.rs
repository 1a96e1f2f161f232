//! Request paths, as errors and events repeat them.

use super::TOKEN_PREFIX;

/// Longest path that an error repeats, in bytes: long enough to recognise it, too short to amplify an attack.
const PATH_SHOWN_MAX: usize = 512;

/// The beginning of a path, without anything that could be a token's secret: a caller may have put one in place of its
/// id. Paths of known routes are ASCII; others are cut at a character.
#[must_use]
pub fn bounded(path: &str) -> &str {
    let mut end = path.len().min(PATH_SHOWN_MAX);
    if let Some(at) = path.find(TOKEN_PREFIX) {
        end = end.min(at + TOKEN_PREFIX.len());
    }
    while !path.is_char_boundary(end) {
        end -= 1;
    }
    &path[..end]
}
