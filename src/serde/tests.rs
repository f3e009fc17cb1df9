use rust_decimal::Decimal;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;

fn bytes_of<T>(serde: &impl Serde<T>, data: &T) -> Option<Vec<u8>> {
    let mut out = b"before".to_vec();
    let present = serde.serialize(data, &mut out).unwrap();
    assert!(out.starts_with(b"before"), "a serde appends");
    present.then(|| out.split_off(6))
}

#[track_caller]
fn round_trip<T: PartialEq + Debug>(
    serde: &(impl Serde<T> + TextCodec),
    data: T,
    bytes: &[u8],
    text: &str,
    json: &Value,
) {
    assert_eq!(bytes_of(serde, &data).as_deref(), Some(bytes));
    assert_eq!(serde.deserialize(Some(bytes)).unwrap(), data);
    assert_eq!(serde.parse_text(text).unwrap(), bytes);
    assert_eq!(serde.to_json(bytes).unwrap(), *json);
}

#[test]
fn plain_types_have_the_bytes_of_kafkas_serializers() {
    round_trip(
        &string(),
        "Zoë".to_owned(),
        "Zoë".as_bytes(),
        "Zoë",
        &json!("Zoë"),
    );
    round_trip(&bytes(), vec![0, 255], &[0, 255], "AP8=", &json!("AP8="));
    round_trip(&i16(), -2, &[0xff, 0xfe], "-2", &json!(-2));
    round_trip(&bool(), true, &[1], "true", &json!(true));
    round_trip(&bool(), false, &[0], "false", &json!(false));
    round_trip(&f32(), 0.1, &[0x3d, 0xcc, 0xcc, 0xcd], "0.1", &json!(0.1));
    round_trip(&i32(), -2, &[0xff, 0xff, 0xff, 0xfe], "-2", &json!(-2));
    round_trip(&i64(), 258, &[0, 0, 0, 0, 0, 0, 1, 2], "258", &json!(258));
    round_trip(
        &f64(),
        1.5,
        &[0x3f, 0xf8, 0, 0, 0, 0, 0, 0],
        "1.5",
        &json!(1.5),
    );
    let id = "550e8400-e29b-41d4-a716-446655440000";
    round_trip(
        &uuid(),
        Uuid::parse_str(id).unwrap(),
        id.as_bytes(),
        id,
        &json!(id),
    );
}

#[test]
fn void_is_null_and_nothing_else() {
    assert_eq!(bytes_of(&void(), &()), None);
    assert!(void().deserialize(None).is_ok());
    assert!(void().deserialize(Some(&[])).is_err());
    assert!(bool().deserialize(Some(&[2])).is_err());
    assert!(bool().deserialize(Some(&[])).is_err());
}

#[test]
fn a_decimal_keeps_its_scale() {
    round_trip(
        &decimal(),
        Decimal::new(15000, 2),
        b"150.00",
        "150.00",
        &json!("150.00"),
    );
}

#[test]
fn json_is_typed() {
    round_trip(
        &super::json::<(String, u8)>(),
        ("a".to_owned(), 1),
        b"[\"a\",1]",
        "[\"a\", 1]",
        &json!(["a", 1]),
    );
    assert!(super::json::<u8>().deserialize(Some(b"300")).is_err());
}

#[test]
fn a_json_string_key_needs_no_quotes_in_text() {
    let serde = super::json::<String>();
    assert_eq!(serde.parse_text("account-1").unwrap(), b"\"account-1\"");
    assert_eq!(serde.parse_text("\"account-1\"").unwrap(), b"\"account-1\"");
}

#[test]
fn null_is_an_error_unless_it_is_optional() {
    assert!(
        Serde::<String>::deserialize(&string(), None)
            .unwrap_err()
            .to_string()
            .contains("null")
    );
    assert!(Serde::<i64>::deserialize(&i64(), None).is_err());
    assert!(super::json::<Option<u8>>().deserialize(None).is_err());
    let serde = optional(i64());
    assert_eq!(serde.deserialize(None).unwrap(), None);
    assert_eq!(bytes_of(&serde, &None), None);
    assert_eq!(bytes_of(&serde, &Some(1)), bytes_of(&i64(), &1));
}

#[test]
fn bytes_that_do_not_decode_are_errors() {
    assert!(string().deserialize(Some(&[0xff])).is_err());
    assert!(
        i32()
            .deserialize(Some(&[1, 2, 3]))
            .unwrap_err()
            .to_string()
            .contains("4 bytes")
    );
    assert!(decimal().deserialize(Some(b"1,5")).is_err());
    assert!(uuid().deserialize(Some(b"no uuid")).is_err());
    assert!(i64().parse_text("one").is_err());
}

#[test]
fn infinity_is_shown_as_text() {
    let bytes = bytes_of(&f64(), &std::primitive::f64::INFINITY).unwrap();
    assert_eq!(f64().to_json(&bytes).unwrap(), json!("inf"));
}

proptest::proptest! {
    #[test]
    fn integers_round_trip_and_keep_their_order_within_a_sign(a: i64, b: i64) {
        let (left, right) = (bytes_of(&i64(), &a).unwrap(), bytes_of(&i64(), &b).unwrap());
        proptest::prop_assert_eq!(i64().deserialize(Some(&left)).unwrap(), a);
        if (a < 0) == (b < 0) {
            proptest::prop_assert_eq!(left.cmp(&right), a.cmp(&b));
        } else {
            proptest::prop_assert_eq!(left < right, a >= 0);
        }
    }

    #[test]
    fn strings_round_trip_and_keep_their_order(a: String, b: String) {
        let (left, right) = (bytes_of(&string(), &a).unwrap(), bytes_of(&string(), &b).unwrap());
        proptest::prop_assert_eq!(string().deserialize(Some(&left)).unwrap(), a.clone());
        proptest::prop_assert_eq!(left.cmp(&right), a.cmp(&b));
    }

    #[test]
    fn decimals_round_trip_with_their_scale(mantissa: i64, scale in 0u32..28) {
        let value = Decimal::new(mantissa, scale);
        let bytes = bytes_of(&decimal(), &value).unwrap();
        let back = decimal().deserialize(Some(&bytes)).unwrap();
        proptest::prop_assert_eq!((back, back.scale()), (value, value.scale()));
    }
}
