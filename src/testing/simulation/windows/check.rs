//! The outputs of windows, against their oracle.

use super::oracle::{Expected, Seen, line};
use super::{BY_BUCKET, CLOSING, FINAL, INPUT, LATE, LIMITED, POISON, SESSIONS, TUMBLING, bucket};
use crate::format::names;
use crate::log::embedded::InspectedRecord;
use crate::testing::simulation::check::{
    Sent, Stores, Wrong, committed, gathered, integer, records, same, sequence, text,
};
use crate::testing::simulation::process::{APPLICATION, Site};
use crate::topology::TaskId;

/// Checks every output; returns what the stores must hold.
///
/// # Errors
/// The first difference.
pub(in crate::testing::simulation) fn check(site: &Site) -> Result<Stores, Wrong> {
    let sub_topology = site.sub_topology_of(TUMBLING)?;
    let mut stores = Stores::new();
    for (partition, seen) in (0..).zip(taken_up(site)?) {
        let expected = Expected::of(&site.plan.windows, &seen);
        for (topic, expected) in &expected.outputs {
            let records = committed(site, topic, partition)?;
            let size = site.plan.windows.size;
            let found = records.iter().map(|record| read(topic, size, record));
            let found: Vec<String> = found.collect::<Result<_, _>>()?;
            same(&format!("{topic}-{partition}"), &found, expected)?;
        }
        let task = TaskId {
            sub_topology,
            partition,
        };
        let content = expected.stores.into_iter();
        stores.extend(content.map(|(store, content)| ((task, store.to_owned()), content)));
    }
    Ok(stores)
}

/// What the windows' tasks have taken up, in order: the good records of their input, or what is in the
/// repartition topic.
fn taken_up(site: &Site) -> Result<Vec<Vec<Seen>>, Wrong> {
    let mut inputs = Vec::new();
    for partition in 0..site.plan.partitions {
        let mut records = records(site, INPUT, partition)?;
        records.retain(|record| {
            let value = std::str::from_utf8(record.value.as_deref().unwrap_or_default());
            value.is_ok_and(|value| value != POISON)
        });
        inputs.push(records);
    }
    if site.plan.windows.regrouped {
        let describe = |key: String, record: &InspectedRecord| {
            let value = text(record.value.as_deref());
            let line = format!("{key} = {value} at {}", record.timestamp);
            (sequence(record), line)
        };
        let sent =
            |record: &InspectedRecord| describe(bucket(&text(record.value.as_deref())), record);
        let origins: Vec<Vec<Sent>> = inputs
            .iter()
            .map(|records| records.iter().map(sent).collect())
            .collect();
        let topic = names::repartition_topic(APPLICATION, BY_BUCKET);
        inputs = gathered(site, &topic, &origins, |record| {
            describe(text(record.key.as_deref()), record)
        })?;
    }
    let seen = |record: &InspectedRecord| Seen {
        sequence: sequence(record),
        key: text(record.key.as_deref()),
        timestamp: record.timestamp,
    };
    let seen = |records: &Vec<InspectedRecord>| records.iter().map(seen).collect();
    Ok(inputs.iter().map(seen).collect())
}

fn read(topic: &str, size: i64, record: &InspectedRecord) -> Result<String, Wrong> {
    let key = record.key.as_deref().unwrap_or_default();
    let value = record.value.as_deref();
    let number = || value.map(|value| integer(Some(value))).transpose();
    let window = |times: usize| {
        let at = key.len().checked_sub(8 * times);
        let at = at.ok_or_else(|| format!("{topic} has the key {key:?}"))?;
        let (key, rest) = key.split_at(at);
        let times: Vec<i64> = rest
            .chunks(8)
            .map(|time| integer(Some(time)))
            .collect::<Result<_, Wrong>>()?;
        Ok::<_, Wrong>((text(Some(key)), times))
    };
    Ok(match topic {
        TUMBLING | FINAL | CLOSING => {
            let (key, times) = window(1)?;
            let start = times.first().copied().unwrap_or_default();
            line((&key, start, start + size), number()?, record.timestamp)
        }
        SESSIONS => {
            let (key, times) = window(2)?;
            let [end, start] = times[..] else {
                return Err(format!("{topic} has a key with {times:?}"));
            };
            line((&key, start, end), number()?, record.timestamp)
        }
        LATE => format!("{} {}", sequence(record), text(Some(key))),
        LIMITED => {
            let count = number()?.ok_or("a null where a count belongs")?;
            format!("{} = {count} at {}", text(Some(key)), record.timestamp)
        }
        other => return Err(format!("nothing is known of topic {other}")),
    })
}
