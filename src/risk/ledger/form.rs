//! The form in which the writer stores outcomes.

use crate::risk::model::stored::Form;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// The form in use, and the look that chose it. Cheap to clone: all clones are one.
#[derive(Debug, Clone, Default)]
pub struct FormInUse(Arc<AtomicU8>);

/// The look after which outcomes are compact.
pub(in crate::risk) const COMPACT: u8 = 1;

impl FormInUse {
    /// The form that the last look chose; the long one before the first.
    #[must_use]
    pub fn now(&self) -> Form {
        if self.0.load(Ordering::Acquire) == COMPACT { Form::Compact } else { Form::Long }
    }

    /// Keeps the result of a look, and says whether it differs from the last one.
    pub(in crate::risk) fn keep(&self, look: u8) -> bool {
        self.0.swap(look, Ordering::AcqRel) != look
    }
}
