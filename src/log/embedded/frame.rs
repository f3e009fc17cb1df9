//! Frames of the journal: a torn one is told from a whole one.
//!
//! ```text
//! file   "MSJOURN" ‖ byte version 1 ‖ frames
//! frame  "MSJf" ‖ uint32 BE length ‖ uint32 BE CRC-32 (IEEE) of the payload ‖ payload
//! ```

/// What a journal starts with: the last byte is the version.
pub(super) const FILE_HEADER: [u8; 8] = *b"MSJOURN\x01";
const MAGIC: [u8; 4] = *b"MSJf";
/// The bytes before a frame's payload.
pub(super) const FRAME_HEADER_LEN: usize = 12;
const _: () = assert!(FRAME_HEADER_LEN == MAGIC.len() + 4 + 4);

/// Appends a frame whose payload `write` appends.
pub(super) fn put(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEADER_LEN]);
    write(out);
    let Some((header, payload)) = out
        .get_mut(start..)
        .and_then(|frame| frame.split_first_chunk_mut::<FRAME_HEADER_LEN>())
    else {
        return;
    };
    let length = u32::try_from(payload.len());
    assert!(length.is_ok(), "a frame is far below 4 GiB");
    let length = length.unwrap_or(u32::MAX).to_be_bytes();
    let fields = MAGIC
        .iter()
        .chain(&length)
        .copied()
        .chain(crc32(payload).to_be_bytes());
    for (byte, field) in header.iter_mut().zip(fields) {
        *byte = field;
    }
}

/// Takes a whole, undamaged frame off the front: its payload, and the rest.
pub(super) fn take(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = bytes.strip_prefix(&MAGIC)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (payload, rest) = rest.split_at_checked(length)?;
    (crc32(payload) == u32::from_be_bytes(*crc)).then_some((payload, rest))
}

/// Returns whether a whole frame begins anywhere in `bytes`.
pub(super) fn any_whole(bytes: &[u8]) -> bool {
    let starts = bytes
        .windows(MAGIC.len())
        .enumerate()
        .filter(|(_, window)| *window == MAGIC);
    starts
        .filter_map(|(at, _)| bytes.get(at..))
        .any(|rest| take(rest).is_some())
}

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut n = 0_u32;
    while n < 256 {
        let (mut crc, mut bit) = (n, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 {
                0xedb8_8320 ^ (crc >> 1)
            } else {
                crc >> 1
            };
            bit += 1;
        }
        table[n as usize] = crc;
        n += 1;
    }
    table
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        let [low, ..] = crc.to_le_bytes();
        // A byte is always an index of a table of 256.
        TABLE
            .get(usize::from(low ^ byte))
            .copied()
            .unwrap_or_default()
            ^ (crc >> 8)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32_is_the_ieee_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_frame_is_taken_whole_or_not_at_all() {
        let mut bytes = Vec::new();
        put(&mut bytes, |out| out.extend_from_slice(b"payload"));
        put(&mut bytes, |_| {});
        let (payload, rest) = take(&bytes).unwrap();
        assert_eq!(payload, b"payload");
        assert_eq!(take(rest), Some((&b""[..], &b""[..])));
        let first = FRAME_HEADER_LEN + payload.len();
        for cut in 0..first {
            assert_eq!(take(&bytes[..cut]), None, "cut at {cut}");
        }
        for at in 0..first {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            assert_eq!(take(&damaged), None, "damaged at {at}");
            assert!(any_whole(&damaged[1..]), "the second frame is whole");
        }
    }
}
