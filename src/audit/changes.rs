//! The changes of an upsert, field by field, for its answer and for the trail.

use crate::db::to_json;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// One field that a change moved.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct FieldChange {
    /// The field.
    pub field: &'static str,
    /// The value before; null where there was none.
    #[schema(value_type = Value)]
    pub from: Box<RawValue>,
    /// The value after.
    #[schema(value_type = Value)]
    pub to: Box<RawValue>,
}

/// The fields that a change moved, in order. Empty means that nothing changed.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[serde(transparent)]
pub struct Changes(pub Vec<FieldChange>);

impl Changes {
    /// Notes a field if it moved. `from` is none where there was nothing before.
    pub fn note<T: Serialize + PartialEq>(&mut self, field: &'static str, from: Option<&T>, to: &T) {
        if from != Some(to) {
            self.0.push(FieldChange { field, from: to_json(&from), to: to_json(to) });
        }
    }

    /// Whether nothing moved.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
