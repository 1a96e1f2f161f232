//! Who is the same person: owners of tokens, as people would read their names.

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::props::{DefaultIgnorableCodePoint, Script};
use icu_properties::{CodePointMapData, CodePointSetData};

/// Whether two owners are one person: the same name but for case, width, spaces and what nobody sees, or letter by letter what looks
/// the same in another alphabet.
#[must_use]
pub fn is_same(one: &str, other: &str) -> bool {
    let (one, other) = (visible(one), visible(other));
    folded(one.chars()) == folded(other.chars()) || folded(one.chars().map(latin)) == folded(other.chars().map(latin))
}

/// Two alphabets that a name mixes, by letters that look alike; none for one that can be read in one way. Chinese, Japanese and Korean
/// names go with Latin letters, as they do everywhere.
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

/// What is to be seen of a name: compatible forms as one, nothing invisible, one space between words.
fn visible(name: &str) -> String {
    let invisible = CodePointSetData::new::<DefaultIgnorableCodePoint>();
    let normal = ComposingNormalizerBorrowed::new_nfkc().normalize(name);
    let seen: String = normal
        .chars()
        .filter(|letter| !invisible.contains(*letter) && (!letter.is_control() || letter.is_whitespace()))
        .collect();
    seen.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Without regard to case: by capitals first, which spell out what has none of its own.
fn folded(letters: impl Iterator<Item = char>) -> String {
    let folded: String = letters.flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect();
    ComposingNormalizerBorrowed::new_nfkc().normalize(&folded).into_owned()
}

/// The Latin letter that another alphabet's looks like, or the letter itself.
const fn latin(letter: char) -> char {
    match letter {
        'А' | 'а' | 'Α' | 'α' => 'a',
        'В' | 'Β' | 'в' => 'b',
        'С' | 'с' | 'Ϲ' | 'ϲ' => 'c',
        'ԁ' | 'Ԁ' => 'd',
        'Е' | 'е' | 'Ε' | 'ε' => 'e',
        'Ԍ' | 'ԍ' => 'g',
        'Н' | 'н' | 'Η' | 'һ' | 'Һ' => 'h',
        'І' | 'і' | 'Ι' | 'ι' | 'Ӏ' | 'ӏ' => 'i',
        'Ј' | 'ј' | 'Ϳ' | 'ϳ' => 'j',
        'К' | 'к' | 'Κ' | 'κ' => 'k',
        'М' | 'м' | 'Μ' => 'm',
        'Ν' | 'η' => 'n',
        'О' | 'о' | 'Ο' | 'ο' | 'օ' | 'Օ' => 'o',
        'Р' | 'р' | 'Ρ' | 'ρ' => 'p',
        'Ԛ' | 'ԛ' => 'q',
        'Ѕ' | 'ѕ' => 's',
        'Т' | 'т' | 'Τ' | 'τ' => 't',
        'υ' | 'ս' => 'u',
        'ν' | 'Ѵ' | 'ѵ' => 'v',
        'Ԝ' | 'ԝ' | 'ω' => 'w',
        'Х' | 'х' | 'Χ' | 'χ' => 'x',
        'У' | 'у' | 'Υ' | 'Ү' | 'ү' => 'y',
        'Ζ' => 'z',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_person_however_the_name_is_written() {
        for same in [
            "ann lee",
            " Ann  Lee ",
            "ANN LEE",
            "Ａｎｎ Ｌｅｅ",
            "A\u{200b}nn Lee",
            "Ann\u{00ad} Lee",
            "\u{202e}Ann Lee\u{202c}",
            "Ann\u{fe0f} Lee",
            "Ann\u{a0}Lee",
            "Ann Lee\u{2060}",
            "Аnn Lee",
            "Ann L\u{0435}\u{0435}",
            "Ann\u{e0041} Lee",
        ] {
            assert!(is_same("Ann Lee", same), "{same:?}");
        }
        for (one, other) in
            [("José", "Jose\u{301}"), ("Straße", "STRASSE"), ("ﬁona", "Fiona"), ("Νίκος", "νίκος"), ("Вор", "Bop")]
        {
            assert!(is_same(one, other), "{one} {other}");
        }
        for (one, other) in [("Ann", "Anna"), ("Ann", "Bob"), ("José", "Jose"), ("李明", "李敏"), ("Иван", "Ivan")]
        {
            assert!(!is_same(one, other), "{one} {other}");
        }
    }

    #[test]
    fn a_name_in_one_alphabet_can_be_read_in_one_way() {
        assert_eq!(mixed("\u{410}nn"), Some(("Cyrillic", "Latin")));
        assert_eq!(mixed("Bοb"), Some(("Latin", "Greek")));
        for fine in ["Ann-Marie O'Neil 2", "Иван Петров", "Νίκος", "李明 Lee", "山田たろう", "bryan@example.com", ""]
        {
            assert_eq!(mixed(fine), None, "{fine}");
        }
    }
}
