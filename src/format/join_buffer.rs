//! What a left or outer stream-stream join holds back, exactly Kafka Streams' bytes: in its store and
//! in the changelog.
//!
//! ```text
//! key      int64 timestamp ‖ byte side ‖ key of the record
//! value    byte 1 ‖ int32 n ‖ n × (int32 length ‖ byte side ‖ value of a record)
//! ```
//! Side is 1 for a record of the left stream, 0 for one of the right. Numbers are big endian. The key
//! is `TimestampedKeyAndJoinSide`; the value a `ListSerde` (its byte says that entries have lengths)
//! of `LeftOrRightValue`, for records of one key and timestamp.

use super::bytes::{DecodeError, Reader};
use crate::clock::Timestamp;

const LEFT: u8 = 1;
const RIGHT: u8 = 0;
const ENTRIES_HAVE_LENGTHS: u8 = 1;
const WHAT: &str = "records of a join without a partner";

/// Appends what stands before the record's key.
pub fn put_prefix(out: &mut Vec<u8>, timestamp: Timestamp, left: bool) {
    put_time(out, timestamp);
    out.push(side(left));
}

/// Appends the first bytes of all keys of a timestamp.
pub fn put_time(out: &mut Vec<u8>, timestamp: Timestamp) {
    out.extend_from_slice(&timestamp.to_be_bytes());
}

/// Splits a key into timestamp, whether it is the left stream's, and the record's key.
///
/// # Errors
/// When it is too short, or of neither side.
pub fn split_key(bytes: &[u8]) -> Result<(Timestamp, bool, &[u8]), DecodeError> {
    let mut reader = Reader::new("key of a join's record without a partner", bytes);
    let timestamp = reader.i64()?;
    let left = read_side(&mut reader)?;
    let key = reader.bytes(reader.remaining())?;
    Ok((timestamp, left, key))
}

/// Appends the values of records of one side.
pub fn encode<'a>(values: impl ExactSizeIterator<Item = (bool, &'a [u8])>, out: &mut Vec<u8>) {
    out.push(ENTRIES_HAVE_LENGTHS);
    put_len(out, values.len());
    for (left, value) in values {
        put_len(out, value.len().saturating_add(1));
        out.push(side(left));
        out.extend_from_slice(value);
    }
}

/// Reads the values of records, with whether they are the left stream's.
///
/// # Errors
/// When the bytes are none.
pub fn decode(bytes: &[u8]) -> Result<Vec<(bool, &[u8])>, DecodeError> {
    let mut reader = Reader::new(WHAT, bytes);
    let strategy = reader.u8()?;
    if strategy != ENTRIES_HAVE_LENGTHS {
        return Err(reader.error(format!("serialization strategy {strategy} is not known")));
    }
    let count = reader.i32()?;
    let mut values = Vec::new();
    for _ in 0..count {
        let len = reader.i32()?;
        let value = usize::try_from(len)
            .ok()
            .and_then(|len| len.checked_sub(1))
            .ok_or_else(|| reader.error(format!("a value of {len} bytes")))?;
        let left = read_side(&mut reader)?;
        values.push((left, reader.bytes(value)?));
    }
    if reader.remaining() > 0 {
        return Err(reader.error(format!("{} bytes too many", reader.remaining())));
    }
    Ok(values)
}

const fn side(left: bool) -> u8 {
    if left { LEFT } else { RIGHT }
}

fn read_side(reader: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match reader.u8()? {
        LEFT => Ok(true),
        RIGHT => Ok(false),
        other => Err(reader.error(format!("side {other} is not known"))),
    }
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&i32::try_from(len).unwrap_or(i32::MAX).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(values: &[(bool, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let values = values.iter().map(|(left, value)| (*left, &value[..]));
        encode(values, &mut bytes);
        bytes
    }

    fn key(timestamp: i64, left: bool, key: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_prefix(&mut bytes, timestamp, left);
        bytes.extend_from_slice(key);
        bytes
    }

    #[test]
    fn golden_bytes_are_kafka_streams_own() {
        // `Serdes.ListSerde(ArrayList.class, Serdes.ByteArray())` of [01 78] and [00 79 7a].
        let values = [(true, b"x".to_vec()), (false, b"yz".to_vec())];
        assert_eq!(
            encoded(&values),
            b"\x01\0\0\0\x02\0\0\0\x02\x01x\0\0\0\x03\0yz"
        );
        assert_eq!(
            key(0x0102_0304_0506_0708, true, b"k"),
            b"\x01\x02\x03\x04\x05\x06\x07\x08\x01k"
        );
    }

    #[test]
    fn the_right_side_of_a_time_comes_first() {
        assert!(key(5, false, b"z") < key(5, true, b"a"));
        assert!(key(5, true, b"z") < key(6, false, b"a"));
    }

    #[test]
    fn what_is_cut_or_unknown_is_no_value() {
        let whole = encoded(&[(true, b"x".to_vec())]);
        for len in 0..whole.len() {
            assert!(decode(&whole[..len]).is_err(), "{len} bytes");
        }
        for bytes in [
            &b"\0\0\0\0\0"[..],
            b"\x01\0\0\0\x01\0\0\0\x01\x02",
            b"\x01\0\0\0\x01\0\0\0\0",
            b"\x01\0\0\0\0x",
        ] {
            assert!(decode(bytes).is_err(), "{bytes:?}");
        }
        assert!(split_key(&[0; 8]).is_err());
    }

    proptest! {
        #[test]
        fn keys_and_values_round_trip(
            timestamp: i64,
            left: bool,
            record_key: Vec<u8>,
            values: Vec<(bool, Vec<u8>)>,
        ) {
            let bytes = key(timestamp, left, &record_key);
            prop_assert_eq!(split_key(&bytes), Ok((timestamp, left, &record_key[..])));
            let bytes = encoded(&values);
            let values: Vec<_> = values.iter().map(|(left, value)| (*left, &value[..])).collect();
            prop_assert_eq!(decode(&bytes), Ok(values));
        }
    }
}
