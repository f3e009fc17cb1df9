//! The local form of a key-value store's values: `int64 BE timestamp ‖ value`.
//!
//! Kafka Streams' timestamped value (KIP-258). In the changelog the value is plain and the
//! timestamp is the record's.

use crate::clock::Timestamp;

/// The bytes before the value.
pub const TIMESTAMP_LEN: usize = 8;

/// Appends the local form of `value` to `out`.
pub fn encode(timestamp: Timestamp, value: &[u8], out: &mut Vec<u8>) {
    out.reserve(TIMESTAMP_LEN + value.len());
    out.extend_from_slice(&timestamp.to_be_bytes());
    out.extend_from_slice(value);
}

/// Splits the local form into timestamp and value; `None` when it is too short to be one.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (timestamp, value) = bytes.split_first_chunk::<TIMESTAMP_LEN>()?;
    Some((Timestamp::from_be_bytes(*timestamp), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let mut out = Vec::new();
        encode(0x0102_0304_0506_0708, b"v", &mut out);
        assert_eq!(out, b"\x01\x02\x03\x04\x05\x06\x07\x08v");
        assert_eq!(decode(&out), Some((0x0102_0304_0506_0708, &b"v"[..])));
        out.clear();
        encode(-1, b"", &mut out);
        assert_eq!(out, [0xff; 8]);
        assert_eq!(decode(&out), Some((-1, &b""[..])));
    }

    #[test]
    fn short_bytes_are_no_value() {
        assert_eq!(decode(b"1234567"), None);
        assert_eq!(decode(b""), None);
    }
}
