//! The local form of a value that keeps its record's headers (KIP-1271).
//!
//! ```text
//! int32 length of the headers ‖ headers, as in `fields`; nothing when there are none ‖ value
//! ```
//! In the changelog the value is plain and the headers are the record's, as in Kafka Streams, whose local
//! form is another one.

use super::bytes::{DecodeError, Reader};
use super::fields;
use crate::log::Headers;

const WHAT: &str = "value with headers";

/// Appends what stands before the value.
pub fn put_headers(out: &mut Vec<u8>, headers: &Headers) {
    let mut bytes = Vec::new();
    if !headers.is_empty() {
        fields::put_headers(&mut bytes, headers);
    }
    fields::put_bytes(out, &bytes);
}

/// Splits the local form into headers and value.
///
/// # Errors
/// When it is none.
pub fn split(bytes: &[u8]) -> Result<(Headers, &[u8]), DecodeError> {
    let mut reader = Reader::new(WHAT, bytes);
    let Some(encoded) = fields::some_bytes(&mut reader)? else {
        return Err(reader.error("the headers are null"));
    };
    let headers = if encoded.is_empty() {
        Headers::new()
    } else {
        let mut reader = Reader::new(WHAT, encoded);
        let headers = fields::headers(&mut reader)?;
        reader.end()?;
        headers
    };
    let value = reader.remaining();
    Ok((headers, reader.bytes(value)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(headers: &Headers, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_headers(&mut bytes, headers);
        bytes.extend_from_slice(value);
        bytes
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(encode(&Headers::new(), b"v"), b"\0\0\0\0v");
        let mut headers = Headers::new().with("h", "x");
        headers.push("n", None);
        let bytes = b"\0\0\0\x17\0\0\0\x02\0\0\0\x01h\0\0\0\x01x\0\0\0\x01n\xff\xff\xff\xffv";
        assert_eq!(encode(&headers, b"v"), bytes);
    }

    #[test]
    fn bytes_that_end_early_or_late_are_no_value() {
        let headers = Headers::new().with("h", "x");
        let bytes = encode(&headers, b"");
        for len in 0..bytes.len() {
            assert!(split(&bytes[..len]).is_err(), "{len}");
        }
        let mut longer = bytes.clone();
        longer[3] += 1;
        longer.push(0);
        assert!(split(&longer).is_err());
    }

    proptest! {
        #[test]
        fn headers_and_values_round_trip(
            pairs: Vec<(String, Option<Vec<u8>>)>,
            value: Vec<u8>,
        ) {
            let mut headers = Headers::new();
            for (name, value) in pairs {
                headers.push(name, value);
            }
            let bytes = encode(&headers, &value);
            prop_assert_eq!(split(&bytes), Ok((headers, &value[..])));
        }
    }
}
