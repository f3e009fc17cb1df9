//! Comparing the groups of a grouped projection with the shares of all aggregates.
//!
//! Shares take a moment to reach their groups, and no read sees both at one time: a group is wrong where it
//! differs in the same way look after look.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::changes::changes;
use super::grouped::CommittedGroups;
use super::verify::{Deviation, GroupsVerified};
use super::{HistoryReadError, failed, state_failed};
use crate::event_sourcing::aggregate::Aggregate;
use crate::event_sourcing::projection::{RowValue, Shares, Total, TotalSerde};
use crate::format::value;
use crate::query::{QueryRegistry, ServingStore as _, StoreHandles};
use crate::serde::Serde as _;
use crate::state::ReadHandle;

/// How often groups are compared at most: shares take a moment to reach them.
const LOOKS_MAX: usize = 20;
/// A group that differs in the same way at so many looks in a row is wrong.
const LOOKS_ALIKE: usize = 5;
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// Entries that are read at a time.
const CHUNK: usize = 10_000;

/// Groups by name.
type Groups<T> = BTreeMap<String, Total<T>>;

/// What the shares of a group add up to, and what was found.
type Compared<T> = (Option<Total<T>>, Option<Total<T>>);

/// Groups that differ.
type Differences<T> = BTreeMap<String, Compared<T>>;

impl<A: Aggregate, C: RowValue, T: RowValue> CommittedGroups<A, C, T> {
    /// Compares all groups with all shares.
    pub(super) fn compare_groups(
        &self,
        queries: &QueryRegistry,
        sources: &StoreHandles,
    ) -> Result<(GroupsVerified, Option<Deviation>), HistoryReadError> {
        let groups = queries.store_handles(&self.totals)?;
        let mut verified = GroupsVerified::default();
        for (what, missing) in [("shares", sources.missing()), ("groups", groups.missing())] {
            if !missing.is_empty() {
                verified.not_compared = Some(format!(
                    "the {what} of partitions {missing:?} are not served here, and a group has shares of all"
                ));
                return Ok((verified, None));
            }
        }
        let mut alike: BTreeMap<String, usize> = BTreeMap::new();
        let mut last: Differences<T> = BTreeMap::new();
        for look in 0..LOOKS_MAX {
            if look > 0 {
                std::thread::park_timeout(PAUSE);
            }
            let Some(generation) = self.settled_generation(sources, &groups)? else {
                verified.not_compared = Some("another generation is taking over".to_owned());
                continue;
            };
            verified.not_compared = None;
            let (differences, compared) = self.differences(sources, &groups, generation)?;
            verified.compared = compared;
            verified.unsettled = u64::try_from(differences.len()).unwrap_or(u64::MAX);
            alike = differences
                .iter()
                .map(|(group, found)| {
                    let before = alike.get(group).filter(|_| last.get(group) == Some(found));
                    (group.clone(), before.map_or(1, |before| before + 1))
                })
                .collect();
            let wrong = alike.iter().find(|(_, looks)| **looks >= LOOKS_ALIKE);
            if let Some(found) = wrong.and_then(|(group, _)| differences.get_key_value(group)) {
                return Ok((verified, Some(self.deviation(found)?)));
            }
            if differences.is_empty() {
                break;
            }
            last = differences;
        }
        Ok((verified, None))
    }

    /// Returns the generation that all groups serve and all aggregates follow, made by these rules.
    fn settled_generation(
        &self,
        sources: &StoreHandles,
        groups: &StoreHandles,
    ) -> Result<Option<u64>, HistoryReadError> {
        let mut generations = Vec::new();
        for (partition, handle) in &sources.served {
            let followed = self.standing(handle, *partition)?.followed;
            let made = followed.map(|followed| (followed.made.generation, followed.made.version));
            generations.push(made.unwrap_or_default());
        }
        for handle in groups.served.values() {
            let serving = self.state(handle)?;
            generations.push((serving.generation, serving.version));
        }
        let first = generations.first().copied().unwrap_or_default();
        let settled = first.0 > 0
            && first.1 == self.projection.rules()
            && generations.iter().all(|found| *found == first);
        Ok(settled.then_some(first.0))
    }

    /// Returns the groups that are not what the shares add up to, and how many there are.
    fn differences(
        &self,
        sources: &StoreHandles,
        groups: &StoreHandles,
        generation: u64,
    ) -> Result<(Differences<T>, u64), HistoryReadError> {
        let mut found: Groups<T> = BTreeMap::new();
        for handle in groups.served.values() {
            self.each(handle, &self.totals, generation, |group, plain| {
                let total = TotalSerde::default().deserialize(Some(plain));
                let total = total.map_err(|error| failed(&self.totals, error))?;
                found.insert(group, total);
                Ok(())
            })?;
        }
        let mut right: Groups<T> = BTreeMap::new();
        for handle in sources.served.values() {
            self.each(handle, &self.shares, generation, |_, plain| {
                let shares: Shares<C> = serde_json::from_slice(plain)?;
                for (group, share) in shares.iter() {
                    let total = right.remove(group);
                    let come = Some(share.clone());
                    if let Some(total) = self.projection.fold(group, total, None, come) {
                        right.insert(group.to_owned(), total);
                    }
                }
                Ok(())
            })?;
        }
        let groups: Vec<&String> = right.keys().chain(found.keys()).collect();
        let mut differences = BTreeMap::new();
        for group in groups {
            let (right, found) = (right.get(group), found.get(group));
            if right != found {
                differences.insert(group.clone(), (right.cloned(), found.cloned()));
            }
        }
        let compared = right.keys().chain(found.keys());
        let compared: BTreeSet<&String> = compared.collect();
        Ok((
            differences,
            u64::try_from(compared.len()).unwrap_or(u64::MAX),
        ))
    }

    /// Calls `each` with the names and plain values of a generation.
    fn each(
        &self,
        handle: &ReadHandle,
        store: &str,
        generation: u64,
        mut each: impl FnMut(String, &[u8]) -> Result<(), HistoryReadError>,
    ) -> Result<(), HistoryReadError> {
        let (mut from, end) = self.keys_of(generation);
        loop {
            let chunk = handle.range(store, &from, end.as_deref(), false, CHUNK);
            let chunk = chunk.map_err(|error| state_failed(store, error))?;
            for (key, stored) in &chunk {
                let plain = value::decode(stored).map(|(_, plain)| plain);
                each(self.key(store, key)?.name, plain.unwrap_or_default())?;
            }
            match chunk.last() {
                Some((key, _)) if chunk.len() == CHUNK => {
                    from = key.to_vec();
                    from.push(0);
                }
                _ => return Ok(()),
            }
        }
    }

    fn deviation(
        &self,
        (group, (right, found)): (&String, &Compared<T>),
    ) -> Result<Deviation, HistoryReadError> {
        let problem = match (right, found) {
            (Some(_), None) => "a group is missing",
            (None, Some(_)) => "there is a group in which no aggregate has a share",
            (Some(right), Some(found)) if right.value == found.value => {
                "the number of a group's shares is another"
            }
            _ => "a group is another",
        };
        let json = |total: &Option<Total<T>>| {
            let value = total.as_ref().map(|total| &total.value);
            value.map_or(Ok(Value::Null), serde_json::to_value)
        };
        Ok(Deviation {
            store: self.totals.clone(),
            aggregate_id: String::new(),
            version: 0,
            row: Some(group.clone()),
            problem,
            changes: changes(&json(right)?, &json(found)?),
        })
    }
}
