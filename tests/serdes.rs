//! Serdes of the public surface, over generated values.

use millstream::serde as serdes;
use millstream::serde::Serde;
use proptest::prelude::*;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Money {
    #[serde(with = "millstream::serde::decimal_text")]
    amount: Decimal,
}

fn json(amount: Decimal) -> serde_json::Result<String> {
    serde_json::to_string(&Money { amount })
}

/// Any decimal: 96 bits, a sign, up to 28 digits behind the point; short mantissas as often as long.
fn decimals() -> impl Strategy<Value = Decimal> {
    (any::<[u32; 3]>(), 0..97_u32, any::<bool>(), 0..=28_u32).prop_map(
        |([low, middle, high], bits, negative, scale)| {
            let mask = 1_u128.checked_shl(bits).unwrap_or(0).wrapping_sub(1);
            let wide = u128::from(low) | u128::from(middle) << 32 | u128::from(high) << 64;
            let kept = (wide & mask).cast_signed();
            let mut decimal = Decimal::from_i128_with_scale(kept, scale);
            decimal.set_sign_negative(negative);
            decimal
        },
    )
}

proptest! {
    #[test]
    fn a_decimal_is_written_as_it_is_displayed_and_read_back_with_its_scale(decimal in decimals()) {
        let text = json(decimal).unwrap();
        prop_assert_eq!(&text, &format!(r#"{{"amount":"{decimal}"}}"#));
        let read: Money = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(read.amount, decimal);
        prop_assert_eq!(read.amount.scale(), decimal.scale());
    }
}

#[test]
fn the_edges_of_decimals_are_written_as_they_are_displayed() {
    let smallest = Decimal::new(1, 28);
    for decimal in [
        Decimal::ZERO,
        Decimal::new(0, 2),
        -Decimal::new(0, 2),
        Decimal::MAX,
        Decimal::MIN,
        smallest,
        -smallest,
        Decimal::from(u64::MAX),
        Decimal::from_i128_with_scale(i128::from(u64::MAX) + 1, 19),
        Decimal::from_i128_with_scale(10_i128.pow(19), 0),
        Decimal::from_i128_with_scale(10_i128.pow(28), 28),
    ] {
        assert_eq!(
            json(decimal).unwrap(),
            format!(r#"{{"amount":"{decimal}"}}"#)
        );
    }
}

#[test]
fn a_number_is_no_decimal_string() {
    let error = serde_json::from_str::<Money>(r#"{"amount":1.5}"#).unwrap_err();
    assert!(
        error.to_string().contains("expected a decimal string"),
        "{error}"
    );
}

#[test]
fn a_json_document_with_bytes_that_are_no_utf8_is_refused_whoever_reads_them() {
    let serde = serdes::json::<Money>();
    let document = |unread: &[u8]| {
        let parts: [&[u8]; 3] = [br#"{"amount":"1.50","note":""#, unread, br#""}"#];
        parts.concat()
    };
    let amount = Decimal::new(150, 2);
    let read = serde.deserialize(Some(&document("ü".as_bytes())));
    assert_eq!(read.unwrap(), Money { amount });
    let error = serde.deserialize(Some(&document(b"\xff"))).unwrap_err();
    assert!(error.to_string().contains("utf-8"), "{error}");
}
