//! Versions of a key in a versioned store, on this machine; changelogs have plain keys, values and
//! record timestamps, as Kafka Streams' (KIP-889).
//!
//! ```text
//! local key      int32 length ‖ key ‖ int64 timestamp (sign flipped)
//! local value    byte 1 ‖ value, or byte 0 for a delete     (behind the timestamp of `value`)
//! ```
//! The length in front keeps the versions of a key together, whatever its bytes: Kafka Streams has
//! them in one value per key and segment, which a write reads and writes as a whole.

use super::bytes::{DecodeError, Reader};
use crate::clock::Timestamp;

const DELETED: u8 = 0;
const PRESENT: u8 = 1;
const LEN: usize = 4;
const TIME_LEN: usize = 8;

/// Appends the local key of a version.
pub fn put_local(out: &mut Vec<u8>, key: &[u8], timestamp: Timestamp) {
    put_prefix(out, key);
    put_time(out, timestamp);
}

/// Appends what the local keys of all versions of `key` begin with.
pub fn put_prefix(out: &mut Vec<u8>, key: &[u8]) {
    out.extend_from_slice(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(key);
}

/// Appends a version's time, in the order of times.
pub fn put_time(out: &mut Vec<u8>, timestamp: Timestamp) {
    out.extend_from_slice(&(timestamp ^ i64::MIN).to_be_bytes());
}

/// Splits a local key into key and timestamp.
///
/// # Errors
/// When it is none.
pub fn split_local(bytes: &[u8]) -> Result<(&[u8], Timestamp), DecodeError> {
    let mut reader = Reader::new("key of a version", bytes);
    let len = reader.i32()?;
    let Some(key) = bytes.len().checked_sub(LEN + TIME_LEN) else {
        return Err(reader.error(format!("{} bytes are too few", bytes.len())));
    };
    if usize::try_from(len) != Ok(key) {
        return Err(reader.error(format!("a key of {len} bytes in {} bytes", bytes.len())));
    }
    Ok((reader.bytes(key)?, reader.i64()? ^ i64::MIN))
}

/// Appends the byte before a value; `false` for a delete, which has no more.
pub fn put_presence(out: &mut Vec<u8>, present: bool) {
    out.push(if present { PRESENT } else { DELETED });
}

/// Returns a version's value, `None` for a delete.
///
/// # Errors
/// When the bytes are none.
pub fn split_value(bytes: &[u8]) -> Result<Option<&[u8]>, DecodeError> {
    let mut reader = Reader::new("value of a version", bytes);
    match reader.u8()? {
        PRESENT => Ok(Some(reader.bytes(reader.remaining())?)),
        DELETED if reader.remaining() == 0 => Ok(None),
        other => Err(reader.error(format!("presence {other} is not known"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn local(key: &[u8], timestamp: i64) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_local(&mut bytes, key, timestamp);
        bytes
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(local(b"k", 1), b"\0\0\0\x01k\x80\0\0\0\0\0\0\x01");
        assert_eq!(split_value(b"\x01v"), Ok(Some(&b"v"[..])));
        assert_eq!(split_value(b"\0"), Ok(None));
        for bytes in [&b""[..], b"\x02", b"\0v"] {
            assert!(split_value(bytes).is_err(), "{bytes:?}");
        }
        assert!(split_local(b"\0\0\0\x02k\x80\0\0\0\0\0\0\x01").is_err());
        assert!(split_local(b"\0\0\0\0").is_err());
    }

    proptest! {
        #[test]
        fn versions_of_a_key_lie_together_in_order_of_time(
            a in (proptest::collection::vec(0u8..3, 0..4), any::<i64>()),
            b in (proptest::collection::vec(0u8..3, 0..4), any::<i64>()),
        ) {
            let (left, right) = (local(&a.0, a.1), local(&b.0, b.1));
            let order = |(key, time): &(Vec<u8>, i64)| (key.len(), key.clone(), *time);
            prop_assert_eq!(left.cmp(&right), order(&a).cmp(&order(&b)));
            prop_assert_eq!(split_local(&left), Ok((&a.0[..], a.1)));
        }
    }
}
