//! An update of a table in a repartition topic: Kafka Streams' `ChangedSerializer` since KIP-904.
//!
//! ```text
//! new ‖ 0x01                                   the key's value is new
//! old ‖ 0x00                                   the key's value is gone
//! zig-zag varint length of new ‖ new ‖ old ‖ 0x02   it was replaced
//! ```

/// The two sides of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sides<'a> {
    /// From now on.
    pub new: Option<&'a [u8]>,
    /// Before.
    pub old: Option<&'a [u8]>,
}

const OLD: u8 = 0;
const NEW: u8 = 1;
const BOTH: u8 = 2;

/// The bytes are no change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are no change of a table")]
pub struct NotAChange;

/// Appends a change to `out`; returns whether there is one (`false`: neither side).
pub fn encode(new: Option<&[u8]>, old: Option<&[u8]>, out: &mut Vec<u8>) -> bool {
    match (new, old) {
        (None, None) => return false,
        (Some(new), None) => {
            out.extend_from_slice(new);
            out.push(NEW);
        }
        (None, Some(old)) => {
            out.extend_from_slice(old);
            out.push(OLD);
        }
        (Some(new), Some(old)) => {
            write_varint((new.len() as u64) << 1, out);
            out.extend_from_slice(new);
            out.extend_from_slice(old);
            out.push(BOTH);
        }
    }
    true
}

/// Reads a change.
///
/// # Errors
/// [`NotAChange`].
pub fn decode(bytes: &[u8]) -> Result<Sides<'_>, NotAChange> {
    let (kind, rest) = bytes.split_last().ok_or(NotAChange)?;
    match *kind {
        OLD => Ok(Sides {
            new: None,
            old: Some(rest),
        }),
        NEW => Ok(Sides {
            new: Some(rest),
            old: None,
        }),
        BOTH => {
            let (length, rest) = read_varint(rest).ok_or(NotAChange)?;
            let length = usize::try_from(length >> 1).map_err(|_| NotAChange)?;
            let (new, old) = rest.split_at_checked(length).ok_or(NotAChange)?;
            Ok(Sides {
                new: Some(new),
                old: Some(old),
            })
        }
        _ => Err(NotAChange),
    }
}

fn write_varint(mut number: u64, out: &mut Vec<u8>) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
}

fn read_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0;
    for (index, byte) in bytes.iter().enumerate().take(9) {
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((number, bytes.get(index + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_change_has_the_bytes_of_kip_904() {
        let bytes = |new: Option<&[u8]>, old: Option<&[u8]>| {
            let mut out = Vec::new();
            encode(new, old, &mut out).then_some(out)
        };
        assert_eq!(bytes(Some(b"ab"), None).unwrap(), b"ab\x01");
        assert_eq!(bytes(None, Some(b"c")).unwrap(), b"c\x00");
        assert_eq!(bytes(Some(b"ab"), Some(b"c")).unwrap(), b"\x04abc\x02");
        assert_eq!(bytes(None, None), None);
        let long = [7; 100];
        let both = bytes(Some(&long), Some(b"c")).unwrap();
        assert_eq!(both.get(..2).unwrap(), [0xc8, 0x01], "two bytes of length");
        let sides = decode(&both).unwrap();
        assert_eq!((sides.new, sides.old), (Some(&long[..]), Some(&b"c"[..])));
    }

    #[test]
    fn bytes_that_are_no_change_are_refused() {
        for bytes in [&b""[..], b"\x03", b"\x08ab\x02", b"\xff\xff\x02"] {
            assert_eq!(decode(bytes), Err(NotAChange), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn changes_round_trip(new: Option<Vec<u8>>, old: Option<Vec<u8>>) {
            let sides = Sides { new: new.as_deref(), old: old.as_deref() };
            let mut bytes = Vec::new();
            let any = encode(sides.new, sides.old, &mut bytes);
            prop_assert_eq!(any, new.is_some() || old.is_some());
            if any {
                prop_assert_eq!(decode(&bytes), Ok(sides));
            }
        }

        #[test]
        fn what_decodes_is_encoded_to_the_same_sides(bytes: Vec<u8>) {
            if let Ok(sides) = decode(&bytes) {
                let mut again = Vec::new();
                prop_assert!(encode(sides.new, sides.old, &mut again));
                prop_assert_eq!(decode(&again), Ok(sides));
            }
        }
    }
}
