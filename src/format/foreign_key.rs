//! Internals of the foreign-key join: what its two topics and its store hold.
//!
//! ```text
//! subscription   byte version 2 ‖ byte instruction ‖ hash ‖ int32 BE partition ‖ key
//! response       byte version 1 ‖ hash ‖ byte 1 ‖ right value,  or  … ‖ byte 0,  or  … ‖ byte 2
//! hash           byte 1 ‖ 16 bytes BE,  or  byte 0 where there is no left value
//! store key      int32 BE length of the foreign key ‖ foreign key ‖ key
//! store value    hash ‖ int32 BE partition
//! ```
//! The partition is that of the left task, which answers go back to: of its key's bytes it need not be.
//! Version 1 of a subscription and of a store value had none.
//! A response that ends with 2 has no right value, as one with 0, and is news only where there is a result.
//! Not Kafka Streams' bytes: both topics are drained when an application moves.

const SUBSCRIPTION_VERSION: u8 = 2;
const RESPONSE_VERSION: u8 = 1;

/// The bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are no {0} of a foreign-key join")]
pub struct Malformed(&'static str);

const NOT_A_SUBSCRIPTION: Malformed = Malformed("subscription");
const NOT_A_RESPONSE: Malformed = Malformed("response");
const NOT_A_SUBSCRIBER: Malformed = Malformed("subscriber");
const NOT_A_HASH: Malformed = Malformed("hash");

/// What a subscription asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instruction {
    /// Ends the subscription; another one follows (`DELETE_KEY_NO_PROPAGATE`).
    DeleteSilently,
    /// Ends the subscription and answers with nothing (`DELETE_KEY_AND_PROPAGATE`).
    Delete,
    /// Subscribes, and answers also when there is no right value
    /// (`PROPAGATE_NULL_IF_NO_FK_VAL_AVAILABLE`).
    Answer,
    /// Subscribes; that there is no right value is news only where there still is a result
    /// (`PROPAGATE_ONLY_IF_FK_VAL_AVAILABLE`, which does not answer at all then).
    AnswerIfThere,
}

impl Instruction {
    const ALL: [Self; 4] = [
        Self::DeleteSilently,
        Self::Delete,
        Self::Answer,
        Self::AnswerIfThere,
    ];

    const fn code(self) -> u8 {
        match self {
            Self::DeleteSilently => 0,
            Self::Delete => 1,
            Self::Answer => 2,
            Self::AnswerIfThere => 3,
        }
    }
}

/// A left value's hash.
pub type ValueHash = u128;

/// Hashes a left value's bytes: FNV-1a with 128 bits, so that two values of one key never meet.
#[must_use]
pub fn hash_of(bytes: &[u8]) -> ValueHash {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(OFFSET, |hash, byte| {
        (hash ^ u128::from(*byte)).wrapping_mul(PRIME)
    })
}

/// What an answer must bring back, and where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscriber {
    /// Of the left value.
    pub hash: Option<ValueHash>,
    /// The left task's partition; `None` where version 1 was written: that of the key.
    pub partition: Option<i32>,
}

/// A subscription, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscriptionParts<'a> {
    /// What it asks for.
    pub instruction: Instruction,
    /// Who asks.
    pub subscriber: Subscriber,
    /// The left key's bytes.
    pub key: &'a [u8],
}

/// A response, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseParts<'a> {
    /// Of the left value that asked.
    pub hash: Option<ValueHash>,
    /// The right value's bytes.
    pub value: Option<&'a [u8]>,
    /// Whether the absence of a value is news only where there is a result.
    pub quiet: bool,
}

/// Appends a subscription to `out`.
pub fn encode_subscription(parts: SubscriptionParts<'_>, out: &mut Vec<u8>) {
    // Without a partition it is what it was before there were any.
    let version = if parts.subscriber.partition.is_some() {
        SUBSCRIPTION_VERSION
    } else {
        1
    };
    out.extend([version, parts.instruction.code()]);
    encode_subscriber(parts.subscriber, out);
    out.extend_from_slice(parts.key);
}

/// Reads a subscription.
///
/// # Errors
/// [`Malformed`] when the bytes are none.
pub fn decode_subscription(bytes: &[u8]) -> Result<SubscriptionParts<'_>, Malformed> {
    let (version, code, rest) = match bytes {
        [version @ 1..=SUBSCRIPTION_VERSION, code, rest @ ..] => (*version, *code, rest),
        _ => return Err(NOT_A_SUBSCRIPTION),
    };
    let instruction = Instruction::ALL.into_iter().find(|one| one.code() == code);
    let (hash, rest) = split_hash(rest)?;
    let (partition, key) = if version == 1 {
        (None, rest)
    } else {
        let (partition, key) = rest.split_first_chunk().ok_or(NOT_A_SUBSCRIPTION)?;
        (Some(i32::from_be_bytes(*partition)), key)
    };
    Ok(SubscriptionParts {
        instruction: instruction.ok_or(NOT_A_SUBSCRIPTION)?,
        subscriber: Subscriber { hash, partition },
        key,
    })
}

/// Appends what the store keeps of a subscription to `out`.
pub fn encode_subscriber(subscriber: Subscriber, out: &mut Vec<u8>) {
    encode_hash(subscriber.hash, out);
    out.extend(subscriber.partition.into_iter().flat_map(i32::to_be_bytes));
}

/// Reads what the store keeps of a subscription.
///
/// # Errors
/// [`Malformed`] when the bytes are none.
pub fn decode_subscriber(bytes: &[u8]) -> Result<Subscriber, Malformed> {
    let (hash, rest) = split_hash(bytes)?;
    let partition = match rest {
        [] => None,
        rest => {
            let rest: [u8; 4] = rest.try_into().map_err(|_| NOT_A_SUBSCRIBER)?;
            Some(i32::from_be_bytes(rest))
        }
    };
    Ok(Subscriber { hash, partition })
}

/// Appends a response to `out`.
pub fn encode_response(parts: ResponseParts<'_>, out: &mut Vec<u8>) {
    out.push(RESPONSE_VERSION);
    encode_hash(parts.hash, out);
    out.push(match (parts.value, parts.quiet) {
        (Some(_), _) => 1,
        (None, false) => 0,
        (None, true) => 2,
    });
    out.extend_from_slice(parts.value.unwrap_or_default());
}

/// Reads a response.
///
/// # Errors
/// [`Malformed`] when the bytes are none.
pub fn decode_response(bytes: &[u8]) -> Result<ResponseParts<'_>, Malformed> {
    let [RESPONSE_VERSION, rest @ ..] = bytes else {
        return Err(NOT_A_RESPONSE);
    };
    let (hash, rest) = split_hash(rest)?;
    let (value, quiet) = match rest {
        [0] => (None, false),
        [1, value @ ..] => (Some(value), false),
        [2] => (None, true),
        _ => return Err(NOT_A_RESPONSE),
    };
    Ok(ResponseParts { hash, value, quiet })
}

fn encode_hash(hash: Option<ValueHash>, out: &mut Vec<u8>) {
    match hash {
        Some(hash) => {
            out.push(1);
            out.extend(hash.to_be_bytes());
        }
        None => out.push(0),
    }
}

fn split_hash(bytes: &[u8]) -> Result<(Option<ValueHash>, &[u8]), Malformed> {
    match bytes {
        [0, rest @ ..] => Ok((None, rest)),
        [1, rest @ ..] => {
            let (hash, rest) = rest.split_first_chunk().ok_or(NOT_A_HASH)?;
            Ok((Some(ValueHash::from_be_bytes(*hash)), rest))
        }
        _ => Err(NOT_A_HASH),
    }
}

/// Returns what the store keys of all subscriptions to a foreign key begin with; `None` for one of
/// more than 2 GiB.
#[must_use]
pub fn store_prefix(foreign_key: &[u8]) -> Option<Vec<u8>> {
    let length = i32::try_from(foreign_key.len()).ok()?;
    let mut key = length.to_be_bytes().to_vec();
    key.extend_from_slice(foreign_key);
    Some(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read_and_cut_bytes_are_refused() {
        for hash in [None, Some(hash_of(b"value"))] {
            for (instruction, partition) in Instruction::ALL
                .into_iter()
                .zip([None, Some(7)].into_iter().cycle())
            {
                let key = &b"key"[..];
                let subscriber = Subscriber { hash, partition };
                let mut bytes = Vec::new();
                encode_subscriber(subscriber, &mut bytes);
                assert_eq!(decode_subscriber(&bytes), Ok(subscriber));
                bytes.push(0);
                assert!(decode_subscriber(&bytes).is_err());
                let parts = SubscriptionParts {
                    instruction,
                    subscriber,
                    key,
                };
                let mut bytes = Vec::new();
                encode_subscription(parts, &mut bytes);
                assert_eq!(decode_subscription(&bytes), Ok(parts));
                let cut = bytes.get(..2).unwrap();
                assert!(decode_subscription(cut).is_err());
            }
            let values = [None, Some(&b""[..]), Some(b"value")];
            let answers = values.map(|value| (value, false));
            for (value, quiet) in answers.into_iter().chain([(None, true)]) {
                let parts = ResponseParts { hash, value, quiet };
                let mut bytes = Vec::new();
                encode_response(parts, &mut bytes);
                assert_eq!(decode_response(&bytes), Ok(parts));
                assert!(decode_response(bytes.get(..1).unwrap()).is_err());
            }
        }
        assert!(decode_subscription(&[3, 0, 0]).is_err(), "another version");
        assert!(decode_subscription(&[1, 4, 0]).is_err(), "no instruction");
        assert!(decode_response(&[1, 0, 3]).is_err(), "none of 0, 1, 2");
    }

    #[test]
    fn the_hash_is_fnv_1a_with_128_bits() {
        assert_eq!(hash_of(b""), 0x6c62272e07bb014262b821756295c58d);
        assert_eq!(hash_of(b"a"), 0xd228cb696f1a8caf78912b704e4a8964);
    }

    #[test]
    fn a_prefix_finds_its_own_foreign_key_only() {
        let (short, long) = (store_prefix(b"a").unwrap(), store_prefix(b"ab").unwrap());
        assert_eq!(short, b"\0\0\0\x01a");
        assert!(!long.starts_with(&short));
    }

    proptest! {
        #[test]
        fn messages_round_trip(
            instruction in proptest::sample::select(Instruction::ALL.to_vec()),
            hash: Option<ValueHash>,
            partition: Option<i32>,
            key: Vec<u8>,
            value: Option<Vec<u8>>,
            quiet: bool,
        ) {
            let subscriber = Subscriber { hash, partition };
            let mut bytes = Vec::new();
            encode_subscriber(subscriber, &mut bytes);
            prop_assert_eq!(decode_subscriber(&bytes), Ok(subscriber));
            let subscription = SubscriptionParts { instruction, subscriber, key: &key };
            let mut bytes = Vec::new();
            encode_subscription(subscription, &mut bytes);
            prop_assert_eq!(decode_subscription(&bytes), Ok(subscription));
            let quiet = quiet && value.is_none();
            let response = ResponseParts { hash, value: value.as_deref(), quiet };
            let mut bytes = Vec::new();
            encode_response(response, &mut bytes);
            prop_assert_eq!(decode_response(&bytes), Ok(response));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _decoded = (decode_subscription(&bytes), decode_response(&bytes), decode_subscriber(&bytes));
        }

        #[test]
        fn a_scan_by_prefix_finds_one_foreign_key(
            foreign_key: Vec<u8>,
            other: Vec<u8>,
            key: Vec<u8>,
        ) {
            let prefix = store_prefix(&foreign_key).unwrap();
            let mut entry = store_prefix(&other).unwrap();
            entry.extend_from_slice(&key);
            prop_assert_eq!(entry.starts_with(&prefix), foreign_key == other);
        }
    }
}
