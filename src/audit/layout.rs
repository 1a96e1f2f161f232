//! The columns of each stream's table, in the order in which the chain covers them, for code that reads events back:
//! verification, export and erasure. Each lever's `model` appends them in the same order; golden vectors and tests
//! compare the two.

use super::Stream;

/// The form of a column in the hashed bytes ([`super::canonical`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A bigint.
    Integer,
    /// A timestamptz.
    Time,
    /// A text that is hashed as it is.
    Text,
    /// A text whose digest is hashed, so that it can be erased.
    Free,
    /// A boolean.
    Boolean,
    /// A numeric.
    Decimal,
    /// A uuid.
    Uuid,
    /// A date.
    Day,
}

/// A column of a stream's table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// The name in the table.
    pub name: &'static str,
    /// The form in the hashed bytes.
    pub kind: Kind,
}

const fn column(name: &'static str, kind: Kind) -> Column {
    Column { name, kind }
}

macro_rules! columns {
    ($($name:literal $kind:ident),* $(,)?) => {
        &[
            // Every stream begins with these columns.
            column("seq", Kind::Integer),
            column("at", Kind::Time),
            column("principal", Kind::Text),
            column("actor", Kind::Text),
            column("request_id", Kind::Text),
            column("correlation_id", Kind::Text),
            $(column($name, Kind::$kind)),*
        ]
    };
}

const CONTROL: &[Column] =
    columns!["action" Text, "subject" Text, "ok" Boolean, "error" Text, "reason" Free, "detail" Free];

const RISK: &[Column] = columns![
    "engine" Text, "action" Text, "ok" Boolean, "amount" Decimal, "denial" Text, "scope" Text, "reservation_id" Uuid,
    "day" Day, "exposure_delta" Decimal, "open_delta" Decimal, "loss_delta" Decimal, "actions_delta" Integer,
    "reason" Free, "metadata" Free, "detail" Free,
];

const HEIMDALL: &[Column] = columns![
    "domain" Text, "action" Text, "ok" Boolean, "confidence" Decimal, "success" Boolean, "recommendation_id" Integer,
    "gate_reason" Text, "model_version" Text, "reason" Free, "recommendation" Free, "evidence" Free, "detail" Free,
];

const KPI: &[Column] = columns![
    "domain" Text, "metric" Text, "series_seq" Integer, "success" Boolean, "value" Decimal, "series_sum" Decimal,
    "event_id" Text, "detail" Free,
];

impl Stream {
    /// The columns that the chain covers, in order; `hash` comes after them.
    #[must_use]
    pub const fn columns(self) -> &'static [Column] {
        match self {
            Self::Kpi => KPI,
            Self::Heimdall => HEIMDALL,
            Self::Risk => RISK,
            Self::Control => CONTROL,
        }
    }
}
