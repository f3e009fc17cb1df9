//! Decimals as strings of JSON and other formats: for fields, `#[serde(with = ...)]`.
//!
//! The text is that of [`Decimal`]'s `Display`: plain digits with the decimal's own scale, never an
//! exponent. It is made in place: `Display` through a formatter takes twice the instructions, which a
//! record pays for its output and once more for its changelog.
//!
//! ```
//! use rust_decimal::Decimal;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Balance {
//!     #[serde(with = "millstream::serde::decimal_text")]
//!     amount: Decimal,
//! }
//!
//! let balance: Balance = serde_json::from_str(r#"{"amount":"150.00"}"#)?;
//! assert_eq!(serde_json::to_string(&balance)?, r#"{"amount":"150.00"}"#);
//! # Ok::<(), serde_json::Error>(())
//! ```

use std::fmt;

use rust_decimal::Decimal;
use serde::de::{Error, Visitor};
use serde::{Deserializer, Serializer};

/// A sign, 28 digits behind the point, the point and a digit before it: 31 bytes at most.
const TEXT_LEN: usize = 32;
/// How many decimal digits are taken out of the 96 bits as one `u64`.
const LOW_DIGITS: u32 = 19;
const LOW: u128 = 10_u128.pow(LOW_DIGITS);

/// Writes a decimal as a string.
///
/// # Errors
/// The serializer's own.
pub fn serialize<S: Serializer>(decimal: &Decimal, serializer: S) -> Result<S::Ok, S::Error> {
    let mut text = [0; TEXT_LEN];
    serializer.serialize_str(write(decimal, &mut text))
}

/// Reads a decimal from a string, exactly: digits that do not fit are an error, and a number is one.
///
/// # Errors
/// When there is no string, or no decimal in it.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
    deserializer.deserialize_str(Text)
}

struct Text;

impl Visitor<'_> for Text {
    type Value = Decimal;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a decimal string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Decimal, E> {
        Decimal::from_str_exact(text).map_err(E::custom)
    }
}

/// Writes `decimal` to the end of `text`, from the last digit to the first; returns it.
fn write<'a>(decimal: &Decimal, text: &'a mut [u8; TEXT_LEN]) -> &'a str {
    let scale = decimal.scale();
    let mantissa = decimal.mantissa().unsigned_abs();
    // 96 bits are less than 19 and 19 digits.
    let (mut part, mut high) = match u64::try_from(mantissa) {
        Ok(small) => (small, 0),
        Err(_) => (narrow(mantissa % LOW), narrow(mantissa / LOW)),
    };
    let mut length = 0;
    let mut slots = text.iter_mut().rev();
    let mut put = |byte| {
        if let Some(slot) = slots.next() {
            *slot = byte;
            length += 1;
        }
    };
    let mut digits = 0;
    // At least one digit before the point.
    while part > 0 || high > 0 || digits <= scale {
        if digits == LOW_DIGITS && high > 0 {
            (part, high) = (high, 0);
        }
        if digits == scale && scale > 0 {
            put(b'.');
        }
        put(b'0' + u8::try_from(part % 10).unwrap_or(0));
        part /= 10;
        digits += 1;
    }
    if decimal.is_sign_negative() {
        put(b'-');
    }
    let written = text.get(TEXT_LEN - length..).unwrap_or_default();
    match std::str::from_utf8(written) {
        Ok(written) => written,
        Err(_) => unreachable!("digits, point and sign are ASCII"),
    }
}

fn narrow(number: u128) -> u64 {
    match u64::try_from(number) {
        Ok(number) => number,
        Err(_) => unreachable!("each part of 96 bits has 19 digits at most"),
    }
}
