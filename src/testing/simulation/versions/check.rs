//! The outputs and stores of a versioned table and its joins, against their oracle.

use super::oracle::{Expected, line};
use super::{LABELS, ORDERS, POISON, RATES, WITNESS};
use crate::log::embedded::InspectedRecord;
use crate::testing::simulation::check::{
    Stores, Wrong, committed, same, sequence, text, witnessed,
};
use crate::testing::simulation::process::Site;
use crate::topology::TaskId;

/// Checks every output; returns what the stores must hold.
///
/// # Errors
/// The first difference.
pub(in crate::testing::simulation) fn check(site: &Site) -> Result<Stores, Wrong> {
    let mut stores = Stores::new();
    let is_good = |record: &InspectedRecord| !text(record.value.as_deref()).starts_with(POISON);
    let seen = witnessed(site, WITNESS, &[ORDERS, RATES, LABELS], is_good, read)?;
    for (partition, seen) in (0..).zip(seen) {
        let expected = Expected::of(&site.plan.windows, &seen);
        for (topic, expected) in &expected.outputs {
            let found: Vec<String> = committed(site, topic, partition)?
                .iter()
                .map(read)
                .collect();
            same(&format!("{topic}-{partition}"), &found, expected)?;
        }
        for (store, content) in expected.stores {
            let task = TaskId {
                sub_topology: site.sub_topology_of(&store)?,
                partition,
            };
            stores.insert((task, store), content);
        }
    }
    Ok(stores)
}

fn read(record: &InspectedRecord) -> String {
    let value = record.value.as_deref().map(|value| text(Some(value)));
    line(
        &text(record.key.as_deref()),
        value.as_deref(),
        record.timestamp,
        &sequence(record),
    )
}
