//! The changes of an upsert, field by field, for its answer and for the trail.

use crate::db::to_json;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// A field that changed.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct FieldChange {
    /// The field's name in the request.
    pub field: &'static str,
    /// The value before; null if there was none.
    #[schema(value_type = Value)]
    pub from: Box<RawValue>,
    /// The value after the change.
    #[schema(value_type = Value)]
    pub to: Box<RawValue>,
}

/// The changed fields, in order. Empty if nothing changed.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[serde(transparent)]
pub struct Changes(pub Vec<FieldChange>);

impl Changes {
    /// Adds a field if its value changed. `from` is none if there was no value before.
    pub fn note<T: Serialize + PartialEq>(&mut self, field: &'static str, from: Option<&T>, to: &T) {
        if from != Some(to) {
            self.0.push(FieldChange { field, from: to_json(&from), to: to_json(to) });
        }
    }

    /// True if no field changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
