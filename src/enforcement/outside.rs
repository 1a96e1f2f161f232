//! The facts behind forward-auth and flags.

use super::feed::Feed;
use super::gate::EnforcementScope;
use super::rules::Rules;
use std::sync::Arc;

/// The facts by which this instance answers proxies and services outside Holdfast.
#[derive(Debug, Clone)]
pub struct Outside {
    /// The state as this instance knows it.
    pub feed: Feed,
    /// The class of each method and path.
    pub rules: Arc<Rules>,
    /// The classes that are blocked while go-live is off, even where this instance's gate is off.
    pub scope: EnforcementScope,
}
