//! The wrong fields of a request, and the blockers of a precondition.

use serde::Serialize;
use utoipa::ToSchema;

/// A field of the request that was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The field's name; empty if the whole body is wrong.
    pub field: String,
    /// The problem with the field, and the value to send instead.
    pub detail: String,
}

impl FieldError {
    /// The refusal of one field; `detail` continues a sentence that begins with the field's name.
    #[must_use]
    pub fn new(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { field: field.into(), detail: detail.into() }
    }
}

/// A check that a precondition fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Blocker {
    /// Stable name of the check.
    pub id: String,
    /// The fix, in a sentence.
    pub detail: String,
}

pub(super) fn blockers_in_words(blockers: &[Blocker]) -> String {
    blockers.iter().map(|blocker| blocker.detail.as_str()).collect::<Vec<_>>().join("; ")
}

pub(super) fn fields_in_words(fields: &[FieldError]) -> String {
    fields
        .iter()
        .map(
            |error| {
                if error.field.is_empty() { error.detail.clone() } else { format!("{} {}", error.field, error.detail) }
            },
        )
        .collect::<Vec<_>>()
        .join("; ")
}
