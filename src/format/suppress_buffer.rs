//! What a suppression holds back, as its store and changelog have it.
//!
//! ```text
//! key      int64 time (sign flipped) ‖ key of the table
//! value    byte 1 ‖ int64 timestamp ‖ byte flags ‖ [int32 length ‖ new] ‖ [int32 length ‖ prior]
//!          ‖ headers, as in [`fields`](super::fields)
//! ```
//! Flag 1: there is a new value; flag 2: there is a prior one, what readers downstream know. The headers
//! are the record's. Ours alone: Kafka Streams' buffer is a topic-internal format as well.

use super::bytes::{DecodeError, Reader};
use super::fields::{headers, put_bytes, put_headers, some_bytes};
use crate::clock::Timestamp;
use crate::log::Headers;

const VERSION: u8 = 1;
const NEW: u8 = 1;
const PRIOR: u8 = 2;
const WHAT: &str = "suppressed update";

/// A suppressed update, its values still bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update<'a> {
    /// The record's timestamp.
    pub timestamp: Timestamp,
    /// The value to be forwarded; `None` deletes.
    pub new: Option<&'a [u8]>,
    /// The value before all updates that are held back.
    pub prior: Option<&'a [u8]>,
    /// The record's headers.
    pub headers: Headers,
}

/// Appends what stands before the table's key.
pub fn put_time(out: &mut Vec<u8>, time: Timestamp) {
    out.extend_from_slice(&(time ^ i64::MIN).to_be_bytes());
}

/// Splits a key into time and table key.
///
/// # Errors
/// When it is too short.
pub fn split_key(bytes: &[u8]) -> Result<(Timestamp, &[u8]), DecodeError> {
    let mut reader = Reader::new("suppressed key", bytes);
    let time = reader.i64()? ^ i64::MIN;
    let key = reader.bytes(reader.remaining())?;
    Ok((time, key))
}

/// Appends an update's bytes.
pub fn encode(update: &Update<'_>, out: &mut Vec<u8>) {
    out.push(VERSION);
    out.extend_from_slice(&update.timestamp.to_be_bytes());
    let flag = |there: bool, flag: u8| if there { flag } else { 0 };
    out.push(flag(update.new.is_some(), NEW) | flag(update.prior.is_some(), PRIOR));
    for value in [update.new, update.prior].into_iter().flatten() {
        put_bytes(out, value);
    }
    put_headers(out, &update.headers);
}

/// Reads an update.
///
/// # Errors
/// When the bytes are none.
pub fn decode(bytes: &[u8]) -> Result<Update<'_>, DecodeError> {
    let mut reader = Reader::new(WHAT, bytes);
    let version = reader.u8()?;
    if version != VERSION {
        return Err(reader.error(format!("version {version} is not known")));
    }
    let timestamp = reader.i64()?;
    let flags = reader.u8()?;
    let new = if flags & NEW == 0 {
        None
    } else {
        some_bytes(&mut reader)?
    };
    let prior = if flags & PRIOR == 0 {
        None
    } else {
        some_bytes(&mut reader)?
    };
    let headers = headers(&mut reader)?;
    reader.end()?;
    Ok(Update {
        timestamp,
        new,
        prior,
        headers,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_bytes() {
        let mut out = Vec::new();
        let update = Update {
            timestamp: 1,
            new: Some(b"n"),
            prior: None,
            headers: Headers::new().with("h", "v"),
        };
        encode(&update, &mut out);
        assert_eq!(
            out,
            b"\x01\0\0\0\0\0\0\0\x01\x01\0\0\0\x01n\0\0\0\x01\0\0\0\x01h\0\0\0\x01v"
        );
        assert!(decode(&out[1..]).is_err());
        assert!(decode(&[&out[..], b"x"].concat()).is_err());
    }

    proptest! {
        #[test]
        fn updates_round_trip(
            timestamp: i64,
            new: Option<Vec<u8>>,
            prior: Option<Vec<u8>>,
            header in proptest::option::of((".*", proptest::option::of(any::<Vec<u8>>()))),
        ) {
            let mut headers = Headers::new();
            if let Some((name, value)) = header {
                headers.push(name, value);
            }
            let update = Update {
                timestamp,
                new: new.as_deref(),
                prior: prior.as_deref(),
                headers,
            };
            let mut out = Vec::new();
            encode(&update, &mut out);
            prop_assert_eq!(decode(&out), Ok(update));
        }

        #[test]
        fn keys_round_trip_and_are_in_order_of_time(a: (i64, Vec<u8>), b: (i64, Vec<u8>)) {
            let key = |(time, key): &(i64, Vec<u8>)| {
                let mut out = Vec::new();
                put_time(&mut out, *time);
                out.extend_from_slice(key);
                out
            };
            let (left, right) = (key(&a), key(&b));
            prop_assert_eq!(split_key(&left), Ok((a.0, &a.1[..])));
            prop_assert_eq!(left.cmp(&right), a.cmp(&b));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _decoded = decode(&bytes);
        }
    }
}
