//! Money: exact decimals in a currency of ISO 4217.
//!
//! # Invariants
//! - An amount never passes through a float: on the wire it is a decimal string, a JSON number is
//!   refused.
//! - Arithmetic is exact or an error. `rust_decimal` would round a sum that needs more than 96 bits;
//!   [`Amount`] does not.
//! - Amounts are compared as decimals (`1.5` = `1.50`) and written with the currency's scale, or
//!   their own where that is larger.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use millstream::serde::decimal_text;
use rust_decimal::Decimal;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not an amount of money, or a result is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MoneyError {
    /// Not a plain decimal: an optional minus, digits, optionally a point and digits.
    #[error("`{text}` is not a decimal such as 150.00")]
    NotADecimal {
        /// The text, cut to a readable length.
        text: String,
    },
    /// A JSON value that is not a string.
    #[error("an amount is a decimal string such as \"150.00\", not a JSON {found}")]
    NotAString {
        /// What it is.
        found: &'static str,
    },
    /// More digits than can be kept exactly (28 and a half).
    #[error("the amount has more digits than can be kept exactly")]
    Overflow,
    /// Not a currency of ISO 4217.
    #[error("`{code}` is not a currency of ISO 4217")]
    UnknownCurrency {
        /// The text, cut to a readable length.
        code: String,
    },
}

/// An exact decimal amount. Keeps the scale it was written with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Amount(Decimal);

impl Amount {
    /// No money.
    pub const ZERO: Self = Self(Decimal::ZERO);

    /// Returns the exact sum.
    ///
    /// # Errors
    /// [`MoneyError::Overflow`] when it does not fit; never rounds.
    pub fn plus(self, other: Self) -> Result<Self, MoneyError> {
        sum(self.0, other.0).or_else(|_| sum(self.0.normalize(), other.0.normalize()))
    }

    /// Returns the exact difference.
    ///
    /// # Errors
    /// As [`plus`](Self::plus).
    pub fn minus(self, other: Self) -> Result<Self, MoneyError> {
        self.plus(other.negated())
    }

    /// Drops trailing zeros where 96 bits are not enough with them.
    fn from_parts(mut mantissa: i128, mut scale: u32) -> Result<Self, MoneyError> {
        loop {
            match Decimal::try_from_i128_with_scale(mantissa, scale) {
                Ok(decimal) => return Ok(Self(decimal)),
                Err(_) if scale > 0 && mantissa % 10 == 0 => {
                    mantissa /= 10;
                    scale -= 1;
                }
                Err(_) => return Err(MoneyError::Overflow),
            }
        }
    }

    /// Returns the amount with the other sign.
    #[must_use]
    pub fn negated(self) -> Self {
        if self.0.is_zero() {
            self
        } else {
            Self(-self.0)
        }
    }

    /// Returns the amount without its sign.
    #[must_use]
    pub fn abs(self) -> Self {
        Self(self.0.abs())
    }

    /// Returns whether it is above zero.
    #[must_use]
    pub fn is_positive(self) -> bool {
        self > Self::ZERO
    }

    /// Returns whether it is below zero.
    #[must_use]
    pub fn is_negative(self) -> bool {
        self < Self::ZERO
    }

    /// Returns whether the value needs no more decimals than `currency` has. `1.500` fits a
    /// currency of two decimals.
    #[must_use]
    pub fn fits(self, currency: Currency) -> bool {
        self.0.normalize().scale() <= currency.scale()
    }

    /// Returns the same value with `currency`'s scale, or the smallest larger one that keeps it.
    #[must_use]
    pub fn in_scale_of(self, currency: Currency) -> Self {
        let least = self.0.normalize();
        let scale = least.scale().max(currency.scale());
        if self.0.scale() <= scale {
            self
        } else {
            Self(self.0.round_dp(scale))
        }
    }

    /// Returns the same value with at least `currency`'s scale, as far as the digits allow.
    #[must_use]
    pub fn at_least_in_scale_of(self, currency: Currency) -> Self {
        let mut decimal = self.0;
        if decimal.scale() < currency.scale() {
            // Stops short of losing digits.
            decimal.rescale(currency.scale());
        }
        Self(decimal)
    }

    /// Returns the amount as text with `currency`'s scale, or its own where that is larger.
    #[must_use]
    pub fn written_in(self, currency: Currency) -> String {
        let scale = self.0.scale().max(currency.scale()) as usize;
        format!("{:.scale$}", self.0)
    }
}

/// Adds at the larger of the two scales.
fn sum(a: Decimal, b: Decimal) -> Result<Amount, MoneyError> {
    let scale = a.scale().max(b.scale());
    let mantissa = |decimal: Decimal| {
        let factor = 10_i128.checked_pow(scale - decimal.scale())?;
        decimal.mantissa().checked_mul(factor)
    };
    let sum = mantissa(a)
        .zip(mantissa(b))
        .and_then(|(a, b)| a.checked_add(b));
    Amount::from_parts(sum.ok_or(MoneyError::Overflow)?, scale)
}

impl FromStr for Amount {
    type Err = MoneyError;

    /// Reads a plain decimal. Stricter than `rust_decimal`: no exponent, plus sign, underscore or
    /// bare point, and never rounds.
    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let broken = || MoneyError::NotADecimal {
            text: text.chars().take(64).collect(),
        };
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = match unsigned.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (unsigned, None),
        };
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !fraction.is_none_or(digits) {
            return Err(broken());
        }
        let decimal = Decimal::from_str_exact(text).map_err(|_| MoneyError::Overflow)?;
        // Zero has one sign.
        Ok(Self(if decimal.is_zero() {
            decimal.abs()
        } else {
            decimal
        }))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PartialEq for Amount {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl Eq for Amount {}

impl PartialOrd for Amount {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Amount {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        decimal_text::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(AmountVisitor)?
            .map_err(de::Error::custom)
    }
}

/// An amount as a command gives it: what is wrong with it is for the rules to answer
/// (`INVALID_AMOUNT`), not for the reader of the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AmountInput(pub Result<Amount, MoneyError>);

impl<'de> Deserialize<'de> for AmountInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AmountVisitor).map(Self)
    }
}

/// Takes strings; tells what else it found. Never sees a number's value.
struct AmountVisitor;

impl<'de> Visitor<'de> for AmountVisitor {
    type Value = Result<Amount, MoneyError>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a decimal string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(text.parse())
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Err(MoneyError::NotAString { found: "number" }))
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Err(MoneyError::NotAString { found: "number" }))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Err(MoneyError::NotAString { found: "number" }))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Err(MoneyError::NotAString { found: "boolean" }))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Err(MoneyError::NotAString { found: "null" }))
    }
}

/// A currency of ISO 4217.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency {
    code: [u8; 3],
    scale: u8,
}

impl Currency {
    /// The US dollar: what events from before currencies (`BalanceChanged` v1) are in.
    pub const USD: Self = Self {
        code: *b"USD",
        scale: 2,
    };

    /// Returns the number of decimals of its minor unit.
    #[must_use]
    pub const fn scale(self) -> u32 {
        self.scale as u32
    }

    /// Returns the three letters.
    #[must_use]
    pub fn code(&self) -> &str {
        // Only ASCII of the table gets in.
        std::str::from_utf8(&self.code).unwrap_or_default()
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let unknown = || MoneyError::UnknownCurrency {
            code: text.chars().take(16).collect(),
        };
        let code: [u8; 3] = text.as_bytes().try_into().map_err(|_| unknown())?;
        for (scale, codes) in (0_u8..).zip(MINOR_UNITS) {
            if codes
                .split_ascii_whitespace()
                .any(|known| known.as_bytes() == code)
            {
                return Ok(Self { code, scale });
            }
        }
        Err(unknown())
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// The active codes of ISO 4217 by the decimals of their minor unit (the index). Codes without one
/// (metals, special drawing rights, test codes) are no currency to keep an account in.
const MINOR_UNITS: [&str; 5] = [
    "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    "",
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP BYN BZD \
     CAD CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL \
     GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR \
     LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD \
     PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC \
     SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG YER ZAR \
     ZMW ZWG",
    "BHD IQD JOD KWD LYD OMR TND",
    "CLF UYW",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn amount(text: &str) -> Amount {
        text.parse().unwrap()
    }

    fn currency(code: &str) -> Currency {
        code.parse().unwrap()
    }

    #[test]
    fn currencies_have_the_scale_of_the_standard() {
        for (code, scale) in [
            ("JPY", 0),
            ("KRW", 0),
            ("CLP", 0),
            ("USD", 2),
            ("EUR", 2),
            ("MGA", 2),
            ("KWD", 3),
            ("BHD", 3),
            ("TND", 3),
            ("CLF", 4),
            ("UYW", 4),
        ] {
            assert_eq!(currency(code).scale(), scale, "{code}");
            assert_eq!(currency(code).to_string(), code);
        }
        assert_eq!(currency("USD"), Currency::USD);
    }

    #[test]
    fn each_currency_is_listed_once() {
        let mut codes: Vec<_> = MINOR_UNITS
            .iter()
            .flat_map(|codes| codes.split_ascii_whitespace())
            .collect();
        let listed = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), listed);
        assert!(codes.iter().all(|code| code.len() == 3));
    }

    #[test]
    fn what_is_no_currency_is_refused() {
        for code in [
            "",
            "usd",
            "US",
            "USDX",
            "ABC",
            "XAU",
            "XXX",
            "€€€",
            "U D",
            "D E",
        ] {
            assert!(
                matches!(
                    code.parse::<Currency>(),
                    Err(MoneyError::UnknownCurrency { .. })
                ),
                "{code}"
            );
        }
    }

    #[test]
    fn amounts_are_written_with_the_currencys_scale_or_their_own_where_larger() {
        for (text, code, written) in [
            ("150", "USD", "150.00"),
            ("150.5", "USD", "150.50"),
            ("150.000", "USD", "150.000"),
            ("150", "JPY", "150"),
            ("150.0", "JPY", "150.0"),
            ("1.5", "KWD", "1.500"),
            ("1.5", "CLF", "1.5000"),
            ("-1.5", "EUR", "-1.50"),
            ("-0.00", "EUR", "0.00"),
            (
                "79228162514264337593543950335",
                "EUR",
                "79228162514264337593543950335.00",
            ),
        ] {
            assert_eq!(amount(text).written_in(currency(code)), written);
        }
    }

    #[test]
    fn amounts_are_compared_as_decimals() {
        assert_eq!(amount("1.5"), amount("1.500"));
        assert_eq!(amount("-0"), Amount::ZERO);
        assert!(amount("-1") < Amount::ZERO && amount("0.001").is_positive());
    }

    #[test]
    fn what_is_no_plain_decimal_is_refused() {
        for text in [
            "", "-", ".", "1.", ".5", "+1", "1e3", "1_000", "1,5", " 1", "1 ", "--1", "1.2.3",
            "NaN", "Infinity", "0x10", "１",
        ] {
            assert!(
                matches!(text.parse::<Amount>(), Err(MoneyError::NotADecimal { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn too_many_digits_are_an_overflow_not_a_rounding() {
        let text = "0.00000000000000000000000000001";
        assert_eq!(text.parse::<Amount>(), Err(MoneyError::Overflow));
        let largest = "79228162514264337593543950335";
        assert_eq!(amount(largest).to_string(), largest);
        assert_eq!(
            "79228162514264337593543950336".parse::<Amount>(),
            Err(MoneyError::Overflow)
        );
        assert_eq!(amount(largest).plus(amount("1")), Err(MoneyError::Overflow));
        assert_eq!(
            amount(largest).plus(amount("0.1")),
            Err(MoneyError::Overflow)
        );
        assert_eq!(amount(largest).plus(amount("0.00")), Ok(amount(largest)));
    }

    #[test]
    fn a_json_number_is_no_amount() {
        for json in ["150", "150.00", "-1", "true", "null"] {
            assert!(serde_json::from_str::<Amount>(json).is_err(), "{json}");
            let input: AmountInput = serde_json::from_str(json).unwrap();
            assert!(
                matches!(input.0, Err(MoneyError::NotAString { .. })),
                "{json}"
            );
        }
        assert_eq!(
            serde_json::from_str::<Amount>(r#""150.00""#).unwrap(),
            amount("150")
        );
        assert_eq!(
            serde_json::to_string(&amount("150.00")).unwrap(),
            r#""150.00""#
        );
    }

    #[test]
    fn superfluous_decimals_can_be_dropped_and_needed_ones_stay() {
        for (text, code, kept) in [
            ("110.000", "USD", "110.00"),
            ("110.001", "USD", "110.001"),
            ("110.0", "JPY", "110"),
            ("110", "USD", "110"),
        ] {
            assert_eq!(amount(text).in_scale_of(currency(code)).to_string(), kept);
        }
        assert!(amount("1.500").fits(Currency::USD) && !amount("1.501").fits(Currency::USD));
        assert!(!amount("0.1").fits(currency("JPY")) && amount("1.0").fits(currency("JPY")));
    }

    proptest! {
        #[test]
        fn sums_are_exact_or_an_error(
            a in -10_i128.pow(28)..10_i128.pow(28), scale_a in 0..=28_u32,
            b in -10_i128.pow(28)..10_i128.pow(28), scale_b in 0..=28_u32,
        ) {
            let x = Amount::from_parts(a, scale_a).unwrap();
            let y = Amount::from_parts(b, scale_b).unwrap();
            if let Ok(sum) = x.plus(y) {
                prop_assert_eq!(sum.minus(y), Ok(x));
                prop_assert_eq!(y.plus(x), Ok(sum));
            } else {
                // Only what does not fit in 96 bits may be refused.
                let near = (x.0.abs() + y.0.abs()).mantissa().unsigned_abs();
                prop_assert!(near > (1_u128 << 92), "{x} + {y} was refused");
            }
        }

        #[test]
        fn what_is_written_reads_back(mantissa in any::<i64>(), scale in 0..=18_u32) {
            let value = Amount::from_parts(i128::from(mantissa), scale).unwrap();
            let text = value.to_string();
            prop_assert_eq!(text.parse::<Amount>().unwrap(), value);
            prop_assert_eq!(text.parse::<Amount>().unwrap().to_string(), text);
        }
    }
}
