//! Fields that say how long they are: `int32 length ‖ bytes`, −1 for null; headers, made of such.
//!
//! ```text
//! headers  int32 n ‖ n × (int32 length ‖ name (UTF-8) ‖ int32 length or −1 ‖ value)
//! ```

use super::bytes::{DecodeError, Reader};
use crate::log::Headers;

const ABSENT: i32 = -1;

/// Reads a field.
pub(super) fn some_bytes<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, DecodeError> {
    match reader.i32()? {
        ABSENT => Ok(None),
        len => match usize::try_from(len) {
            Ok(len) => reader.bytes(len).map(Some),
            Err(_) => Err(reader.error(format!("a field of {len} bytes"))),
        },
    }
}

/// Appends a field.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends a field that may be null.
pub(super) fn put_some_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => put_bytes(out, bytes),
        None => out.extend_from_slice(&ABSENT.to_be_bytes()),
    }
}

/// Appends headers.
pub(super) fn put_headers(out: &mut Vec<u8>, headers: &Headers) {
    put_len(out, headers.len());
    for (name, value) in headers.iter() {
        put_bytes(out, name.as_bytes());
        put_some_bytes(out, value);
    }
}

/// Reads headers.
pub(super) fn headers(reader: &mut Reader<'_>) -> Result<Headers, DecodeError> {
    let mut headers = Headers::new();
    for _ in 0..reader.i32()? {
        let name = some_bytes(reader)?.unwrap_or_default().to_vec();
        let name =
            String::from_utf8(name).map_err(|_| reader.error("a header's name is not UTF-8"))?;
        headers.push(name, some_bytes(reader)?.map(<[u8]>::to_vec));
    }
    Ok(headers)
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    // A record has 16 MiB at most.
    out.extend_from_slice(&i32::try_from(len).unwrap_or(i32::MAX).to_be_bytes());
}
