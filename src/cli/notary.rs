//! This machine's notary, which signs checkpoints.

use super::output::Failure;
use crate::audit::checkpoint::Notary;
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
