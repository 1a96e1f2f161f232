//! This machine's notary, which signs checkpoints.

use super::output::Failure;
use crate::audit::checkpoint::Notary;
use crate::audit::note::Verifier;
use crate::config::{CheckpointConfig, DatabaseConfig};

/// Opens this machine's notary. A missing key is created.
pub(super) async fn notary(args: &CheckpointConfig, config: &DatabaseConfig) -> Result<Notary, Failure> {
    let (key, dir) = args.paths(config)?;
    let host = rustix::system::uname();
    let opened = Notary::open(&key, &host.nodename().to_string_lossy(), Some(dir)).await;
    opened.map_err(|error| format!("the key of checkpoints cannot be used: {}: {error}", key.display()).into())
}

/// Opens this machine's notary; none if it has no key.
pub(super) async fn existing_notary(args: &CheckpointConfig, config: &DatabaseConfig) -> Option<Notary> {
    let (key, dir) = args.paths(config).ok()?;
    Notary::existing(&key, Some(dir)).await.ok()
}

/// The keys that check signatures: the given ones, else this machine's.
pub(super) async fn verifiers(
    given: &[Verifier],
    own: &CheckpointConfig,
    config: &DatabaseConfig,
) -> Result<Vec<Verifier>, Failure> {
    if !given.is_empty() {
        return Ok(given.to_vec());
    }
    let notary = existing_notary(own, config).await;
    let notary = notary.ok_or(
        "this machine has no key of checkpoints: give the one that signed with --key, as printed by holdfast audit key there",
    )?;
    Ok(vec![notary.verifier()])
}
