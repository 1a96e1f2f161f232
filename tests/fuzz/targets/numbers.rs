//! Exact numbers: a number that was read is written as what reads as the same number, in every form it has.
//!
//! The input is the text of a number.

#![no_main]

use holdfast::types::{Amount, Confidence, Count, Flag, Fraction, Measured, ParseNumberError, Ratio, Total, Ttl};
use libfuzzer_sys::fuzz_target;
use rust_decimal::Decimal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::{Debug, Display};
use std::str::FromStr;

trait Exact: FromStr<Err = ParseNumberError> + Display + Debug + PartialEq + Serialize + DeserializeOwned {
    fn to_sql(&self) -> Decimal;
    fn from_sql(decimal: Decimal) -> Option<Self>;
}

macro_rules! exact {
    ($($type:ident),*) => {$(
        impl Exact for $type {
            fn to_sql(&self) -> Decimal {
                self.to_decimal()
            }
            fn from_sql(decimal: Decimal) -> Option<Self> {
                Self::from_decimal(decimal)
            }
        }
    )*};
}
exact!(Amount, Measured, Total, Fraction, Confidence, Ratio, Count, Ttl);

fn check<T: Exact>(text: &str) {
    let number: T = match text.parse() {
        Ok(number) => number,
        Err(ParseNumberError::TooPrecise { rounded, .. }) => {
            // The advice is taken, or refused for its range: never for its form.
            match rounded.parse::<T>() {
                Ok(_) | Err(ParseNumberError::TooSmall(..) | ParseNumberError::TooLarge(..)) => return,
                Err(error) => panic!("advised to send {rounded:?}, which {error}"),
            }
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let shown = number.to_string();
    assert_eq!(shown.parse::<T>().as_ref(), Ok(&number), "as {shown}");
    assert_eq!(shown.parse::<T>().expect("read before").to_string(), shown);
    assert!(!shown.contains(['e', 'E', '+']) && !shown.starts_with('.') && !shown.ends_with('.'), "{shown}");
    assert!(!shown.contains('.') || !shown.ends_with('0'), "{shown}");

    let json = serde_json::to_string(&number).expect("a number has a JSON form");
    assert_eq!(json, shown, "JSON has the same digits");
    assert_eq!(serde_json::from_str::<T>(&json).expect("its own JSON"), number);
    assert_eq!(serde_json::from_str::<T>(&format!("\"{shown}\"")).expect("its own text"), number);

    // Ratios are shown only: one beyond SQL's digits is never stored.
    if std::any::type_name::<T>() != std::any::type_name::<Ratio>() {
        assert_eq!(T::from_sql(number.to_sql()), Some(number), "through SQL");
    }
    // Somebody else's reading of the same digits.
    if let Ok(decimal) = Decimal::from_str_exact(shown.as_str()) {
        assert_eq!(T::from_sql(decimal), Some(shown.parse().expect("read before")));
    }
}

fuzz_target!(|text: &str| {
    check::<Amount>(text);
    check::<Measured>(text);
    check::<Total>(text);
    check::<Fraction>(text);
    check::<Confidence>(text);
    check::<Ratio>(text);
    check::<Count>(text);
    check::<Ttl>(text);
    if let Ok(flag) = text.parse::<Flag>() {
        let json = serde_json::to_string(&flag).expect("a flag has a JSON form");
        assert_eq!(serde_json::from_str::<Flag>(&json).expect("its own JSON"), flag);
    }
    // Two numbers of one amount of money are one number, however they are written.
    if let (Ok(ours), Ok(theirs)) = (text.parse::<Amount>(), Decimal::from_str_exact(text.trim_matches([' ', '\t']))) {
        assert_eq!(ours.to_decimal(), theirs);
    }
});
