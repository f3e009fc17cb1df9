//! Keys of windows, exactly Kafka Streams' bytes: in stores, in changelogs, in topics.
//!
//! ```text
//! window store and its changelog    key ‖ int64 start ‖ int32 sequence
//! session store and its changelog   key ‖ int64 end ‖ int64 start
//! windowed key in a topic           key ‖ int64 start                (time windows)
//!                                   key ‖ int64 end ‖ int64 start    (sessions)
//! local store                       int64 segment ‖ store key
//! ```
//! Numbers are big endian. The first four are `WindowKeySchema` and `SessionKeySchema`; the last one
//! is ours and never leaves the machine: the segment is the time that its entries begin at, a multiple
//! of the store's segment interval, so that entries of a key lie together within it and everything
//! that has expired lies in front of everything that has not.

use super::bytes::{DecodeError, Reader};
use crate::clock::Timestamp;
use crate::window::Window;

/// The bytes of the segment in front of a local key.
pub const SEGMENT_LEN: usize = 8;

const TIME_LEN: usize = 8;
const SEQUENCE_LEN: usize = 4;

/// Appends what follows the key in a window store.
pub fn put_window(out: &mut Vec<u8>, start: Timestamp, sequence: i32) {
    out.extend_from_slice(&start.to_be_bytes());
    out.extend_from_slice(&sequence.to_be_bytes());
}

/// Appends what follows the key in a session store, and in a topic of sessions.
pub fn put_session(out: &mut Vec<u8>, window: Window) {
    out.extend_from_slice(&window.end().to_be_bytes());
    out.extend_from_slice(&window.start().to_be_bytes());
}

/// Splits a window store's key into key, start and sequence.
///
/// # Errors
/// When it is too short to be one.
pub fn split_window(bytes: &[u8]) -> Result<(&[u8], Timestamp, i32), DecodeError> {
    let (key, mut rest) = split("window store key", bytes, TIME_LEN + SEQUENCE_LEN)?;
    Ok((key, rest.i64()?, rest.i32()?))
}

/// Splits a session store's key into key and window.
///
/// # Errors
/// When it is too short to be one, or the session ends before it starts.
pub fn split_session(bytes: &[u8]) -> Result<(&[u8], Window), DecodeError> {
    let (key, mut rest) = split("session key", bytes, 2 * TIME_LEN)?;
    let (end, start) = (rest.i64()?, rest.i64()?);
    if end < start {
        return Err(rest.error(format!(
            "the session ends at {end}, before it starts at {start}"
        )));
    }
    Ok((key, Window::new(start, end)))
}

/// Splits a windowed key of a topic into key and start.
///
/// # Errors
/// When it is too short to be one.
pub fn split_time_windowed(bytes: &[u8]) -> Result<(&[u8], Timestamp), DecodeError> {
    let (key, mut rest) = split("windowed key", bytes, TIME_LEN)?;
    Ok((key, rest.i64()?))
}

fn split<'a>(
    what: &'static str,
    bytes: &'a [u8],
    suffix: usize,
) -> Result<(&'a [u8], Reader<'a>), DecodeError> {
    let mut reader = Reader::new(what, bytes);
    let Some(key) = bytes.len().checked_sub(suffix) else {
        return Err(reader.error(format!("{} bytes, less than {suffix}", bytes.len())));
    };
    let key = reader.bytes(key)?;
    Ok((key, reader))
}

/// Returns the first bytes of the local keys of the segment that holds `time`, in segments of
/// `interval`. Segments of later times have greater bytes, before 1970 too.
#[must_use]
pub fn segment_of(time: Timestamp, interval: i64) -> [u8; SEGMENT_LEN] {
    let interval = interval.max(1);
    let start = time.div_euclid(interval).saturating_mul(interval);
    // The sign is flipped: two's complement would put negative times last.
    (start ^ i64::MIN).to_be_bytes()
}

/// Returns the segment's start and the store key of a local key; `None` when it is no local key.
#[must_use]
pub fn split_local(local: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (segment, key) = local.split_first_chunk::<SEGMENT_LEN>()?;
    Some((i64::from_be_bytes(*segment) ^ i64::MIN, key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn window_key(key: &[u8], start: i64, sequence: i32) -> Vec<u8> {
        let mut bytes = key.to_vec();
        put_window(&mut bytes, start, sequence);
        bytes
    }

    fn session_key(key: &[u8], window: Window) -> Vec<u8> {
        let mut bytes = key.to_vec();
        put_session(&mut bytes, window);
        bytes
    }

    #[test]
    fn golden_bytes_are_kafka_streams_own() {
        assert_eq!(
            window_key(b"k", 0x0102_0304_0506_0708, 9),
            b"k\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\x09"
        );
        assert_eq!(
            session_key(b"k", Window::new(1, 2)),
            b"k\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x01"
        );
        assert_eq!(segment_of(125, 60), *b"\x80\0\0\0\0\0\0\x78");
    }

    #[test]
    fn short_bytes_are_no_keys() {
        assert!(split_window(&[0; 11]).is_err());
        assert!(split_session(&[0; 15]).is_err());
        assert!(split_time_windowed(&[0; 7]).is_err());
        assert_eq!(split_local(&[0; 7]), None);
        let backwards = [&2i64.to_be_bytes()[..], &3i64.to_be_bytes()].concat();
        assert!(
            split_session(&backwards)
                .unwrap_err()
                .problem
                .contains("before it starts")
        );
    }

    proptest! {
        #[test]
        fn window_keys_round_trip(key: Vec<u8>, start: i64, sequence: i32) {
            let bytes = window_key(&key, start, sequence);
            prop_assert_eq!(split_window(&bytes), Ok((&key[..], start, sequence)));
        }

        #[test]
        fn session_keys_round_trip(key: Vec<u8>, a: i64, b: i64) {
            let window = Window::new(a.min(b), a.max(b));
            let bytes = session_key(&key, window);
            prop_assert_eq!(split_session(&bytes), Ok((&key[..], window)));
        }

        #[test]
        fn windows_of_a_key_are_in_order_of_their_start(
            key: Vec<u8>,
            a in (0..i64::MAX, 0..i32::MAX),
            b in (0..i64::MAX, 0..i32::MAX),
        ) {
            let (left, right) = (window_key(&key, a.0, a.1), window_key(&key, b.0, b.1));
            prop_assert_eq!(left.cmp(&right), a.cmp(&b));
        }

        #[test]
        fn sessions_of_a_key_are_in_order_of_their_end(
            key: Vec<u8>,
            a in (0..i64::MAX, 0..i64::MAX),
            b in (0..i64::MAX, 0..i64::MAX),
        ) {
            let window = |(x, y): (i64, i64)| Window::new(x.min(y), x.max(y));
            let (a, b) = (window(a), window(b));
            let (left, right) = (session_key(&key, a), session_key(&key, b));
            prop_assert_eq!(left.cmp(&right), (a.end(), a.start()).cmp(&(b.end(), b.start())));
        }

        #[test]
        fn segments_are_in_order_of_time_and_hold_it(a: i64, b: i64, interval in 1i64..1_000_000) {
            let a = a.max(i64::MIN + interval);
            let b = b.max(i64::MIN + interval);
            let (left, right) = (segment_of(a, interval), segment_of(b, interval));
            prop_assert_eq!(
                left.cmp(&right),
                a.div_euclid(interval).cmp(&b.div_euclid(interval))
            );
            let start = split_local(&left).unwrap().0;
            prop_assert!(start <= a && a - start < interval);
        }
    }
}
