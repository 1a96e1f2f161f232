//! The required components that are not installed. They fail the checklist, even while production is on.

use crate::enforcement::instance::Instances;
use crate::error::Result;
use crate::go_live::model::{LEVER_PACKS, Pack, PackStatus};
use sqlx::PgConnection;
use std::collections::BTreeSet;
use uuid::Uuid;

/// A required component that is not installed, and its last report.
#[derive(Debug)]
pub(super) struct Lacking {
    pub(super) id: String,
    pub(super) reported: Option<Pack>,
}

/// The components that the levers, a live instance or the answering one require and that are not installed, by id.
pub(super) async fn lacking(
    conn: &mut PgConnection,
    instances: &Instances,
    answering: Option<Uuid>,
) -> Result<Vec<Lacking>> {
    let mut required: BTreeSet<String> = LEVER_PACKS.iter().map(|id| (*id).to_owned()).collect();
    required.extend(instances.required_packs(answering));
    let mut packs = crate::go_live::store::read_packs(conn).await?;
    packs.retain(|pack| required.contains(&pack.id));
    for pack in packs.iter().filter(|pack| pack.status == PackStatus::Installed) {
        required.remove(&pack.id);
    }
    let reported = |id: &str| packs.iter().find(|pack| pack.id == id).cloned();
    Ok(required.into_iter().map(|id| Lacking { reported: reported(&id), id }).collect())
}
