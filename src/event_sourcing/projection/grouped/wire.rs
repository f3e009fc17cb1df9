//! The keys and values of a grouped projection's stores and repartition topics.
//!
//! ```text
//! key of shares and totals     generation: u64 BE ‖ aggregate's id or group (UTF-8)
//! value of shares              {"<group>": share, …}                               JSON
//! value of totals              number of shares: u64 BE ‖ the group's value        JSON
//! <name>-shares-repartition    {"changed":{"old","new"}} | {"completed":{…}}       JSON
//! <name>-generations-repartition   [`News`]                                        JSON
//! ```
//! The partition follows from what is behind the generation: a group stays where it is.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use ::serde::de::DeserializeOwned;
use ::serde::{Deserialize, Serialize};
use serde_json::Value;

use super::standing::Made;
use crate::processor::BoxError;
use crate::serde::{Serde, TextCodec};

/// The width of a generation in a key.
const GENERATION_LEN: usize = size_of::<u64>();

/// An aggregate or a group in a generation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::event_sourcing) struct GenerationKey {
    pub(in crate::event_sourcing) generation: u64,
    pub(in crate::event_sourcing) name: String,
}

impl GenerationKey {
    pub(in crate::event_sourcing) fn new(generation: u64, name: impl Into<String>) -> Self {
        Self {
            generation,
            name: name.into(),
        }
    }

    /// Returns the key's bytes.
    pub(in crate::event_sourcing) fn encoded(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(GENERATION_LEN + self.name.len());
        bytes.extend_from_slice(&self.generation.to_be_bytes());
        bytes.extend_from_slice(self.name.as_bytes());
        bytes
    }

    pub(in crate::event_sourcing) fn decode(bytes: &[u8]) -> Result<Self, BoxError> {
        let (generation, name) = bytes
            .split_first_chunk::<GENERATION_LEN>()
            .ok_or("a key is too short to hold a generation")?;
        Ok(Self {
            generation: u64::from_be_bytes(*generation),
            name: std::str::from_utf8(name)?.to_owned(),
        })
    }

    /// Puts another generation into a key's bytes.
    pub(in crate::event_sourcing) fn move_to(bytes: &mut [u8], generation: u64) {
        if let Some(head) = bytes.first_chunk_mut::<GENERATION_LEN>() {
            *head = generation.to_be_bytes();
        }
    }
}

/// The serde of [`GenerationKey`]. In text, `2@account-1`.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::event_sourcing) struct GenerationKeySerde;

impl Serde<GenerationKey> for GenerationKeySerde {
    fn serialize(&self, key: &GenerationKey, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        out.extend_from_slice(&key.generation.to_be_bytes());
        out.extend_from_slice(key.name.as_bytes());
        Ok(true)
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<GenerationKey, BoxError> {
        GenerationKey::decode(bytes.ok_or("a key is null")?)
    }

    fn base_key<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        behind_generation(key)
    }
}

impl TextCodec for GenerationKeySerde {
    fn parse_text(&self, text: &str) -> Result<Vec<u8>, BoxError> {
        let (generation, name) = text
            .split_once('@')
            .ok_or_else(|| format!("`{text}` has no form `<generation>@<name>`"))?;
        Ok(GenerationKey::new(generation.parse()?, name).encoded())
    }

    fn to_json(&self, bytes: &[u8]) -> Result<Value, BoxError> {
        let GenerationKey { generation, name } = GenerationKey::decode(bytes)?;
        Ok(format!("{generation}@{name}").into())
    }

    fn partition_key<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        behind_generation(key)
    }
}

fn behind_generation(key: &[u8]) -> &[u8] {
    key.get(GENERATION_LEN..).unwrap_or(key)
}

/// The shares of an aggregate: what it adds to which groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shares<C>(BTreeMap<String, C>);

impl<C> Default for Shares<C> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<C> Shares<C> {
    /// Returns the share in a group.
    #[must_use]
    pub fn get(&self, group: &str) -> Option<&C> {
        self.0.get(group)
    }

    /// Sets the share in a group.
    pub fn set(&mut self, group: impl Into<String>, share: C) {
        self.0.insert(group.into(), share);
    }

    /// Takes the aggregate out of a group.
    pub fn remove(&mut self, group: &str) {
        self.0.remove(group);
    }

    /// Takes the aggregate out of all groups.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Sets the share in a group, and takes the aggregate out of all others.
    pub fn only(&mut self, group: impl Into<String>, share: C) {
        self.clear();
        self.set(group, share);
    }

    /// Returns whether the aggregate is in no group.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns groups and shares, by group.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &C)> {
        self.0.iter().map(|(group, share)| (group.as_str(), share))
    }
}

impl<C: Clone + PartialEq> Shares<C> {
    /// Returns the groups in which shares differ, with the share before and after.
    pub(super) fn changes(&self, after: &Self) -> Vec<(String, Option<C>, Option<C>)> {
        let gone = self
            .0
            .iter()
            .filter(|(group, _)| !after.0.contains_key(*group));
        let gone = gone.map(|(group, old)| (group.clone(), Some(old.clone()), None));
        let come = after.0.iter().filter_map(|(group, new)| {
            let old = self.0.get(group);
            (old != Some(new)).then(|| (group.clone(), old.cloned(), Some(new.clone())))
        });
        gone.chain(come).collect()
    }
}

/// A record of `<name>-shares-repartition`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum Share<C> {
    /// An aggregate's share in the group of the key is another.
    Changed {
        /// The one that goes.
        #[serde(skip_serializing_if = "Option::is_none", default = "none")]
        old: Option<C>,
        /// The one that comes.
        #[serde(skip_serializing_if = "Option::is_none", default = "none")]
        new: Option<C>,
    },
    /// A partition of the source has told all shares of the key's generation, and tells those of new
    /// events from here on.
    Completed {
        /// The partition.
        partition: i32,
        /// How many there are.
        partitions: i32,
        /// The version of the rules.
        version: u32,
    },
}

/// `Option::default`, of a type that need not have one.
const fn none<C>() -> Option<C> {
    None
}

/// What a partition of the source tells the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::event_sourcing) struct News {
    /// The partition.
    pub(in crate::event_sourcing) partition: i32,
    /// The newest generation that it has begun.
    pub(in crate::event_sourcing) begun: u64,
    /// The last ones that it has completed.
    pub(in crate::event_sourcing) completed: Vec<Made>,
}

/// A group: what its shares add up to, and how many they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::event_sourcing) struct Total<T> {
    pub(in crate::event_sourcing) shares: u64,
    pub(in crate::event_sourcing) value: T,
}

/// The serde of [`Total`]. As JSON, queries show the value alone.
pub(in crate::event_sourcing) struct TotalSerde<T>(PhantomData<fn() -> T>);

impl<T> Default for TotalSerde<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T> fmt::Debug for TotalSerde<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TotalSerde")
    }
}

const SHARES_LEN: usize = size_of::<u64>();

fn parts(bytes: &[u8]) -> Result<(u64, &[u8]), BoxError> {
    let (shares, value) = bytes
        .split_first_chunk::<SHARES_LEN>()
        .ok_or("a total is too short to hold its number of shares")?;
    Ok((u64::from_be_bytes(*shares), value))
}

impl<T: Serialize + DeserializeOwned + 'static> Serde<Total<T>> for TotalSerde<T> {
    fn serialize(&self, total: &Total<T>, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        out.extend_from_slice(&total.shares.to_be_bytes());
        serde_json::to_writer(out, &total.value)?;
        Ok(true)
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<Total<T>, BoxError> {
        let (shares, value) = parts(bytes.ok_or("a total is null")?)?;
        Ok(Total {
            shares,
            value: serde_json::from_slice(value)?,
        })
    }
}

impl<T: Serialize + DeserializeOwned + 'static> TextCodec for TotalSerde<T> {
    fn parse_text(&self, _: &str) -> Result<Vec<u8>, BoxError> {
        Err("a total is a value, not a key".into())
    }

    fn to_json(&self, bytes: &[u8]) -> Result<Value, BoxError> {
        Ok(serde_json::from_slice(parts(bytes)?.1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_keys_shares_and_totals_are_these() {
        let key = GenerationKey::new(2, "Delayed");
        assert_eq!(key.encoded(), b"\0\0\0\0\0\0\0\x02Delayed");
        assert_eq!(
            GenerationKeySerde.parse_text("2@Delayed").unwrap(),
            key.encoded()
        );
        assert_eq!(GenerationKeySerde.base_key(&key.encoded()), b"Delayed");
        let json = |share: &Share<i64>| serde_json::to_string(share).unwrap();
        let share = Share::Changed {
            old: None,
            new: Some(1),
        };
        assert_eq!(json(&share), r#"{"changed":{"new":1}}"#);
        let completed = Share::Completed {
            partition: 1,
            partitions: 3,
            version: 2,
        };
        assert_eq!(
            json(&completed),
            r#"{"completed":{"partition":1,"partitions":3,"version":2}}"#
        );
        for share in [share, completed] {
            assert_eq!(
                serde_json::from_str::<Share<i64>>(&json(&share)).unwrap(),
                share
            );
        }
        let mut total = Vec::new();
        let of_three = Total {
            shares: 3,
            value: 7_i64,
        };
        TotalSerde::default()
            .serialize(&of_three, &mut total)
            .unwrap();
        assert_eq!(total, b"\0\0\0\0\0\0\0\x037");
        assert_eq!(TotalSerde::<i64>::default().to_json(&total).unwrap(), 7);
    }

    #[test]
    fn only_groups_that_differ_change() {
        let shares = |pairs: &[(&str, i64)]| {
            let mut shares = Shares::default();
            for (group, share) in pairs {
                shares.set(*group, *share);
            }
            shares
        };
        let before = shares(&[("a", 1), ("b", 2), ("c", 3)]);
        let after = shares(&[("b", 2), ("c", 4), ("d", 5)]);
        assert_eq!(
            before.changes(&after),
            [
                ("a".to_owned(), Some(1), None),
                ("c".to_owned(), Some(3), Some(4)),
                ("d".to_owned(), None, Some(5)),
            ]
        );
    }
}
