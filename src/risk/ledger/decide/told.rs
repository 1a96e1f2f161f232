//! The repeated outcomes in a batch's answers. Their size is limited for each request, because many operations may ask
//! for one large outcome.

use crate::db::{stored_json, to_json};
use crate::error::{Error, Result};
use crate::risk::operation::Submission;
use crate::types::RequestId;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use uuid::Uuid;

/// Largest outcome that a refusal repeats in full, in bytes.
const WHOLE_BYTES_MAX: usize = 4 * 1024;
/// Most bytes of repeated outcomes for one request; the first one may be larger.
const AGAIN_BYTES_MAX: usize = 1024 * 1024;
/// The member that makes an outcome large.
const LIST: &str = "reservations";

/// The outcomes repeated so far.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The repeated bytes, by request.
    again: Mutex<HashMap<Option<RequestId>, usize>>,
    /// Bytes of outcomes, by their event: each is measured once.
    sizes: Mutex<BTreeMap<i64, usize>>,
    /// The large outcomes, by their event.
    large: Mutex<BTreeMap<i64, Large>>,
}

#[derive(Debug)]
struct Large {
    /// The members without the list.
    members: BTreeMap<String, Box<RawValue>>,
    list: HashMap<Uuid, Box<RawValue>>,
}

/// The id of an element of the list.
#[derive(Deserialize)]
struct Named {
    reservation_id: Uuid,
}

impl Told {
    /// Counts the repeated outcome of an event, or refuses it.
    pub(super) fn again(&self, item: &Submission, seq: i64, bytes: impl FnOnce() -> Result<usize>) -> Result<()> {
        let bytes = match self.sizes.lock().unwrap_or_else(PoisonError::into_inner).entry(seq) {
            Entry::Occupied(measured) => *measured.get(),
            Entry::Vacant(unmeasured) => *unmeasured.insert(bytes()?),
        };
        let mut again = self.again.lock().unwrap_or_else(PoisonError::into_inner);
        let told = again.entry(item.origin.request_id.clone()).or_default();
        if *told > 0 && *told + bytes > AGAIN_BYTES_MAX {
            return Err(Error::AnswerTooLarge { bytes });
        }
        *told += bytes;
        Ok(())
    }

    /// The outcome that a refusal repeats; of a large one, which is read once, only the part about this reservation.
    pub(super) fn refusal<'t>(
        &self,
        seq: i64,
        outcome: impl FnOnce() -> Result<Cow<'t, str>>,
        id: Uuid,
    ) -> Result<Box<RawValue>> {
        let mut large = self.large.lock().unwrap_or_else(PoisonError::into_inner);
        let unreadable = |error| Error::Inconsistent(format!("the outcome of event {seq} cannot be read: {error}"));
        let large = match large.entry(seq) {
            Entry::Occupied(read) => read.into_mut(),
            Entry::Vacant(unread) => {
                let outcome = outcome()?;
                if outcome.len() <= WHOLE_BYTES_MAX {
                    return stored_json(outcome.into_owned());
                }
                unread.insert(Large::read(&outcome).map_err(unreadable)?)
            }
        };
        let own: Vec<_> = large.list.get(&id).into_iter().collect();
        let (own, count) = (to_json(&own), to_json(&large.list.len()));
        let beside = [(LIST, &own), ("reservations_count", &count)];
        let members = large.members.iter().map(|(name, value)| (name.as_str(), value)).chain(beside);
        Ok(to_json(&members.collect::<BTreeMap<_, _>>()))
    }
}

impl Large {
    fn read(detail: &str) -> serde_json::Result<Self> {
        let mut members: BTreeMap<String, Box<RawValue>> = serde_json::from_str(detail)?;
        let list = members.remove(LIST);
        let list: Vec<Box<RawValue>> =
            list.map(|list| serde_json::from_str(list.get())).transpose()?.unwrap_or_default();
        let named = |one: Box<RawValue>| Ok((serde_json::from_str::<Named>(one.get())?.reservation_id, one));
        let list = list.into_iter().map(named).collect::<serde_json::Result<_>>()?;
        Ok(Self { members, list })
    }
}
