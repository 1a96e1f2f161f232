//! Compares the owners of tokens as persons: two names that people would read alike are one person.
//!
//! Owners are compared by their visible form, as far as look-alikes are known. So a new owner must use a repertoire of
//! characters: the alphabets of languages in use today, without their letters for phonetics, mathematics and history,
//! and of those alphabets the ones whose look-alikes of Latin are known (`latin`).

use icu_normalizer::{ComposingNormalizerBorrowed, DecomposingNormalizerBorrowed};
use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory, Script};
use icu_properties::{CodePointMapData, CodePointSetData};
use unicode_security::skeleton;

/// Whether two owners are one person: their names are equal but for case, width, spaces, kinds of apostrophes and
/// hyphens, and invisible characters, or one looks like the other as it is written, in capitals or in small letters.
/// Older owners, outside the repertoire, are compared as well.
#[must_use]
pub fn is_same(one: &str, other: &str) -> bool {
    let (one, other) = (compared(one), compared(other));
    forms(&one).iter().zip(forms(&other)).any(|(one, other)| *one == other)
}

/// The forms of a name. Two persons have no form in common. The forms: without case; in Latin letters; and the look as
/// written, in capitals and in small letters, by Unicode Technical Standard 39.
fn forms(name: &str) -> [String; 5] {
    let looks = |written: &str| skeleton(written).collect();
    // Normalisation separates a letter from its accents.
    let letters = DecomposingNormalizerBorrowed::new_nfd().normalize(name);
    [
        folded(name.chars()),
        folded(letters.chars().map(latin)),
        looks(name),
        looks(&name.to_uppercase()),
        looks(&name.to_lowercase()),
    ]
}

/// Two alphabets that a name mixes and whose letters look alike; none if it has one reading. Chinese, Japanese and
/// Korean names may include Latin letters, as is usual.
#[must_use]
pub fn mixed(name: &str) -> Option<(&'static str, &'static str)> {
    let scripts = CodePointMapData::<Script>::new();
    let mut first = None;
    for letter in visible(name).chars() {
        let named = match scripts.get(letter) {
            Script::Common
            | Script::Inherited
            | Script::Han
            | Script::Hiragana
            | Script::Katakana
            | Script::Bopomofo
            | Script::Hangul => continue,
            Script::Latin => "Latin",
            Script::Cyrillic => "Cyrillic",
            Script::Greek => "Greek",
            Script::Armenian => "Armenian",
            Script::Cherokee => "Cherokee",
            Script::Coptic => "Coptic",
            _ => "other",
        };
        match first {
            None => first = Some(named),
            Some(before) if before != named => return Some((before, named)),
            Some(_) => {}
        }
    }
    None
}

/// The first character that a new owner cannot have; none if every character is in the repertoire. The repertoire:
/// letters of the alphabets below, with their marks; the digits 0 to 9, and spaces; the punctuation of ASCII, and the
/// apostrophe, hyphens, dashes and middle dot of names. Compatible forms (full width, ligatures) count as their plain
/// form, and invisible characters do not count.
#[must_use]
pub fn unfit(name: &str) -> Option<char> {
    // Greek symbols that are compatible with a letter of another look.
    let symbol = name.chars().find(|letter| matches!(letter, '\u{3cf}'..='\u{3ff}'));
    symbol.or_else(|| visible(name).chars().find(|letter| !is_fit(*letter)))
}

fn is_fit(letter: char) -> bool {
    if letter.is_ascii() {
        return true;
    }
    let category = CodePointMapData::<GeneralCategory>::new().get(letter);
    let is_letter = matches!(
        category,
        GeneralCategory::UppercaseLetter
            | GeneralCategory::LowercaseLetter
            | GeneralCategory::TitlecaseLetter
            | GeneralCategory::OtherLetter
            | GeneralCategory::ModifierLetter
            | GeneralCategory::NonspacingMark
            | GeneralCategory::SpacingMark
    );
    match CodePointMapData::<Script>::new().get(letter) {
        Script::Common => matches!(letter, '\u{b7}' | '\u{2010}'..='\u{2014}' | '\u{2019}' | '\u{30fb}' | '\u{30fc}'),
        // Accents, except those that are drawn through their letter.
        Script::Inherited => {
            is_letter && matches!(letter, '\u{300}'..='\u{333}' | '\u{339}'..='\u{345}' | '\u{3099}' | '\u{309a}')
        }
        Script::Latin => is_letter && is_latin_of_a_language(letter),
        Script::Cyrillic => is_letter && matches!(letter, '\u{400}'..='\u{481}' | '\u{48a}'..='\u{52f}'),
        Script::Greek => is_letter && matches!(letter, '\u{370}'..='\u{3ce}' | '\u{1f00}'..='\u{1fff}'),
        Script::Arabic
        | Script::Armenian
        | Script::Bengali
        | Script::Bopomofo
        | Script::Devanagari
        | Script::Ethiopic
        | Script::Georgian
        | Script::Gujarati
        | Script::Gurmukhi
        | Script::Han
        | Script::Hangul
        | Script::Hebrew
        | Script::Hiragana
        | Script::Kannada
        | Script::Katakana
        | Script::Khmer
        | Script::Lao
        | Script::Malayalam
        | Script::Myanmar
        | Script::Oriya
        | Script::Sinhala
        | Script::Tamil
        | Script::Telugu
        | Script::Thaana
        | Script::Thai
        | Script::Tibetan => is_letter,
        _ => false,
    }
}

/// Whether a Latin letter is one of a to z, with accents, or another letter of a language. Phonetic letters are not:
/// their small capitals and turned letters look like those.
fn is_latin_of_a_language(letter: char) -> bool {
    let mut text = [0; 4];
    let parts = DecomposingNormalizerBorrowed::new_nfd().normalize(letter.encode_utf8(&mut text)).into_owned();
    let has_base = parts.chars().next().is_some_and(|base| base.is_ascii_alphabetic());
    has_base
        || matches!(
            letter,
            'ß' | 'ẞ'
                | 'æ'
                | 'Æ'
                | 'ø'
                | 'Ø'
                | 'ð'
                | 'Ð'
                | 'þ'
                | 'Þ'
                | 'đ'
                | 'Đ'
                | 'ħ'
                | 'Ħ'
                | 'ı'
                | 'ł'
                | 'Ł'
                | 'ŋ'
                | 'Ŋ'
                | 'œ'
                | 'Œ'
                | 'ŧ'
                | 'Ŧ'
                | 'ə'
                | 'Ə'
                | 'ɓ'
                | 'Ɓ'
                | 'ɗ'
                | 'Ɗ'
                | 'ƙ'
                | 'Ƙ'
                | 'ƴ'
                | 'Ƴ'
                | 'ɛ'
                | 'Ɛ'
                | 'ɔ'
                | 'Ɔ'
        )
}

/// The visible part of a name: compatible forms as one, no invisible characters, one space between words.
fn visible(name: &str) -> String {
    let (invisible, categories) =
        (CodePointSetData::new::<DefaultIgnorableCodePoint>(), CodePointMapData::<GeneralCategory>::new());
    let normal = ComposingNormalizerBorrowed::new_nfkc().normalize(name);
    let seen: String = normal
        .chars()
        .filter(|letter| !invisible.contains(*letter) && categories.get(*letter) != GeneralCategory::Format)
        .filter(|letter| !letter.is_control() || letter.is_whitespace())
        .collect();
    seen.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The form of a name for comparison: no spaces, since a blank of one alphabet is a letter of another, plain
/// punctuation, and no symbol that may be drawn as nothing.
fn compared(name: &str) -> String {
    let categories = CodePointMapData::<GeneralCategory>::new();
    // Punctuation is replaced before the compatible forms as well, since that of some apostrophes is a space with an
    // accent.
    let plain: String = name.chars().map(punctuation).collect();
    let is_drawn = |letter: &char| {
        letter.is_ascii()
            || !matches!(
                categories.get(*letter),
                GeneralCategory::OtherSymbol
                    | GeneralCategory::MathSymbol
                    | GeneralCategory::ModifierSymbol
                    | GeneralCategory::CurrencySymbol
                    | GeneralCategory::PrivateUse
                    | GeneralCategory::Unassigned
            )
    };
    visible(&plain).chars().filter(|letter| !letter.is_whitespace()).map(punctuation).filter(is_drawn).collect()
}

/// The ASCII punctuation that another character is a form of, or the character itself.
const fn punctuation(letter: char) -> char {
    match letter {
        '`'
        | '\u{b4}'
        | '\u{2b9}'
        | '\u{2bb}'..='\u{2bd}'
        | '\u{2c8}'
        | '\u{2ca}'
        | '\u{2cb}'
        | '\u{55a}'
        | '\u{5f3}'
        | '\u{2018}'..='\u{201b}'
        | '\u{2032}'
        | '\u{2035}'
        | '\u{a78c}' => '\'',
        '\u{201c}'..='\u{201f}' | '\u{2033}' | '\u{2036}' | '\u{5f4}' | '\u{ab}' | '\u{bb}' => '"',
        '\u{58a}' | '\u{5be}' | '\u{2010}'..='\u{2015}' | '\u{2043}' | '\u{2212}' | '\u{2796}' | '\u{30fc}' => '-',
        '\u{b7}' | '\u{2022}' | '\u{2024}' | '\u{2027}' | '\u{22c5}' | '\u{30fb}' => '.',
        other => other,
    }
}

/// The text without case. Capitals come first, since they spell out letters that have no capital.
fn folded(letters: impl Iterator<Item = char>) -> String {
    let folded: String = letters.flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect();
    ComposingNormalizerBorrowed::new_nfkc().normalize(&folded).into_owned()
}

/// The Latin letter that a letter of another alphabet looks like in at least one case, or the letter itself.
const fn latin(letter: char) -> char {
    match letter {
        'А' | 'а' | 'Α' | 'α' => 'a',
        'В' | 'Β' | 'в' => 'b',
        'С' | 'с' | 'Ϲ' | 'ϲ' => 'c',
        'ԁ' | 'Ԁ' => 'd',
        'Е' | 'е' | 'Ε' | 'ε' => 'e',
        'Ԍ' | 'ԍ' | 'ց' => 'g',
        'Н' | 'н' | 'Η' | 'һ' | 'Һ' | 'հ' => 'h',
        'І' | 'і' | 'Ι' | 'ι' | 'Ӏ' | 'ӏ' => 'i',
        'Ј' | 'ј' | 'Ϳ' | 'ϳ' | 'յ' => 'j',
        'К' | 'к' | 'Κ' | 'κ' => 'k',
        'Լ' => 'l',
        'М' | 'м' | 'Μ' => 'm',
        'Ν' | 'η' | 'ո' => 'n',
        'О' | 'о' | 'Ο' | 'ο' | 'σ' | 'օ' | 'Օ' => 'o',
        'Р' | 'р' | 'Ρ' | 'ρ' => 'p',
        'Ԛ' | 'ԛ' | 'զ' => 'q',
        'г' => 'r',
        'Ѕ' | 'ѕ' | 'Տ' => 's',
        'Т' | 'т' | 'Τ' | 'τ' => 't',
        'υ' | 'ս' | 'Ս' => 'u',
        'ν' | 'Ѵ' | 'ѵ' => 'v',
        'Ԝ' | 'ԝ' | 'ω' => 'w',
        'Х' | 'х' | 'Χ' | 'χ' => 'x',
        'У' | 'у' | 'Υ' | 'γ' | 'Ү' | 'ү' => 'y',
        'Ζ' => 'z',
        other => other,
    }
}

#[cfg(test)]
mod tests;
