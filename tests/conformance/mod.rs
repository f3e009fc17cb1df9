//! The conformance suite of the log seam: one suite, run on every implementation of
//! [`Log`], so that the embedded log cannot drift from Kafka.
//!
//! A case is a function over a [`Fixture`]; `conformance_suite!` and `conformance_slow_suite!` make a
//! `#[test]` of each. Names of topics and groups are random; what a broker does in its own time is
//! awaited with a deadline.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by a panic, in helpers as well"
)]

pub(crate) mod admin;
pub(crate) mod cleanup;
pub(crate) mod fencing;
pub(crate) mod groups;
pub(crate) mod positions;
pub(crate) mod records;
pub(crate) mod transactions;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use millstream::log::{
    CommittedOffset, ConsumerSpec, Headers, Isolation, Log, LogConsumer, LogError, LogMessage,
    LogProducer, LogReader, MembershipEvent, Offset, ProducerRecord, ProducerSpec, TopicName,
    TopicPartition, TopicSpec,
};

/// The session time-out of all members: the least that a broker accepts by default.
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

/// A log under test.
pub(crate) trait Fixture<L: Log> {
    /// Returns the log.
    fn log(&self) -> &L;

    /// Returns the time that record timestamps are taken from, in milliseconds since the epoch.
    fn now(&self) -> i64;

    /// Lets `time` pass: sleeps, or moves the log's clock.
    fn pass(&mut self, time: Duration);

    /// Makes retention and compaction happen soon, where that can be asked for. The broker of
    /// another implementation is set up so that they do within [`patience`](Self::patience).
    fn maintain(&mut self);

    /// Returns how long a condition may take.
    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }
}

/// Returns a name that nobody had before.
pub(crate) fn unique(what: &str) -> String {
    format!("conformance-{what}-{:016x}", fastrand::u64(..))
}

/// Waits until `check` answers, and returns its answer.
pub(crate) fn eventually<L: Log, F: Fixture<L>, T>(
    f: &mut F,
    what: &str,
    mut check: impl FnMut(&mut F) -> Option<T>,
) -> T {
    const STEP: Duration = Duration::from_millis(20);
    let mut waited = Duration::ZERO;
    loop {
        if let Some(answer) = check(f) {
            return answer;
        }
        assert!(
            waited < f.patience(),
            "not within {:?}: {what}",
            f.patience()
        );
        f.pass(STEP);
        waited += STEP;
    }
}

/// Repeats a call as long as it answers `Retriable` or `UnknownOutcome`.
pub(crate) fn settle<L: Log, F: Fixture<L>, T>(
    f: &mut F,
    what: &str,
    mut call: impl FnMut() -> Result<T, LogError>,
) -> Result<T, LogError> {
    eventually(f, what, |_| match call() {
        Err(LogError::Retriable { .. } | LogError::UnknownOutcome { .. }) => None,
        other => Some(other),
    })
}

/// Creates a topic with a random name and waits until it is known.
pub(crate) fn topic<L: Log, F: Fixture<L>>(
    f: &mut F,
    partitions: i32,
    config: &[(&str, &str)],
) -> TopicName {
    let name: TopicName = unique("topic").into();
    let spec = TopicSpec {
        name: Arc::clone(&name),
        partitions,
        replication_factor: None,
        config: config
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()))
            .collect(),
    };
    let log = f.log().clone();
    settle(f, "create topic", || {
        log.create_topics(std::slice::from_ref(&spec))
    })
    .unwrap();
    eventually(f, "the topic is known", |_| {
        log.describe_topics(&[&name])
            .ok()?
            .pop()
            .flatten()
            .map(|_| ())
    });
    name
}

/// Returns a partition of a topic.
pub(crate) fn tp(topic: &TopicName, partition: i32) -> TopicPartition {
    TopicPartition::new(Arc::clone(topic), partition)
}

/// Returns a committed offset without metadata.
pub(crate) fn at(offset: Offset) -> CommittedOffset {
    CommittedOffset {
        offset,
        metadata: String::new(),
    }
}

/// Creates a producer with a transactional id and initialises it.
pub(crate) fn transactional<L: Log, F: Fixture<L>>(f: &mut F, id: &str) -> L::Producer {
    transactional_with_timeout(f, id, Duration::from_secs(60))
}

/// As [`transactional`], with a transaction time-out.
pub(crate) fn transactional_with_timeout<L: Log, F: Fixture<L>>(
    f: &mut F,
    id: &str,
    transaction_timeout: Duration,
) -> L::Producer {
    let spec = ProducerSpec {
        transactional_id: Some(id.to_owned()),
        transaction_timeout,
        client_id: "conformance".to_owned(),
    };
    let mut producer = f.log().producer(&spec).unwrap();
    settle(f, "init transactions", || producer.init_transactions()).unwrap();
    producer
}

/// Creates an idempotent producer.
pub(crate) fn idempotent<L: Log, F: Fixture<L>>(f: &F) -> L::Producer {
    let spec = ProducerSpec {
        transactional_id: None,
        transaction_timeout: Duration::from_secs(60),
        client_id: "conformance".to_owned(),
    };
    f.log().producer(&spec).unwrap()
}

/// Sends a record of two strings, at the fixture's time.
pub(crate) fn send<P: LogProducer>(
    producer: &mut P,
    partition: &TopicPartition,
    key: &str,
    value: &str,
    timestamp: i64,
) -> Result<(), LogError> {
    producer.send(ProducerRecord {
        topic: &partition.topic,
        partition: Some(partition.partition),
        key: Some(key.as_bytes()),
        value: Some(value.as_bytes()),
        timestamp,
        headers: &Headers::new(),
    })
}

/// Commits, as a caller must: again while the outcome is unknown.
pub(crate) fn commit<L: Log, F: Fixture<L>>(f: &mut F, producer: &mut L::Producer) {
    settle(f, "commit", || producer.commit_transaction()).unwrap();
}

/// Aborts, as a caller must: again while that is retriable.
pub(crate) fn abort<L: Log, F: Fixture<L>>(f: &mut F, producer: &mut L::Producer) {
    settle(f, "abort", || producer.abort_transaction()).unwrap();
}

/// Writes records outside of a transaction and waits until they are acknowledged.
pub(crate) fn write<L: Log, F: Fixture<L>>(
    f: &mut F,
    partition: &TopicPartition,
    records: &[(&str, &str)],
) {
    let mut producer = idempotent(f);
    for (key, value) in records {
        let now = f.now();
        send(&mut producer, partition, key, value, now).unwrap();
    }
    settle(f, "flush", || producer.flush()).unwrap();
}

/// Commits one transaction with records.
pub(crate) fn write_transaction<L: Log, F: Fixture<L>>(
    f: &mut F,
    producer: &mut L::Producer,
    partition: &TopicPartition,
    values: &[&str],
    outcome: Outcome,
) {
    producer.begin_transaction().unwrap();
    for value in values {
        let now = f.now();
        send(producer, partition, value, value, now).unwrap();
    }
    match outcome {
        Outcome::Commit => commit(f, producer),
        Outcome::Abort => {
            // A client may take back what it has not sent: an aborted record is one that is there.
            settle(f, "flush", || producer.flush()).unwrap();
            abort(f, producer);
        }
    }
}

/// How a transaction ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome {
    Commit,
    Abort,
}

/// What was read, copied out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) offset: Offset,
    pub(crate) timestamp: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Headers,
}

impl Seen {
    pub(crate) fn of(message: &impl LogMessage) -> Self {
        Self {
            offset: message.offset(),
            timestamp: message.timestamp(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.value().map(<[u8]>::to_vec),
            headers: message.headers(),
        }
    }

    /// Returns the value as text; a tombstone is empty.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.value.clone().unwrap_or_default()).unwrap()
    }
}

/// Reads a partition from its start to its end by `isolation`.
pub(crate) fn read<L: Log, F: Fixture<L>>(
    f: &mut F,
    partition: &TopicPartition,
    isolation: Isolation,
) -> Vec<Seen> {
    let log = f.log().clone();
    let range = settle(f, "ranges", || {
        log.log_ranges(std::slice::from_ref(partition), isolation)
    })
    .unwrap()
    .remove(0);
    let mut reader = log.reader(isolation).unwrap();
    reader.assign(&[(partition.clone(), range.start)]).unwrap();
    let mut seen = Vec::new();
    eventually(f, "the reader reaches the end", |_| {
        let mut batch = Vec::new();
        match reader.poll(100, Duration::from_millis(50), &mut batch) {
            Ok(_) | Err(LogError::Retriable { .. }) => {}
            Err(error) => panic!("poll: {error}"),
        }
        seen.extend(batch.iter().map(Seen::of));
        (reader.position(partition)? >= range.end).then_some(())
    });
    seen
}

/// Returns the committed values of a partition.
pub(crate) fn committed_values<L: Log, F: Fixture<L>>(
    f: &mut F,
    partition: &TopicPartition,
) -> Vec<String> {
    read(f, partition, Isolation::ReadCommitted)
        .iter()
        .map(Seen::text)
        .collect()
}

/// Waits until a partition has these committed values (a commit's markers may come after its reply).
pub(crate) fn await_values<L: Log, F: Fixture<L>>(
    f: &mut F,
    partition: &TopicPartition,
    expected: &[&str],
) {
    let mut last = Vec::new();
    let what = format!("{partition} has the committed values {expected:?}");
    eventually(f, &what, |f| {
        last = committed_values(f, partition);
        (last == expected).then_some(())
    });
}

/// A group member that follows the membership protocol.
pub(crate) struct Member<L: Log> {
    pub(crate) consumer: L::Consumer,
    pub(crate) owned: BTreeSet<TopicPartition>,
    pub(crate) events: Vec<MembershipEvent>,
    /// `Revoked` events are not answered while this holds.
    pub(crate) withholds: bool,
}

/// Returns what a member is set up with.
pub(crate) fn member_spec(group: &str, client_id: &str, instance: Option<&str>) -> ConsumerSpec {
    ConsumerSpec {
        group: group.to_owned(),
        group_instance_id: instance.map(str::to_owned),
        client_id: client_id.to_owned(),
        session_timeout: SESSION_TIMEOUT,
    }
}

impl<L: Log> Member<L> {
    /// Joins a group.
    pub(crate) fn join<F: Fixture<L>>(f: &F, spec: &ConsumerSpec, topics: &[TopicName]) -> Self {
        let mut consumer = f.log().consumer(spec).unwrap();
        consumer.subscribe(topics).unwrap();
        Self {
            consumer,
            owned: BTreeSet::new(),
            events: Vec::new(),
            withholds: false,
        }
    }

    /// Polls the membership once and answers the event.
    pub(crate) fn step(&mut self) {
        let event = match self.consumer.poll_membership() {
            Ok(Some(event)) => event,
            Ok(None) | Err(LogError::Retriable { .. }) => return,
            Err(error) => panic!("poll membership: {error}"),
        };
        self.events.push(event.clone());
        match event {
            MembershipEvent::Assigned(partitions) => {
                let from: Vec<_> = partitions.iter().map(|one| (one.clone(), 0)).collect();
                self.consumer.assign(&from).unwrap();
                self.owned.extend(partitions);
            }
            MembershipEvent::Revoked(_) if self.withholds => {}
            MembershipEvent::Revoked(partitions) | MembershipEvent::Lost(partitions) => {
                self.consumer.unassign(&partitions).unwrap();
                self.owned.retain(|one| !partitions.contains(one));
            }
        }
    }
}

/// Lets all members follow the protocol until `done`.
pub(crate) fn run_until<L: Log, F: Fixture<L>>(
    f: &mut F,
    members: &mut [&mut Member<L>],
    what: &str,
    mut done: impl FnMut(&[&mut Member<L>]) -> bool,
) {
    eventually(f, what, |_| {
        members.iter_mut().for_each(|member| member.step());
        done(members).then_some(())
    });
}

/// Waits until the members own `partitions` among them, each its share.
pub(crate) fn await_balance<L: Log, F: Fixture<L>>(
    f: &mut F,
    members: &mut [&mut Member<L>],
    partitions: usize,
) {
    let share = partitions / members.len();
    run_until(f, members, "the group is balanced", |members| {
        let owned: BTreeSet<_> = members.iter().flat_map(|one| one.owned.iter()).collect();
        let even = members
            .iter()
            .all(|one| one.owned.len() >= share && one.consumer.is_member());
        owned.len() == partitions && even
    });
}

/// Polls one assigned partition until `count` records are there; all of them.
pub(crate) fn poll_records<L: Log, F: Fixture<L>>(
    f: &mut F,
    member: &mut Member<L>,
    partition: &TopicPartition,
    count: usize,
) -> Vec<Seen> {
    let mut records: VecDeque<L::Message> = VecDeque::new();
    eventually(f, "records arrive", |_| {
        member.step();
        match member.consumer.poll(partition, 100, &mut records) {
            Ok(_) | Err(LogError::Retriable { .. }) => {}
            Err(error) => panic!("poll: {error}"),
        }
        (records.len() >= count).then_some(())
    });
    records.iter().map(Seen::of).collect()
}

/// Returns the committed offsets of a group by partition, once they are stable.
pub(crate) fn stable_offsets<L: Log, F: Fixture<L>>(
    f: &mut F,
    group: &str,
    partitions: &[TopicPartition],
) -> BTreeMap<TopicPartition, CommittedOffset> {
    let log = f.log().clone();
    let offsets = settle(f, "group offsets", || log.group_offsets(group, partitions)).unwrap();
    partitions
        .iter()
        .cloned()
        .zip(offsets)
        .filter_map(|(partition, offset)| Some((partition, offset?)))
        .collect()
}

/// All cases that take no more time than their round trips.
macro_rules! conformance_suite {
    ($fixture:expr) => {
        conformance_tests! { $fixture;
            transactions::a_commit_is_visible_in_all_partitions,
            transactions::an_abort_is_never_visible,
            transactions::an_open_transaction_holds_the_last_stable_offset,
            transactions::position_moves_past_markers_and_aborted_records,
            transactions::markers_take_an_offset,
            transactions::an_uncommitted_reader_sees_everything,
            transactions::offsets_commit_with_the_transaction,
            transactions::offsets_of_an_aborted_transaction_are_forgotten,
            transactions::pending_offsets_are_retriable,
            transactions::acknowledged_offsets_are_taken_once,
            transactions::an_empty_transaction_commits_and_aborts,
            fencing::a_second_producer_fences_the_first,
            fencing::init_aborts_what_the_predecessor_left_open,
            fencing::a_commit_with_an_old_generation_is_refused,
            fencing::a_member_that_left_cannot_commit,
            fencing::a_replaced_static_member_cannot_commit,
            groups::one_member_owns_everything,
            groups::partitions_move_cooperatively_when_a_member_joins,
            groups::a_partition_moves_only_after_revocation_was_answered,
            groups::partitions_move_when_a_member_leaves,
            groups::a_static_member_restarts_without_a_rebalance,
            groups::unsubscribed_partitions_can_be_assigned_too,
            groups::members_show_client_id_and_assignment,
            groups::offsets_keep_their_metadata,
            transactions::metadata_beyond_the_limit_is_refused,
            groups::offsets_are_altered_only_without_members,
            groups::a_consumer_reads_in_order_from_its_offset,
            groups::a_consumer_sees_committed_records_only,
            groups::seek_never_delivers_older_records,
            groups::a_member_without_partitions_is_a_member,
            positions::an_empty_partition_keeps_its_position_through_a_rebalance,
            positions::a_member_at_the_end_misses_nothing_that_comes_after_a_rebalance,
            positions::a_position_passes_aborted_records_when_there_is_nothing_else,
            positions::a_position_passes_the_markers_at_the_end,
            positions::a_seek_moves_the_position_to_its_target_at_once,
            positions::a_position_at_the_end_stays_good_when_the_log_start_moves_there,
            positions::a_position_stops_at_the_last_stable_offset,
            positions::a_reader_is_at_the_end_exactly_when_all_of_it_was_read,
            records::one_partition_keeps_its_order,
            records::headers_timestamps_and_nulls_come_back_as_written,
            records::keyed_records_go_where_java_puts_them,
            records::a_record_that_is_too_large_is_refused,
            records::a_record_without_a_key_is_refused_by_a_compacted_topic,
            records::a_timestamp_that_the_topic_does_not_take_is_refused,
            records::a_topic_that_does_not_exist_is_unknown,
            records::a_position_beyond_the_end_is_out_of_range,
            admin::topics_are_described_and_recreated_under_another_id,
            admin::ranges_differ_by_isolation,
            admin::deleted_records_are_gone,
            admin::creating_and_deleting_topics_is_idempotent,
            admin::topics_are_listed_from_their_creation_to_their_deletion,
        }
    };
}

/// Cases in which something must time out or be cleaned up: slow on a real broker.
macro_rules! conformance_slow_suite {
    ($fixture:expr) => {
        conformance_tests! { $fixture;
            groups::a_killed_members_partitions_move_after_its_session,
            fencing::a_transaction_that_times_out_is_aborted_and_fenced,
            cleanup::compaction_keeps_the_latest_record_of_a_key,
            cleanup::compaction_drops_a_tombstone_after_its_retention,
            cleanup::compaction_spares_an_open_transaction,
            cleanup::retention_deletes_old_records,
        }
    };
}
