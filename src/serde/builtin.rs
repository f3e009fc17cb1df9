//! Serdes of plain types, byte for byte those of Kafka's serializers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rust_decimal::Decimal;
use serde_json::Value;
use uuid::Uuid;

use super::{Serde, TextCodec, present};
use crate::processor::BoxError;

/// UTF-8, as Kafka's `StringSerializer`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StringSerde;

/// Returns the serde of strings: UTF-8.
#[must_use]
pub const fn string() -> StringSerde {
    StringSerde
}

impl Serde<String> for StringSerde {
    fn serialize(&self, data: &String, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        out.extend_from_slice(data.as_bytes());
        Ok(true)
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<String, BoxError> {
        Ok(std::str::from_utf8(present(bytes, "string")?)?.to_owned())
    }
}

impl TextCodec for StringSerde {
    fn parse_text(&self, text: &str) -> Result<Vec<u8>, BoxError> {
        Ok(text.as_bytes().to_vec())
    }

    fn to_json(&self, bytes: &[u8]) -> Result<Value, BoxError> {
        Ok(Value::String(std::str::from_utf8(bytes)?.to_owned()))
    }
}

/// Bytes as they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BytesSerde;

/// Returns the serde of bytes: as they are. In text and JSON they are base64.
#[must_use]
pub const fn bytes() -> BytesSerde {
    BytesSerde
}

impl Serde<Vec<u8>> for BytesSerde {
    fn serialize(&self, data: &Vec<u8>, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        out.extend_from_slice(data);
        Ok(true)
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<Vec<u8>, BoxError> {
        Ok(present(bytes, "byte string")?.to_vec())
    }
}

impl TextCodec for BytesSerde {
    fn parse_text(&self, text: &str) -> Result<Vec<u8>, BoxError> {
        Ok(BASE64.decode(text)?)
    }

    fn to_json(&self, bytes: &[u8]) -> Result<Value, BoxError> {
        Ok(Value::String(BASE64.encode(bytes)))
    }
}

/// Big-endian numbers of a fixed width.
macro_rules! number_serde {
    ($serde:ident, $function:ident, $type:ident, $kafka:literal, $order:literal, $json:expr) => {
        #[doc = concat!("`", stringify!($type), "`, big endian, as Kafka's `", $kafka, "`.")]
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct $serde;

        #[doc = concat!("Returns the serde of `", stringify!($type), "`: big endian, as Kafka's `", $kafka, "`.")]
        #[doc = ""]
        #[doc = $order]
        #[must_use]
        pub const fn $function() -> $serde {
            $serde
        }

        impl Serde<$type> for $serde {
            fn serialize(&self, data: &$type, out: &mut Vec<u8>) -> Result<bool, BoxError> {
                out.extend_from_slice(&data.to_be_bytes());
                Ok(true)
            }

            fn deserialize(&self, bytes: Option<&[u8]>) -> Result<$type, BoxError> {
                let bytes = present(bytes, stringify!($type))?;
                let exact = bytes.try_into().map_err(|_| {
                    let width = size_of::<$type>();
                    format!("{} takes {width} bytes, not {}", stringify!($type), bytes.len())
                })?;
                Ok($type::from_be_bytes(exact))
            }
        }

        impl TextCodec for $serde {
            fn parse_text(&self, text: &str) -> Result<Vec<u8>, BoxError> {
                Ok(text.parse::<$type>()?.to_be_bytes().to_vec())
            }

            fn to_json(&self, bytes: &[u8]) -> Result<Value, BoxError> {
                let number: $type = self.deserialize(Some(bytes))?;
                $json(number)
            }
        }
    };
}

number_serde!(
    I16Serde,
    i16,
    i16,
    "ShortSerializer",
    "Two's complement: in a store's order negative keys come after all others.",
    |n| Ok(Value::from(n))
);
number_serde!(
    I32Serde,
    i32,
    i32,
    "IntegerSerializer",
    "Two's complement: in a store's order negative keys come after all others.",
    |n| Ok(Value::from(n))
);
number_serde!(
    I64Serde,
    i64,
    i64,
    "LongSerializer",
    "Two's complement: in a store's order negative keys come after all others.",
    |n| Ok(Value::from(n))
);
number_serde!(
    F32Serde,
    f32,
    f32,
    "FloatSerializer",
    "IEEE 754: in a store's order negative keys come after all others, in reverse.",
    // The shortest text that reads as the same number; as an `f64` it would show digits it never had.
    |n: f32| Ok(
        serde_json::from_str(&n.to_string()).unwrap_or_else(|_| Value::String(n.to_string()))
    )
);
number_serde!(
    F64Serde,
    f64,
    f64,
    "DoubleSerializer",
    "IEEE 754: in a store's order negative keys come after all others, in reverse.",
    // JSON has no infinity and no NaN.
    |n: f64| Ok(
        serde_json::Number::from_f64(n).map_or_else(|| Value::String(n.to_string()), Value::Number)
    )
);

/// One byte, as Kafka's `BooleanSerializer`: 1 is true, 0 is false.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BoolSerde;

/// Returns the serde of `bool`: one byte, as Kafka's `BooleanSerializer`.
#[must_use]
pub const fn bool() -> BoolSerde {
    BoolSerde
}

impl Serde<bool> for BoolSerde {
    fn serialize(&self, data: &bool, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        out.push(u8::from(*data));
        Ok(true)
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<bool, BoxError> {
        match present(bytes, "bool")? {
            [1] => Ok(true),
            [0] => Ok(false),
            [other] => Err(format!("bool is 0 or 1, not {other}").into()),
            other => Err(format!("bool takes 1 byte, not {}", other.len()).into()),
        }
    }
}

impl TextCodec for BoolSerde {
    fn parse_text(&self, text: &str) -> Result<Vec<u8>, BoxError> {
        Ok(vec![u8::from(text.parse::<bool>()?)])
    }

    fn to_json(&self, bytes: &[u8]) -> Result<Value, BoxError> {
        Ok(Value::Bool(self.deserialize(Some(bytes))?))
    }
}

/// Nothing: always null, as Kafka's `VoidSerializer`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VoidSerde;

/// Returns the serde of `()`: always null, as Kafka's `VoidSerializer`.
#[must_use]
pub const fn void() -> VoidSerde {
    VoidSerde
}

impl Serde<()> for VoidSerde {
    fn serialize(&self, _data: &(), _out: &mut Vec<u8>) -> Result<bool, BoxError> {
        Ok(false)
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<(), BoxError> {
        match bytes {
            None => Ok(()),
            Some(bytes) => Err(format!("void is null, not {} bytes", bytes.len()).into()),
        }
    }

    fn is_null(&self, _data: &()) -> bool {
        true
    }
}

impl TextCodec for VoidSerde {
    fn parse_text(&self, _text: &str) -> Result<Vec<u8>, BoxError> {
        Err("void has no text".into())
    }

    fn to_json(&self, _bytes: &[u8]) -> Result<Value, BoxError> {
        Ok(Value::Null)
    }
}

/// Types that travel as their text.
macro_rules! text_serde {
    ($serde:ident, $function:ident, $type:ident, $what:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct $serde;

        #[doc = concat!("Returns the serde of ", $what, "s: ", $doc)]
        #[must_use]
        pub const fn $function() -> $serde {
            $serde
        }

        impl Serde<$type> for $serde {
            fn serialize(&self, data: &$type, out: &mut Vec<u8>) -> Result<bool, BoxError> {
                use std::io::Write as _;
                write!(out, "{data}")?;
                Ok(true)
            }

            fn deserialize(&self, bytes: Option<&[u8]>) -> Result<$type, BoxError> {
                let text = std::str::from_utf8(present(bytes, $what)?)?;
                Ok(text.parse::<$type>()?)
            }
        }

        impl TextCodec for $serde {
            fn parse_text(&self, text: &str) -> Result<Vec<u8>, BoxError> {
                let mut bytes = Vec::new();
                self.serialize(&text.parse::<$type>()?, &mut bytes)?;
                Ok(bytes)
            }

            fn to_json(&self, bytes: &[u8]) -> Result<Value, BoxError> {
                let data: $type = self.deserialize(Some(bytes))?;
                Ok(Value::String(data.to_string()))
            }
        }
    };
}

text_serde!(
    UuidSerde,
    uuid,
    Uuid,
    "UUID",
    "Hyphenated text, as Kafka's `UUIDSerializer`."
);
text_serde!(
    DecimalSerde,
    decimal,
    Decimal,
    "decimal",
    "Decimal text with its scale (`150.00`), exact; never a float."
);
