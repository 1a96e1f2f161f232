use super::*;
use proptest::prelude::*;

#[test]
fn names_are_trimmed_and_cased() {
    assert_eq!(" wholesale ".parse::<Engine>().unwrap().as_str(), "WHOLESALE");
    assert_eq!("Contract_Rate".parse::<Metric>().unwrap().as_str(), "contract_rate");
    assert!("a".repeat(50).parse::<Engine>().is_ok());
    assert_eq!("a".repeat(51).parse::<Engine>(), Err(ParseTextError::TooLong(51, 50, "characters")));
    assert_eq!("  ".parse::<Engine>(), Err(ParseTextError::Empty(50)));
    assert_eq!("a b".parse::<Engine>(), Err(ParseTextError::NameCharacter(' ')));
    assert_eq!("K\u{212A}".parse::<Engine>(), Err(ParseTextError::NameCharacter('\u{212A}')));
}

#[test]
fn texts_refuse_control_characters_and_excess() {
    assert!("naïve – 取引".parse::<Actor>().is_ok());
    assert_eq!("a\0b".parse::<Actor>(), Err(ParseTextError::ControlCharacter('\0')));
    assert_eq!("a\nb".parse::<Reason>(), Err(ParseTextError::ControlCharacter('\n')));
    assert_eq!("a\u{202E}b".parse::<Actor>(), Err(ParseTextError::ControlCharacter('\u{202E}')));
    assert_eq!("a\u{2028}b".parse::<Actor>(), Err(ParseTextError::ControlCharacter('\u{2028}')));
    assert!("é".repeat(200).parse::<Actor>().is_ok());
    assert!("é".repeat(201).parse::<Actor>().is_err());
    assert!("é".repeat(2049).parse::<Detail>().is_err());
}

#[test]
fn json_objects_are_kept_as_written_and_say_one_thing() {
    let text = r#"{"b": 1.10, "a": {"x": [1e400, null]}}"#;
    // 1e400 is JSON, but no reader agrees on what it is.
    assert!(text.parse::<JsonObject>().is_err());
    let text = r#"{"b": 1.10, "a": {"x": [1e40, null]}}"#;
    assert_eq!(text.parse::<JsonObject>().unwrap().as_str(), text);
    for bad in [r#"{"a":1,"a":2}"#, r#"{"x":{"a":1,"a":1}}"#, r#"{"a":"\u0000"}"#, "[]", "1", "{", r#"{"a":1} x"#] {
        assert!(bad.parse::<JsonObject>().is_err(), "{bad}");
    }
    let deep = format!("{}1{}", "{\"a\":".repeat(500), "}".repeat(500));
    assert!(deep.parse::<JsonObject>().is_err());
}

proptest! {
    #[test]
    fn reading_text_never_panics_and_names_are_canonical(text in "\\PC{0,120}") {
        if let Ok(engine) = text.parse::<Engine>() {
            prop_assert_eq!(engine.as_str().parse::<Engine>().unwrap(), engine);
        }
        let _ = text.parse::<JsonObject>();
        let _ = text.parse::<Detail>();
    }
}
