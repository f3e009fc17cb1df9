//! The history store: every event of every aggregate, the truth once topics have expired.
//!
//! ```text
//! key    aggregate id (UTF-8, no U+0000) ‖ 0x00 ‖ version: u64 BE     byte order = (id, version)
//! value  origin: u8 (1 native, 2 foreign) ‖ the event's envelope, byte for byte as on its topic
//! ```
//! # Invariants
//! - The entries of an aggregate are gapless from its first version (1, or higher when a foreign
//!   aggregate was adopted) to its last.
//! - An aggregate belongs to whoever wrote its first entry.
//! # Failure
//! An entry that does not decode, or a state that history contradicts, is a bug or a damaged store:
//! the task stops, nothing is guessed.

use serde::{Deserialize, Serialize};

/// Who wrote an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// This application, from a command.
    Native,
    /// Another system, onto the events topic.
    Foreign,
}

const NATIVE: u8 = 1;
const FOREIGN: u8 = 2;
const SEPARATOR: u8 = 0;
const VERSION_LEN: usize = size_of::<u64>();

/// Why bytes are not of the history store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// The key is not `id ‖ 0x00 ‖ version`.
    #[error("a history key of {len} bytes has no aggregate id, separator and version")]
    Key {
        /// Its length.
        len: usize,
    },
    /// The value does not start with an origin.
    #[error("a history value of {len} bytes starts with no known origin")]
    Value {
        /// Its length.
        len: usize,
    },
}

/// The place of an event in the history store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HistoryKey {
    /// The aggregate.
    pub aggregate_id: String,
    /// Its version after the event.
    pub version: u64,
}

impl HistoryKey {
    /// Creates a key.
    ///
    /// # Panics
    /// When the id contains U+0000; envelopes and commands refuse such ids.
    #[must_use]
    pub fn new(aggregate_id: impl Into<String>, version: u64) -> Self {
        let aggregate_id = aggregate_id.into();
        assert!(
            !aggregate_id.contains('\0'),
            "an aggregate id contains no U+0000"
        );
        Self {
            aggregate_id,
            version,
        }
    }

    /// Appends the key's bytes.
    pub fn encode(&self, into: &mut Vec<u8>) {
        into.reserve(self.aggregate_id.len() + 1 + VERSION_LEN);
        into.extend_from_slice(self.aggregate_id.as_bytes());
        into.push(SEPARATOR);
        into.extend_from_slice(&self.version.to_be_bytes());
    }

    /// Reads a key.
    ///
    /// # Errors
    /// [`HistoryError::Key`].
    pub fn decode(bytes: &[u8]) -> Result<Self, HistoryError> {
        let broken = HistoryError::Key { len: bytes.len() };
        let (head, version) = bytes
            .split_last_chunk::<VERSION_LEN>()
            .ok_or_else(|| broken.clone())?;
        let [id @ .., SEPARATOR] = head else {
            return Err(broken);
        };
        match std::str::from_utf8(id) {
            Ok(id) if !id.contains('\0') => Ok(Self {
                aggregate_id: id.into(),
                version: u64::from_be_bytes(*version),
            }),
            _ => Err(broken),
        }
    }
}

/// Returns the first and last key an aggregate's events from `version` on can have; a scan between
/// them is in version order.
#[must_use]
pub fn history_range(aggregate_id: &str, version: u64) -> (HistoryKey, HistoryKey) {
    (
        HistoryKey::new(aggregate_id, version),
        HistoryKey::new(aggregate_id, u64::MAX),
    )
}

/// An event in the history store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// Who wrote it.
    pub origin: Origin,
    /// The envelope, byte for byte.
    pub event: Vec<u8>,
}

impl HistoryEntry {
    /// Appends the entry's bytes.
    pub fn encode(&self, into: &mut Vec<u8>) {
        into.reserve(1 + self.event.len());
        into.push(match self.origin {
            Origin::Native => NATIVE,
            Origin::Foreign => FOREIGN,
        });
        into.extend_from_slice(&self.event);
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// [`HistoryError::Value`].
    pub fn decode(bytes: &[u8]) -> Result<Self, HistoryError> {
        match bytes {
            [NATIVE, event @ ..] => Ok(Self {
                origin: Origin::Native,
                event: event.into(),
            }),
            [FOREIGN, event @ ..] => Ok(Self {
                origin: Origin::Foreign,
                event: event.into(),
            }),
            _ => Err(HistoryError::Value { len: bytes.len() }),
        }
    }
}

/// What is known of an aggregate that has events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The version of its first event: 1, or higher when a foreign aggregate was adopted.
    pub first_version: u64,
    /// The version of its last event.
    pub last_version: u64,
}

impl Known {
    /// Returns whether history must hold an entry at `version`. Elsewhere a look-up is not needed.
    #[must_use]
    pub fn covers(self, version: u64) -> bool {
        (self.first_version..=self.last_version).contains(&version)
    }
}

/// The event that history holds at the incoming version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored<'a> {
    /// Its `eventId`.
    pub event_id: &'a str,
}

/// An event read from the aggregate's topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incoming<'a> {
    /// Its `eventId`.
    pub event_id: &'a str,
    /// Its `aggregateVersion`, from 1.
    pub version: u64,
}

/// What to do with an event read from the aggregate's topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The same event is in history: count and skip. Our own events come back this way.
    Repetition,
    /// It is the next one: check that it follows, then apply it.
    Apply,
    /// It is the first of an unseen aggregate and above version 1: adopt what it says of the state
    /// before it as the opening, count that, then apply it.
    AdoptOpening,
    /// Another event holds this version: dead letter.
    Conflict,
    /// A version between is missing: dead letter.
    Gap {
        /// The version that would have followed.
        expected: u64,
    },
    /// It lies before the event with which the aggregate was adopted: dead letter.
    BeforeOpening {
        /// The first version that is known.
        first: u64,
    },
    /// State and history contradict each other, which is a bug: stop, write nothing.
    Broken,
}

/// Judges an event against history. Facts in, decision out: `known` is the aggregate's record,
/// `stored` what history holds at the event's version.
#[must_use]
pub fn judge(known: Option<Known>, stored: Option<Stored<'_>>, incoming: Incoming<'_>) -> Verdict {
    let Some(known) = known else {
        return match stored {
            Some(_) => Verdict::Broken,
            None if incoming.version == 1 => Verdict::Apply,
            None => Verdict::AdoptOpening,
        };
    };
    match (known.covers(incoming.version), stored) {
        (true, Some(stored)) if stored.event_id == incoming.event_id => Verdict::Repetition,
        (true, Some(_)) => Verdict::Conflict,
        (true, None) | (false, Some(_)) => Verdict::Broken,
        (false, None) if incoming.version < known.first_version => Verdict::BeforeOpening {
            first: known.first_version,
        },
        (false, None) => match known.last_version.checked_add(1) {
            Some(next) if next == incoming.version => Verdict::Apply,
            Some(next) => Verdict::Gap { expected: next },
            // The last version is u64::MAX, and everything up to it is covered.
            None => Verdict::Broken,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_aggregate_and_then_by_version() {
        let mut keys = vec![
            HistoryKey::new("a", 256),
            HistoryKey::new("ab", 1),
            HistoryKey::new("a", 2),
            HistoryKey::new("a\u{1}", 1),
            HistoryKey::new("a", 1),
            HistoryKey::new("", 9),
            HistoryKey::new("é", u64::MAX),
        ];
        let bytes = |key: &HistoryKey| {
            let mut bytes = Vec::new();
            key.encode(&mut bytes);
            bytes
        };
        keys.sort();
        let by_bytes = {
            let mut keys = keys.clone();
            keys.sort_by_key(bytes);
            keys
        };
        assert_eq!(keys, by_bytes);
        for key in &keys {
            assert_eq!(HistoryKey::decode(&bytes(key)).as_ref(), Ok(key));
        }
        let (first, last) = history_range("a", 2);
        let inside: Vec<_> = keys
            .iter()
            .filter(|key| (&first..=&last).contains(key))
            .collect();
        assert_eq!(
            inside,
            [&HistoryKey::new("a", 2), &HistoryKey::new("a", 256)]
        );
    }

    #[test]
    fn the_byte_layout_is_pinned() {
        let mut bytes = Vec::new();
        HistoryKey::new("a-1", 258).encode(&mut bytes);
        assert_eq!(bytes, b"a-1\0\0\0\0\0\0\0\x01\x02");
        let mut bytes = Vec::new();
        HistoryEntry {
            origin: Origin::Native,
            event: b"{}".into(),
        }
        .encode(&mut bytes);
        assert_eq!(bytes, b"\x01{}");
        let entry = HistoryEntry::decode(b"\x02{}").unwrap();
        assert_eq!(
            entry,
            HistoryEntry {
                origin: Origin::Foreign,
                event: b"{}".into()
            }
        );
    }

    #[test]
    fn damaged_bytes_are_errors() {
        for bytes in [
            b"".as_slice(),
            b"abc",
            b"a12345678",
            b"\xff\x0012345678",
            b"a\0\x0012345678",
        ] {
            assert!(matches!(
                HistoryKey::decode(bytes),
                Err(HistoryError::Key { .. })
            ));
        }
        for bytes in [b"".as_slice(), b"{}", b"\x03{}"] {
            assert!(matches!(
                HistoryEntry::decode(bytes),
                Err(HistoryError::Value { .. })
            ));
        }
    }

    /// Every combination of an aggregate's known range, of what history holds, and of versions
    /// around the range, against the rules in words.
    #[test]
    fn every_combination_is_judged_by_the_rules() {
        let mut seen = std::collections::BTreeMap::new();
        let ranges = [None, Some((1, 1)), Some((1, 3)), Some((4, 4)), Some((4, 6))];
        for range in ranges {
            let known = range.map(|(first_version, last_version)| Known {
                first_version,
                last_version,
            });
            for version in 1..=9_u64 {
                for stored in [None, Some("same"), Some("other")] {
                    let verdict = judge(
                        known,
                        stored.map(|event_id| Stored { event_id }),
                        Incoming {
                            event_id: "same",
                            version,
                        },
                    );
                    let in_history = range.is_some_and(|(a, b)| a <= version && version <= b);
                    let expected = match (range, stored) {
                        _ if in_history != stored.is_some() => Verdict::Broken,
                        (_, Some("same")) => Verdict::Repetition,
                        (_, Some(_)) => Verdict::Conflict,
                        (None, None) if version == 1 => Verdict::Apply,
                        (None, None) => Verdict::AdoptOpening,
                        (Some((first, _)), None) if version < first => {
                            Verdict::BeforeOpening { first }
                        }
                        (Some((_, last)), None) if version == last + 1 => Verdict::Apply,
                        (Some((_, last)), None) => Verdict::Gap { expected: last + 1 },
                    };
                    assert_eq!(verdict, expected, "{range:?} {version} {stored:?}");
                    *seen.entry(format!("{verdict:?}")).or_insert(0) += 1;
                }
            }
        }
        for name in ["Repetition", "Apply", "AdoptOpening", "Conflict", "Broken"] {
            assert!(seen.contains_key(name), "{name} never came up: {seen:?}");
        }
    }

    #[test]
    fn following_events_stay_gaps_until_the_gap_is_filled() {
        let known = |last_version| {
            Some(Known {
                first_version: 1,
                last_version,
            })
        };
        let incoming = |version| Incoming {
            event_id: "e",
            version,
        };
        assert_eq!(
            judge(known(2), None, incoming(4)),
            Verdict::Gap { expected: 3 }
        );
        assert_eq!(
            judge(known(2), None, incoming(5)),
            Verdict::Gap { expected: 3 }
        );
        assert_eq!(judge(known(2), None, incoming(3)), Verdict::Apply);
        assert_eq!(judge(known(3), None, incoming(4)), Verdict::Apply);
    }

    #[test]
    fn the_last_possible_version_overflows_nothing() {
        let known = Known {
            first_version: u64::MAX,
            last_version: u64::MAX,
        };
        let incoming = Incoming {
            event_id: "e",
            version: 1,
        };
        assert_eq!(
            judge(Some(known), None, incoming),
            Verdict::BeforeOpening { first: u64::MAX }
        );
    }
}
