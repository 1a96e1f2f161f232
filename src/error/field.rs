//! Which field of a request is wrong, and what stands in the way of a precondition.

use serde::Serialize;
use utoipa::ToSchema;

/// One field of the request that was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The field's name; empty where the whole body is meant.
    pub field: String,
    /// What is wrong with it and what to send instead.
    pub detail: String,
}

impl FieldError {
    /// An error of one field.
    #[must_use]
    pub fn new(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { field: field.into(), detail: detail.into() }
    }
}

/// What stands in the way of a precondition: a stable name and a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Blocker {
    /// Stable name of what blocks.
    pub id: String,
    /// What to do about it.
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
