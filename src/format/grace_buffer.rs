//! Keys of records that wait for the grace period of a join with a table: Kafka Streams'
//! `TimeFirstWindowKeySchema`.
//!
//! ```text
//! key      byte 0 ‖ int64 timestamp ‖ key of the record ‖ int32 sequence
//! value    as of a suppressed update, without a prior value: ours alone
//! ```

use super::bytes::{DecodeError, Reader};
use crate::clock::Timestamp;

const TIME_FIRST: u8 = 0;
const SEQUENCE_LEN: usize = 4;

/// Appends what stands before the record's key.
pub fn put_time(out: &mut Vec<u8>, timestamp: Timestamp) {
    out.push(TIME_FIRST);
    out.extend_from_slice(&timestamp.to_be_bytes());
}

/// Appends what stands behind the record's key.
pub fn put_sequence(out: &mut Vec<u8>, sequence: i32) {
    out.extend_from_slice(&sequence.to_be_bytes());
}

/// Splits a key into timestamp, the record's key and sequence number.
///
/// # Errors
/// When it is none.
pub fn split(bytes: &[u8]) -> Result<(Timestamp, &[u8], i32), DecodeError> {
    let mut reader = Reader::new("key of a record that waits", bytes);
    let prefix = reader.u8()?;
    if prefix != TIME_FIRST {
        return Err(reader.error(format!("prefix {prefix} is not known")));
    }
    let timestamp = reader.i64()?;
    let Some(key) = reader.remaining().checked_sub(SEQUENCE_LEN) else {
        return Err(reader.error(format!("{} bytes are too few", bytes.len())));
    };
    Ok((timestamp, reader.bytes(key)?, reader.i32()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(timestamp: i64, key: &[u8], sequence: i32) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_time(&mut bytes, timestamp);
        bytes.extend_from_slice(key);
        put_sequence(&mut bytes, sequence);
        bytes
    }

    #[test]
    fn golden_bytes_are_kafka_streams_own() {
        assert_eq!(
            encode(0x0102_0304_0506_0708, b"k", 9),
            b"\0\x01\x02\x03\x04\x05\x06\x07\x08k\0\0\0\x09"
        );
        assert!(split(&[0; 12]).is_err());
        assert!(split(&[1; 20]).is_err());
    }

    proptest! {
        #[test]
        fn keys_round_trip(timestamp: i64, key: Vec<u8>, sequence: i32) {
            let bytes = encode(timestamp, &key, sequence);
            prop_assert_eq!(split(&bytes), Ok((timestamp, &key[..], sequence)));
        }
    }
}
