//! Signed notes, as C2SP defines them (c2sp.org/signed-note): a text, an empty line, and one line per signature.
//!
//! ```text
//! — <key name> base64(key id ‖ Ed25519 signature of the text)
//! key id = SHA-256(key name ‖ 0x0A ‖ 0x01 ‖ public key)[..4]
//! ```
//! Keys are written as the format's own tools write them: `<name>+<key id>+base64(0x01 ‖ public key)` to verify, and
//! `PRIVATE+KEY+<name>+<key id>+base64(0x01 ‖ seed)` to sign.

use crate::types::hex;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

const ALGORITHM: u8 = 1;
/// The beginning of a signature's line: an em dash.
const DASH: &str = "\u{2014} ";
/// Longest note that is read, in bytes; and the most signatures of one.
const NOTE_MAX: usize = 64 * 1024;
const SIGNATURES_MAX: usize = 16;
const PRIVATE: &str = "PRIVATE+KEY+";

/// The reason why a note or a key is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// The text has not the form of a note.
    #[error("it is not a signed note: a text, an empty line, and lines that begin with an em dash")]
    Form,
    /// The text has not the form of a key.
    #[error("it is not a key of signed notes: name+hash+base64")]
    Key,
    /// No signature of the note is by this key.
    #[error("it is not signed by this key")]
    Unsigned,
    /// The note has a signature by this key, of another text.
    #[error("its signature belongs to another text: the note was changed")]
    Forged,
}

/// True for a valid key name: no white space, no plus sign.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 200
        && !name.contains('+')
        && !name.chars().any(|c| c.is_whitespace() || c.is_control())
}

fn key_id(name: &str, public: &VerifyingKey) -> [u8; 4] {
    let mut hasher = Sha256::new();
    hasher.update(name.as_bytes());
    hasher.update([b'\n', ALGORITHM]);
    hasher.update(public.as_bytes());
    let digest = hasher.finalize();
    [digest[0], digest[1], digest[2], digest[3]]
}

/// The name, the key id and the 32 bytes of a written key.
fn key_parts(text: &str) -> Option<(&str, &str, [u8; 32])> {
    let (name, rest) = text.trim().split_once('+')?;
    let (id, key) = rest.split_once('+')?;
    let key = BASE64.decode(key).ok()?;
    let (algorithm, key) = key.split_first()?;
    (is_name(name) && *algorithm == ALGORITHM).then_some(())?;
    Some((name, id, key.try_into().ok()?))
}

/// A verifier of signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verifier {
    name: String,
    key: VerifyingKey,
}

impl Verifier {
    /// The name of the key.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key: Vec<u8> = std::iter::once(ALGORITHM).chain(*self.key.as_bytes()).collect();
        write!(f, "{}+{}+{}", self.name, hex(&key_id(&self.name, &self.key)), BASE64.encode(key))
    }
}

impl FromStr for Verifier {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let (name, id, key) = key_parts(text).ok_or(NoteError::Key)?;
        let key = VerifyingKey::from_bytes(&key).map_err(|_| NoteError::Key)?;
        if id.eq_ignore_ascii_case(&hex(&key_id(name, &key))) {
            Ok(Self { name: name.to_owned(), key })
        } else {
            Err(NoteError::Key)
        }
    }
}

/// A signer. Its `Debug` shows only its name.
pub struct Signer {
    name: String,
    key: SigningKey,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Signer {
    /// The signer with this name and seed; none if the name is not a key's name.
    #[must_use]
    pub fn new(name: &str, seed: [u8; 32]) -> Option<Self> {
        is_name(name).then(|| Self { name: name.to_owned(), key: SigningKey::from_bytes(&seed) })
    }

    /// The verifier of its signatures.
    #[must_use]
    pub fn verifier(&self) -> Verifier {
        Verifier { name: self.name.clone(), key: self.key.verifying_key() }
    }

    /// The private key as text, for its file.
    #[must_use]
    pub fn expose(&self) -> String {
        let key: Vec<u8> = std::iter::once(ALGORITHM).chain(self.key.to_bytes()).collect();
        let id = hex(&key_id(&self.name, &self.key.verifying_key()));
        format!("{PRIVATE}{}+{id}+{}", self.name, BASE64.encode(key))
    }

    /// A signed note of this text, which must end with a line feed.
    #[must_use]
    pub fn sign(&self, text: &str) -> String {
        debug_assert!(text.ends_with('\n') && !text.contains("\n\n"), "a note's text is lines");
        let signature = self.key.sign(text.as_bytes()).to_bytes();
        let id = key_id(&self.name, &self.key.verifying_key());
        let signature: Vec<u8> = id.into_iter().chain(signature).collect();
        format!("{text}\n{DASH}{} {}\n", self.name, BASE64.encode(signature))
    }
}

impl FromStr for Signer {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let (name, id, seed) = text.trim().strip_prefix(PRIVATE).and_then(key_parts).ok_or(NoteError::Key)?;
        let signer = Self::new(name, seed).ok_or(NoteError::Key)?;
        if id.eq_ignore_ascii_case(&hex(&key_id(name, &signer.key.verifying_key()))) {
            Ok(signer)
        } else {
            Err(NoteError::Key)
        }
    }
}

/// A note whose signatures are not verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note<'a> {
    text: &'a str,
    signatures: Vec<(&'a str, Vec<u8>)>,
}

impl<'a> Note<'a> {
    /// Parses a note, without verifying it.
    pub fn read(note: &'a str) -> Result<Self, NoteError> {
        if note.len() > NOTE_MAX || note.chars().any(|c| c.is_control() && c != '\n') {
            return Err(NoteError::Form);
        }
        // The last empty line ends the text, which may contain others.
        let split = note.rfind("\n\n").ok_or(NoteError::Form)?;
        let (text, lines) = (&note[..=split], &note[split + 2..]);
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Form)?;
        let signature = |line: &'a str| {
            let (name, signature) = line.strip_prefix(DASH)?.split_once(' ')?;
            let signature = BASE64.decode(signature).ok()?;
            (is_name(name) && signature.len() > 4).then_some((name, signature))
        };
        let signatures = lines.split('\n').take(SIGNATURES_MAX + 1).map(signature);
        let signatures = signatures.collect::<Option<Vec<_>>>().ok_or(NoteError::Form)?;
        if signatures.len() > SIGNATURES_MAX { Err(NoteError::Form) } else { Ok(Self { text, signatures }) }
    }

    /// The names of the signers, as claimed.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.signatures.iter().map(|(name, _)| *name)
    }

    /// The text, with no signature checked: for a use that needs no proof.
    #[must_use]
    pub const fn claimed(&self) -> &'a str {
        self.text
    }

    /// The text, if this key signed it. Other signatures are ignored.
    pub fn verify(&self, verifier: &Verifier) -> Result<&'a str, NoteError> {
        let id = key_id(&verifier.name, &verifier.key);
        let own = self.signatures.iter().find(|(name, bytes)| *name == verifier.name && bytes.starts_with(&id));
        let (_, bytes) = own.ok_or(NoteError::Unsigned)?;
        let signature = Signature::from_slice(&bytes[id.len()..]).map_err(|_| NoteError::Forged)?;
        verifier.key.verify_strict(self.text.as_bytes(), &signature).map_err(|_| NoteError::Forged)?;
        Ok(self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn signer() -> Signer {
        Signer::new("holdfast/test", [7; 32]).unwrap()
    }

    /// An example of the C2SP repository's Go implementation (golang.org/x/mod/sumdb/note): its tools and ours read the
    /// same notes.
    #[test]
    fn a_note_of_the_reference_implementation_is_verified() {
        let verifier: Verifier = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW".parse().unwrap();
        let note = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
        let text = Note::read(note).unwrap().verify(&verifier).unwrap();
        assert!(text.starts_with("If you think") && text.ends_with("is.\n"));
        let signer: Signer =
            "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz".parse().unwrap();
        assert_eq!(signer.verifier(), verifier);
        assert_eq!(signer.sign(text), note);
        assert_eq!(signer.expose(), "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz");
        assert_eq!(verifier.to_string(), "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW");
    }

    #[test]
    fn a_note_is_verified_by_its_own_key_and_as_it_was_signed() {
        let (text, verifier) = ("one\ntwo\n", signer().verifier());
        let note = signer().sign(text);
        assert_eq!(Note::read(&note).unwrap().verify(&verifier), Ok(text));
        assert_eq!(Note::read(&note.replace("two", "three")).unwrap().verify(&verifier), Err(NoteError::Forged));
        let other = Signer::new("holdfast/test", [8; 32]).unwrap().verifier();
        assert_eq!(Note::read(&note).unwrap().verify(&other), Err(NoteError::Unsigned));
        let renamed = Signer::new("other", [7; 32]).unwrap().verifier();
        assert_eq!(Note::read(&note).unwrap().verify(&renamed), Err(NoteError::Unsigned));
        for bad in [
            "",
            "\n\n",
            "text",
            "text\n",
            "text\n\n",
            &note[..note.len() - 1],
            &format!("{note}more\n"),
            &note.replace('\u{2014}', "-"),
            &note.replace('\n', "\r\n"),
        ] {
            assert_eq!(Note::read(bad), Err(NoteError::Form), "{bad:?}");
        }
        assert!(!format!("{:?}", signer()).contains('7'));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let verifier = signer().verifier().to_string();
        for bad in [
            "",
            "a+b",
            "a+b+c",
            &verifier.replace("test", "tost"),
            &verifier[..verifier.len() - 4],
            &format!("PRIVATE+KEY+{verifier}"),
        ] {
            assert_eq!(bad.parse::<Verifier>(), Err(NoteError::Key), "{bad}");
        }
        assert!(Signer::new("a b", [0; 32]).is_none() && Signer::new("", [0; 32]).is_none());
    }

    proptest! {
        #[test]
        fn no_text_panics_and_none_is_believed(note: String, cut in 0_usize..200, byte: char) {
            let _ = Note::read(&note);
            let _ = note.parse::<Verifier>();
            let _ = note.parse::<Signer>();
            let signed = signer().sign("one\ntwo\n");
            let at = signed.char_indices().map(|(at, _)| at).nth(cut % signed.chars().count()).unwrap_or(0);
            let mut changed = signed.clone();
            let old = changed.remove(at);
            changed.insert(at, byte);
            if old != byte && let Ok(note) = Note::read(&changed) {
                let believed = note.verify(&signer().verifier());
                prop_assert!(believed.is_err() || believed == Ok("one\ntwo\n"));
            }
        }
    }
}
