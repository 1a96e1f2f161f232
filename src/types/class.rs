//! Execution classes: how much a request can do to the world.

use serde::{Deserialize, Serialize};

/// How far a request reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ExecutionClass {
    /// Reads.
    ObserveOnly,
    /// Acts inside the sandbox.
    SandboxExec,
    /// Acts on the world: money, messages, contracts. Also everything unknown.
    ProdExec,
}

impl ExecutionClass {
    /// The name in bodies, headers and configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ObserveOnly => "OBSERVE_ONLY",
            Self::SandboxExec => "SANDBOX_EXEC",
            Self::ProdExec => "PROD_EXEC",
        }
    }
}

/// The gate's view of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteClass {
    /// Never blocked by the switch: the control plane itself, which must answer to release it.
    Exempt,
    /// Blocked as the table in [`crate::enforcement::gate::decide`] says.
    Class(ExecutionClass),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_agree_with_the_serialised_form() {
        use ExecutionClass::{ObserveOnly, ProdExec, SandboxExec};
        for class in [ObserveOnly, SandboxExec, ProdExec] {
            let name = serde_json::to_value(class).expect("a string");
            assert_eq!(name, class.as_str());
        }
    }
}
