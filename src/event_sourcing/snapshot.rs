//! Snapshots: an aggregate's state at every hundredth version, so that no read folds much more than
//! a hundred events.
//!
//! ```text
//! key    as in history: aggregate id ‖ 0x00 ‖ version: u64 BE
//! value  format: u8 = 1 ‖ state version: u32 BE ‖ time: i64 BE ‖ origin: u8 (1 native, 2 foreign)
//!        ‖ first version: u64 BE ‖ state: JSON
//! ```
//! # Invariants
//! - A snapshot is what the events up to its version add up to: it is written in the transaction of
//!   the event with that version, or by a rebuild.
//! - Times rise with versions: an aggregate's time does ([`AggregateRecord::updated_at`]).
//! - A tombstoned aggregate has no state, and so no snapshot at its last version.
//! # Failure
//! A snapshot of another format or state version, or whose state no longer reads, is passed over: a
//! reader takes one below it, or none. It is derived and never the only copy of anything.

use serde_json::{Value, json};

use super::aggregate::Aggregate;
use super::decision::AggregateRecord;
use super::history::Origin;
use crate::clock::Timestamp;
use crate::processor::BoxError;
use crate::serde::{Serde, TextCodec};

/// The version of the layout above, without the state.
pub(super) const FORMAT: u8 = 1;
const NATIVE: u8 = 1;
const FOREIGN: u8 = 2;

/// A snapshot whose state is still bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Snapshot<'a> {
    /// [`Aggregate::STATE_VERSION`] of the program that wrote it.
    pub(super) state_version: u32,
    /// The aggregate's time.
    pub(super) time: Timestamp,
    pub(super) origin: Origin,
    pub(super) first_version: u64,
    state: &'a [u8],
}

impl<'a> Snapshot<'a> {
    /// Reads all but the state: what it costs does not depend on the state's size. `None` for another
    /// format.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (&[FORMAT], rest) = bytes.split_first_chunk()? else {
            return None;
        };
        let (state_version, rest) = rest.split_first_chunk()?;
        let (time, rest) = rest.split_first_chunk()?;
        let (origin, rest) = rest.split_first()?;
        let (first_version, state) = rest.split_first_chunk()?;
        Some(Self {
            state_version: u32::from_be_bytes(*state_version),
            time: Timestamp::from_be_bytes(*time),
            origin: match *origin {
                NATIVE => Origin::Native,
                FOREIGN => Origin::Foreign,
                _ => return None,
            },
            first_version: u64::from_be_bytes(*first_version),
            state,
        })
    }

    /// Returns the aggregate at `version`; `None` when the state is of another version, or does not
    /// read.
    pub(super) fn record<A: Aggregate>(&self, version: u64) -> Option<AggregateRecord<A::State>> {
        if self.state_version != A::STATE_VERSION {
            return None;
        }
        Some(AggregateRecord {
            origin: self.origin,
            first_version: self.first_version,
            version,
            updated_at: self.time,
            tombstoned: false,
            state: serde_json::from_slice(self.state).ok()?,
        })
    }
}

/// Writes the snapshot of an aggregate.
pub(super) fn encode<A: Aggregate>(
    record: &AggregateRecord<A::State>,
) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = vec![FORMAT];
    bytes.extend_from_slice(&A::STATE_VERSION.to_be_bytes());
    bytes.extend_from_slice(&record.updated_at.to_be_bytes());
    bytes.push(match record.origin {
        Origin::Native => NATIVE,
        Origin::Foreign => FOREIGN,
    });
    bytes.extend_from_slice(&record.first_version.to_be_bytes());
    serde_json::to_writer(&mut bytes, &record.state)?;
    Ok(bytes)
}

/// The serde of snapshots: bytes, since one that does not read must not stop its task.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SnapshotSerde;

impl Serde<Vec<u8>> for SnapshotSerde {
    fn serialize(&self, snapshot: &Vec<u8>, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        out.extend_from_slice(snapshot);
        Ok(true)
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<Vec<u8>, BoxError> {
        Ok(bytes.ok_or("a snapshot is null")?.to_vec())
    }
}

impl TextCodec for SnapshotSerde {
    fn parse_text(&self, _: &str) -> Result<Vec<u8>, BoxError> {
        Err("a snapshot is a value, not a key".into())
    }

    fn to_json(&self, bytes: &[u8]) -> Result<Value, BoxError> {
        let snapshot = Snapshot::decode(bytes).ok_or("a snapshot of another format")?;
        let state: Value = serde_json::from_slice(snapshot.state)?;
        Ok(json!({
            "stateVersion": snapshot.state_version, "updatedAt": snapshot.time,
            "origin": snapshot.origin, "firstVersion": snapshot.first_version, "state": state,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::counter::Counter;
    use super::*;

    #[test]
    fn the_byte_layout_is_pinned_and_reads_back() {
        let record = AggregateRecord {
            origin: Origin::Foreign,
            first_version: 258,
            version: 300,
            updated_at: 1_765_281_600_000,
            tombstoned: false,
            state: Counter { total: 7 },
        };
        let bytes = encode::<Counter>(&record).unwrap();
        let head = b"\x01\0\0\0\x01\0\0\x01\x9b\x02\xfb\x92\0\x02\0\0\0\0\0\0\x01\x02";
        assert_eq!(bytes, [&head[..], br#"{"total":7}"#].concat());
        let snapshot = Snapshot::decode(&bytes).unwrap();
        assert_eq!(snapshot.record::<Counter>(300), Some(record));
    }

    #[test]
    fn what_is_no_snapshot_of_this_program_is_none() {
        let record = AggregateRecord {
            origin: Origin::Native,
            first_version: 1,
            version: 100,
            updated_at: 0,
            tombstoned: false,
            state: Counter { total: 7 },
        };
        let bytes = encode::<Counter>(&record).unwrap();
        for cut in 0..22 {
            assert_eq!(Snapshot::decode(&bytes[..cut]), None, "{cut} bytes");
        }
        for (at, byte) in [(0, 2), (13, 0)] {
            let mut other = bytes.clone();
            other[at] = byte;
            assert_eq!(Snapshot::decode(&other), None);
        }
        for (at, byte) in [(4, 2), (22, b'[')] {
            let mut other = bytes.clone();
            other[at] = byte;
            let snapshot = Snapshot::decode(&other).unwrap();
            assert_eq!(snapshot.record::<Counter>(100), None);
        }
    }
}
