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
fn letters_that_look_alike_are_one_person_with_any_accent_and_in_any_case() {
    for (one, other) in [
        ("Маїа", "Maïa"),
        ("Ёж", "Ëж"),
        ("ә", "ə"),
        ("Ә", "Ə"),
        ("ӕ", "æ"),
        ("ԑ", "ɛ"),
        ("ћ", "ħ"),
        ("Ian", "lan"),
        ("Ian", "1an"),
        ("І", "l"),
        ("desk l", "desk 1"),
        ("O'Neil", "0'Neil"),
        ("desk o", "desk 0"),
    ] {
        assert!(is_same(one, other) && is_same(other, one), "{one} {other}");
    }
    for (one, other) in [("ian", "lan"), ("Маїа", "Maia"), ("desk 1", "desk 7"), ("Эва", "Ева")] {
        assert!(!is_same(one, other), "{one} {other}");
    }
}

#[test]
fn no_blank_of_any_alphabet_and_no_form_of_punctuation_makes_another_person() {
    for same in [
        "AnnLee",
        "Ann\u{200b}Lee",
        "Ann\u{3164}Lee",
        "Ann\u{115f}Lee",
        "Ann\u{1160}Lee",
        "Ann\u{ffa0}Lee",
        "Ann\u{2800}Lee",
        "Ann Lee\u{1d159}",
        "Ann Lee\u{fffc}",
        "Ann Lee\u{e000}",
    ] {
        assert!(is_same("Ann Lee", same), "{same:?}");
    }
    for apostrophe in ['\u{2019}', '\u{2018}', '\u{2bc}', '\u{b4}', '`', '\u{2032}', '\u{ff07}'] {
        assert!(is_same("Ann O'Neil", &format!("Ann O{apostrophe}Neil")), "{apostrophe:?}");
    }
    for hyphen in ['\u{2010}', '\u{2011}', '\u{2013}', '\u{2212}', '\u{ff0d}', '\u{fe63}'] {
        assert!(is_same("Ann-Marie", &format!("Ann{hyphen}Marie")), "{hyphen:?}");
    }
    assert!(!is_same("Ann-Marie", "Ann'Marie") && !is_same("desk 1", "desk 2"));
}

#[test]
fn an_owner_of_letters_that_look_like_others_or_like_nothing_is_unfit() {
    for (name, letter) in [
        // Lisu, Cherokee, small capitals and other phonetic letters, Deseret, Coptic.
        ("ꓮꓠꓠ", 'ꓮ'),
        ("ᎪᏁᏁ", 'Ꭺ'),
        ("ᴀɴɴ", 'ᴀ'),
        ("ɑnn", 'ɑ'),
        ("Aɴn", 'ɴ'),
        ("ꬰnn", 'ꬰ'),
        ("𐐠nn", '𐐠'),
        ("Ⲁⲛⲛ", 'Ⲁ'),
        // Symbols, enclosed letters, other digits, private use, a blank that is drawn, letters of mathematics.
        ("🅰nn", '🅰'),
        ("Ann٢", '٢'),
        ("Ann\u{e000}", '\u{e000}'),
        ("Ann\u{2800}Lee", '\u{2800}'),
        ("Ann\u{fffc}", '\u{fffc}'),
        ("ϲοο", 'ϲ'),
        ("A\u{338}nn", '\u{338}'),
    ] {
        assert_eq!(unfit(name), Some(letter), "{name}");
    }
    for fine in [
        "Ann-Marie O'Neil 2",
        "Ann-Marie O’Neil",
        "José Núñez",
        "Jose\u{301}",
        "Łukasz Żółć",
        "Nguyễn Văn Ơn",
        "Straße",
        "Иван Петров",
        "Олександр Їжак",
        "Νίκος",
        "Արամ",
        "გიორგი",
        "李明 Lee",
        "山田たろう",
        "김철수",
        "दीपक",
        "محمد",
        "דוד",
        "bryan@example.com",
        "desk 3 (ops) & co.",
        "ＡＮＮ",
        "a\u{200b}nn",
        "",
    ] {
        assert_eq!(unfit(fine), None, "{fine}");
    }
}

#[test]
fn marks_of_annotations_and_other_formats_do_not_make_another_person() {
    for unseen in ["\u{fff9}", "\u{fffa}", "\u{fffb}", "\u{2061}", "\u{600}", "\u{110bd}", "\u{13430}", "\u{e0001}"] {
        assert!(is_same("Ann Lee", &format!("Ann{unseen} Lee")), "{unseen:?}");
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
