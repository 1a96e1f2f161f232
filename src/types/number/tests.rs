use super::*;
use proptest::prelude::*;

fn amount(text: &str) -> Result<String, String> {
    text.parse::<Amount>().map(|amount| amount.to_string()).map_err(|error| error.to_string())
}

#[test]
fn amounts_are_read_from_their_digits() {
    for (text, canonical) in [
        ("400", "400"),
        ("0.3", "0.3"),
        ("0.300000000000", "0.3"),
        ("1e2", "100"),
        ("1.5E+3", "1500"),
        ("25e-2", "0.25"),
        ("0e400", "0"),
        ("999999999999.999999", "999999999999.999999"),
        ("1000000000000", "1000000000000"),
        (" 7 ", "7"),
    ] {
        assert_eq!(amount(text).as_deref(), Ok(canonical), "{text}");
    }
}

#[test]
fn hostile_numbers_are_refused_with_the_fix() {
    for text in ["", "NaN", "Infinity", "0x10", "1_000", "1,5", "+5", "01", ".5", "5.", "--1", "1e", "e5", "٣", "1 2"]
    {
        assert_eq!(text.parse::<Amount>(), Err(ParseNumberError::Syntax), "{text}");
    }
    assert_eq!("-0".parse::<Amount>(), Err(ParseNumberError::MinusZero));
    assert_eq!("-0.000e3".parse::<Measured>(), Err(ParseNumberError::MinusZero));
    assert_eq!(amount("1e400").unwrap_err(), "is more than 1000000000000: send a number from 0 to 1000000000000");
    assert_eq!(amount("1e99999999999999999999").unwrap_err(), amount("1e400").unwrap_err());
    assert_eq!(amount("-5").unwrap_err(), "is -5, which is less than 0: send a number from 0 to 1000000000000");
    assert_eq!(amount(&"9".repeat(40)).unwrap_err(), amount("1e400").unwrap_err());
    assert_eq!(amount(&"9".repeat(65)).unwrap_err(), "is a number of 65 characters, at most 64: shorten it");
    assert_eq!(amount("0.30000000000000004").unwrap_err(), "has 17 decimals, at most 6: round it, or send \"0.3\"");
    assert_eq!(amount("1.0000005").unwrap_err(), "has 7 decimals, at most 6: round it, or send \"1\"");
    assert_eq!(amount("1.0000015").unwrap_err(), "has 7 decimals, at most 6: round it, or send \"1.000002\"");
    assert_eq!(amount("1e-400").unwrap_err(), "has 400 decimals, at most 6: round it, or send \"0.000001\"");
    assert_eq!(
        "ten".parse::<Count>().unwrap_err().to_string(),
        "is not a whole number: send digits alone, for example 400"
    );
}

#[test]
fn division_rounds_half_to_even() {
    assert_eq!(divide(1, 3, 3), Some(333));
    assert_eq!(divide(2, 3, 3), Some(667));
    assert_eq!(divide(5, 2, 0), Some(2));
    assert_eq!(divide(7, 2, 0), Some(4));
    assert_eq!(divide(-5, 2, 0), Some(-2));
    assert_eq!(divide(-7, 2, 0), Some(-4));
    assert_eq!(divide(1, 0, 3), None);
}

proptest! {
    #[test]
    fn reading_never_panics(text in "\\PC{0,80}") {
        let _ = text.parse::<Amount>();
        let _ = text.parse::<Measured>();
        let _ = text.parse::<Confidence>();
        let _ = text.parse::<Count>();
    }

    #[test]
    fn numeric_looking_text_never_panics(text in "-?[0-9]{0,40}(\\.[0-9]{0,40})?([eE][+-]?[0-9]{0,25})?") {
        let _ = text.parse::<Amount>();
        let _ = text.parse::<Measured>();
        let _ = text.parse::<Total>();
        let _ = text.parse::<Confidence>();
    }

    #[test]
    fn every_amount_survives_text_json_and_sql(units in 0_i128..=1_000_000_000_000_000_000) {
        let amount = Amount::from_units(units).unwrap();
        prop_assert_eq!(amount.to_string().parse::<Amount>().unwrap(), amount);
        let json = serde_json::to_string(&amount).unwrap();
        prop_assert_eq!(serde_json::from_str::<Amount>(&json).unwrap(), amount);
        let quoted = format!("\"{json}\"");
        prop_assert_eq!(serde_json::from_str::<Amount>(&quoted).unwrap(), amount);
        prop_assert_eq!(Amount::from_decimal(amount.to_decimal()).unwrap(), amount);
    }

    #[test]
    fn exponents_and_plain_digits_agree(units in 0_i64..=1_000_000_000_000, exponent in 0_u32..=6) {
        let plain = scaled_text(i128::from(units), exponent);
        let scientific = format!("{units}e-{exponent}");
        prop_assert_eq!(plain.parse::<Amount>(), scientific.parse::<Amount>());
    }
}
