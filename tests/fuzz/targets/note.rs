//! Signed notes: no text panics, nothing is believed that was not signed, and what is read is what was written.
//!
//! The input is a note, or a key.

#![no_main]

use holdfast::audit::checkpoint::{Checkpoint, believe};
use holdfast::audit::note::{Note, Signer, Verifier};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static SIGNER: LazyLock<Signer> = LazyLock::new(|| Signer::new("holdfast/fuzz", [7; 32]).expect("a name"));
static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| SIGNER.verifier());

fuzz_target!(|text: &str| {
    if let Ok(note) = Note::read(text) {
        // A signature of this key is in no corpus but for texts that it has signed.
        if let Ok(believed) = note.verify(&VERIFIER) {
            assert!(text.starts_with(believed), "the text is the beginning of the note");
            assert!(SIGNER.sign(believed).starts_with(believed));
        }
        assert!(note.names().count() > 0, "a note is signed by somebody");
    }
    if let Ok(checkpoint) = believe(text, &VERIFIER) {
        assert_eq!(Checkpoint::read(&checkpoint.text()).as_ref(), Some(&checkpoint));
    }
    if let Some(checkpoint) = Checkpoint::read(text) {
        assert_eq!(Checkpoint::read(&checkpoint.text()).as_ref(), Some(&checkpoint));
        let note = SIGNER.sign(&checkpoint.text());
        assert_eq!(believe(&note, &VERIFIER).as_ref(), Ok(&checkpoint));
    }
    if let Ok(verifier) = text.parse::<Verifier>() {
        assert_eq!(verifier.to_string().parse::<Verifier>().as_ref(), Ok(&verifier));
    }
    if let Ok(signer) = text.parse::<Signer>() {
        assert_eq!(signer.expose().parse::<Signer>().map(|again| again.verifier()), Ok(signer.verifier()));
    }
});
