//! Execution classes: the effect a request can have on the world.

use serde::{Deserialize, Serialize};

/// The reach of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ExecutionClass {
    /// Reads.
    ObserveOnly,
    /// Acts inside the sandbox.
    SandboxExec,
    /// Acts on the world: money, messages, contracts. Every unknown request counts as this.
    ProdExec,
}

impl ExecutionClass {
    /// The name in bodies, headers and configuration, for example `PROD_EXEC`.
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
    /// Never blocked by the switch: the control plane itself, which must answer so that somebody can release it.
    Exempt,
    /// Blocked by the table of [`crate::enforcement::gate::decide`].
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
