//! The bytes of the current-state store.
//!
//! ```text
//! {"origin","firstVersion","version","updatedAt","state","stateVersion"?}     absent = 1
//! {"origin","firstVersion","version","updatedAt","tombstoned":true}            of a tombstoned aggregate
//! ```
//! # Invariants
//! - The entry of a tombstoned aggregate stays: it is what keeps its id from being used again. It has no
//!   state, and so reads whatever the state version.
//! # Failure
//! An entry that does not read, or of another state version, is no error here but
//! [`CurrentState::Unreadable`]: history has what it says, and the
//! [repository](super::repository::Repository) folds it again.

use std::fmt;
use std::marker::PhantomData;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::aggregate::Aggregate;
use super::decision::AggregateRecord;
use super::history::Origin;
use crate::clock::Timestamp;
use crate::processor::BoxError;
use crate::serde::{Serde, TextCodec};

/// An entry of the current-state store.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum CurrentState<S> {
    /// An aggregate.
    Known(AggregateRecord<S>),
    /// What another program has left.
    Unreadable,
}

/// The entry's serde.
pub(super) struct CurrentStateSerde<A>(PhantomData<fn() -> A>);

impl<A> Default for CurrentStateSerde<A> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<A> fmt::Debug for CurrentStateSerde<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CurrentStateSerde")
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a, S> {
    origin: Origin,
    first_version: u64,
    version: u64,
    updated_at: Timestamp,
    state: &'a S,
    #[serde(skip_serializing_if = "is_first")]
    state_version: u32,
}

/// What stays of a tombstoned aggregate.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ended {
    origin: Origin,
    first_version: u64,
    version: u64,
    updated_at: Timestamp,
    tombstoned: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Read<S> {
    origin: Origin,
    first_version: u64,
    version: u64,
    updated_at: Timestamp,
    state: S,
    #[serde(default = "first")]
    state_version: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_first(state_version: &u32) -> bool {
    *state_version == first()
}

const fn first() -> u32 {
    1
}

impl<A: Aggregate> Serde<CurrentState<A::State>> for CurrentStateSerde<A> {
    fn serialize(
        &self,
        entry: &CurrentState<A::State>,
        out: &mut Vec<u8>,
    ) -> Result<bool, BoxError> {
        let CurrentState::Known(record) = entry else {
            return Err("what cannot be read cannot be written".into());
        };
        if record.tombstoned {
            let ended = Ended {
                origin: record.origin,
                first_version: record.first_version,
                version: record.version,
                updated_at: record.updated_at,
                tombstoned: true,
            };
            serde_json::to_writer(out, &ended)?;
            return Ok(true);
        }
        let written = Written {
            origin: record.origin,
            first_version: record.first_version,
            version: record.version,
            updated_at: record.updated_at,
            state: &record.state,
            state_version: A::STATE_VERSION,
        };
        serde_json::to_writer(out, &written)?;
        Ok(true)
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<CurrentState<A::State>, BoxError> {
        let bytes = bytes.ok_or("a current state is null")?;
        // The version is looked at last: to read it first would cost a second pass over every entry.
        Ok(match serde_json::from_slice::<Read<A::State>>(bytes) {
            Ok(read) if read.state_version == A::STATE_VERSION => {
                CurrentState::Known(AggregateRecord {
                    origin: read.origin,
                    first_version: read.first_version,
                    version: read.version,
                    updated_at: read.updated_at,
                    tombstoned: false,
                    state: read.state,
                })
            }
            Ok(_) => CurrentState::Unreadable,
            // Seldom, and so the second attempt: an entry without a state.
            Err(_) => match serde_json::from_slice::<Ended>(bytes) {
                Ok(ended) if ended.tombstoned => CurrentState::Known(AggregateRecord {
                    origin: ended.origin,
                    first_version: ended.first_version,
                    version: ended.version,
                    updated_at: ended.updated_at,
                    tombstoned: true,
                    state: A::State::default(),
                }),
                Ok(_) | Err(_) => CurrentState::Unreadable,
            },
        })
    }
}

impl<A: Aggregate> TextCodec for CurrentStateSerde<A> {
    fn parse_text(&self, _: &str) -> Result<Vec<u8>, BoxError> {
        Err("a current state is a value, not a key".into())
    }

    fn to_json(&self, bytes: &[u8]) -> Result<Value, BoxError> {
        Ok(serde_json::from_slice(bytes)?)
    }
}
