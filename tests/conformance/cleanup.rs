//! Compaction and retention. A broker cleans closed segments only, so the topics here roll theirs
//! often, and every wait writes a record of another key that lets them roll.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream::log::{
    Headers, Isolation, Log, LogProducer, ProducerRecord, TopicName, TopicPartition,
};

use super::{
    Fixture, Outcome, Seen, abort, committed_values, eventually, idempotent, read, send, settle,
    topic, tp, transactional, unique, write, write_transaction,
};

const COMPACTED: [(&str, &str); 4] = [
    ("cleanup.policy", "compact"),
    ("segment.ms", "500"),
    ("min.cleanable.dirty.ratio", "0.01"),
    ("delete.retention.ms", "2000"),
];

fn compacted<L: Log, F: Fixture<L>>(f: &mut F) -> TopicPartition {
    let name: TopicName = topic(f, 1, &COMPACTED);
    tp(&name, 0)
}

/// Writes something that makes segments roll, and asks for the cleaning.
fn churn<L: Log, F: Fixture<L>>(f: &mut F, partition: &TopicPartition) {
    write(f, partition, &[("churn", "churn")]);
    f.pass(Duration::from_millis(700));
    write(f, partition, &[("churn", "churn")]);
    f.maintain();
}

/// Returns what stands under each key, churn left out: the values in order, tombstones empty.
fn by_key(seen: &[Seen]) -> BTreeMap<String, Vec<String>> {
    let mut keys: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for one in seen {
        let key = String::from_utf8(one.key.clone().unwrap_or_default()).unwrap();
        if key != "churn" {
            keys.entry(key).or_default().push(one.text());
        }
    }
    keys
}

fn await_keys<L: Log, F: Fixture<L>>(
    f: &mut F,
    partition: &TopicPartition,
    expected: &[(&str, &[&str])],
) -> Vec<Seen> {
    let expected: BTreeMap<String, Vec<String>> = expected
        .iter()
        .map(|(key, values)| {
            (
                (*key).to_owned(),
                values.iter().map(|value| (*value).to_owned()).collect(),
            )
        })
        .collect();
    eventually(f, &format!("compaction leaves {expected:?}"), |f| {
        churn(f, partition);
        let seen = read(f, partition, Isolation::ReadCommitted);
        (by_key(&seen) == expected).then_some(seen)
    })
}

pub(crate) fn compaction_keeps_the_latest_record_of_a_key<L: Log, F: Fixture<L>>(f: &mut F) {
    let partition = compacted(f);
    write(
        f,
        &partition,
        &[("a", "1"), ("b", "1"), ("a", "2"), ("a", "3"), ("c", "1")],
    );
    let mut producer = transactional(f, &unique("id"));
    write_transaction(f, &mut producer, &partition, &["c"], Outcome::Abort);
    let seen = await_keys(
        f,
        &partition,
        &[("a", &["3"]), ("b", &["1"]), ("c", &["1"])],
    );
    // Offsets stay what they were.
    let offsets: Vec<i64> = seen.iter().map(|one| one.offset).take(3).collect();
    assert_eq!(offsets, [1, 3, 4]);
}

pub(crate) fn compaction_drops_a_tombstone_after_its_retention<L: Log, F: Fixture<L>>(f: &mut F) {
    let partition = compacted(f);
    write(f, &partition, &[("a", "1"), ("b", "1")]);
    let mut producer = idempotent(f);
    let tombstone = ProducerRecord {
        topic: &partition.topic,
        partition: Some(0),
        key: Some(b"a"),
        value: None,
        timestamp: f.now(),
        headers: &Headers::new(),
    };
    producer.send(tombstone).unwrap();
    settle(f, "flush", || producer.flush()).unwrap();
    assert_eq!(
        by_key(&read(f, &partition, Isolation::ReadCommitted))["a"],
        ["1", ""]
    );
    let mut alone = false;
    eventually(f, "the tombstone is gone", |f| {
        churn(f, &partition);
        let keys = by_key(&read(f, &partition, Isolation::ReadCommitted));
        assert_eq!(keys["b"], ["1"]);
        alone |= keys.get("a").is_some_and(|values| values == &[""]);
        (!keys.contains_key("a")).then_some(())
    });
    assert!(alone, "the tombstone outlives what it deletes");
}

pub(crate) fn compaction_spares_an_open_transaction<L: Log, F: Fixture<L>>(f: &mut F) {
    let partition = compacted(f);
    write(f, &partition, &[("a", "1"), ("a", "2")]);
    let mut holder = transactional(f, &unique("holder"));
    holder.begin_transaction().unwrap();
    send(&mut holder, &partition, "a", "open", f.now()).unwrap();
    settle(f, "flush", || holder.flush()).unwrap();
    write(f, &partition, &[("b", "1"), ("b", "2")]);
    // Below the last stable offset the latest stays; above it everything does.
    eventually(f, "what is stable is compacted", |f| {
        churn(f, &partition);
        (committed_values(f, &partition) == ["2"]).then_some(())
    });
    let keys = by_key(&read(f, &partition, Isolation::ReadUncommitted));
    assert_eq!(keys["a"], ["2", "open"]);
    assert_eq!(keys["b"], ["1", "2"]);
    abort(f, &mut holder);
    await_keys(f, &partition, &[("a", &["2"]), ("b", &["2"])]);
}

pub(crate) fn retention_deletes_old_records<L: Log, F: Fixture<L>>(f: &mut F) {
    let config = [("retention.ms", "3600000"), ("segment.ms", "500")];
    let partition = tp(&topic(f, 1, &config), 0);
    let mut producer = idempotent(f);
    let hours_ago = f.now() - 3 * 3_600_000;
    for value in ["old", "older"] {
        send(&mut producer, &partition, "k", value, hours_ago).unwrap();
    }
    settle(f, "flush", || producer.flush()).unwrap();
    f.pass(Duration::from_millis(700));
    write(f, &partition, &[("k", "young")]);
    let log = f.log().clone();
    eventually(f, "the old records are gone", |f| {
        f.maintain();
        let isolation = Isolation::ReadUncommitted;
        let ranges = log
            .log_ranges(std::slice::from_ref(&partition), isolation)
            .ok()?;
        (ranges[0].start == 2).then_some(())
    });
    assert_eq!(committed_values(f, &partition), ["young"]);
}
