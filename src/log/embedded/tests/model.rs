//! Random operations on the log, compared step by step with a model that keeps everything in
//! vectors and says what a read-committed reader must see.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::super::*;
use crate::clock::ManualClock;
use crate::log::{Headers, LogConsumer, LogMessage, LogProducer, LogReader, ProducerRecord};

pub(super) const PARTITIONS: i32 = 2;
const PRODUCERS: usize = 3;
const TIMEOUT_MS: i64 = 10_000;

#[derive(Debug, Clone)]
pub(super) enum Op {
    Send {
        producer: usize,
        partition: i32,
    },
    Plain {
        partition: i32,
    },
    Offsets {
        producer: usize,
        partition: i32,
    },
    Commit {
        producer: usize,
        fault: Option<Fault>,
    },
    Abort {
        producer: usize,
    },
    /// The producer is killed and another one of its id comes up.
    Restart {
        producer: usize,
    },
    DeleteRecords {
        partition: i32,
        share: u8,
    },
    Pass {
        time: i64,
    },
}

pub(super) fn ops() -> impl Strategy<Value = Vec<Op>> {
    let producer = 0..PRODUCERS;
    let partition = 0..PARTITIONS;
    let fault = prop_oneof![
        6 => Just(None),
        1 => Just(Some(Fault::RequestLost)),
        1 => Just(Some(Fault::ReplyLost)),
        1 => Just(Some(Fault::AbortRequired)),
    ];
    let op = prop_oneof![
        8 => (producer.clone(), partition.clone())
            .prop_map(|(producer, partition)| Op::Send { producer, partition }),
        2 => partition.clone().prop_map(|partition| Op::Plain { partition }),
        3 => (producer.clone(), partition.clone())
            .prop_map(|(producer, partition)| Op::Offsets { producer, partition }),
        4 => (producer.clone(), fault)
            .prop_map(|(producer, fault)| Op::Commit { producer, fault }),
        2 => producer.clone().prop_map(|producer| Op::Abort { producer }),
        1 => producer.prop_map(|producer| Op::Restart { producer }),
        1 => (partition, any::<u8>())
            .prop_map(|(partition, share)| Op::DeleteRecords { partition, share }),
        1 => (0..TIMEOUT_MS).prop_map(|time| Op::Pass { time }),
    ];
    prop::collection::vec(op, 1..80)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Committed,
    Aborted,
}

#[derive(Debug, Clone, Default)]
struct ModelPartition {
    start: usize,
    /// Value (none for a marker) and transaction of each offset.
    slots: Vec<(Option<u32>, Option<usize>)>,
}

#[derive(Debug, Clone, Default)]
struct ModelTransaction {
    fate: Option<Fate>,
    started: i64,
    partitions: Vec<usize>,
    offsets: BTreeMap<i32, Offset>,
}

/// What a reader sees: per partition the start and the committed values, and the group's offsets.
pub(super) type View = (Vec<(Offset, Vec<u32>)>, BTreeMap<i32, Offset>);

#[derive(Debug, Default)]
struct Model {
    partitions: Vec<ModelPartition>,
    transactions: Vec<ModelTransaction>,
    offsets: BTreeMap<i32, Offset>,
}

impl Model {
    fn end(&mut self, number: usize, fate: Fate) {
        let transaction = &mut self.transactions[number];
        transaction.fate = Some(fate);
        for partition in transaction.partitions.clone() {
            self.partitions[partition].slots.push((None, None));
        }
        if fate == Fate::Committed {
            self.offsets
                .extend(self.transactions[number].offsets.clone());
        }
    }

    fn is_open(&self, number: usize) -> bool {
        self.transactions[number].fate == Some(Fate::Open)
    }

    fn view(&self) -> View {
        let read = |partition: &ModelPartition| {
            let open =
                |slot: &(Option<u32>, Option<usize>)| slot.1.is_some_and(|n| self.is_open(n));
            let end = partition
                .slots
                .iter()
                .position(open)
                .unwrap_or(partition.slots.len());
            let end = end.max(partition.start);
            let kept = partition.slots[partition.start..end]
                .iter()
                .filter(|(_, number)| {
                    number.is_none_or(|one| self.transactions[one].fate == Some(Fate::Committed))
                });
            let start = i64::try_from(partition.start).unwrap();
            (start, kept.filter_map(|(value, _)| *value).collect())
        };
        (
            self.partitions.iter().map(read).collect(),
            self.offsets.clone(),
        )
    }
}

/// Injects one fault at the next commit.
#[derive(Debug, Default)]
struct Next(Mutex<Option<Fault>>);

impl FaultPlan for Next {
    fn decide(&self, site: &FaultSite<'_>) -> Option<Fault> {
        if site.point == FaultPoint::Commit {
            self.0.lock().unwrap().take()
        } else {
            None
        }
    }
}

pub(super) struct Run {
    pub(super) log: EmbeddedLog,
    clock: ManualClock,
    model: Model,
    producers: Vec<(EmbeddedProducer, Option<usize>)>,
    consumer: EmbeddedConsumer,
    faults: Arc<Next>,
    next_value: u32,
}

pub(super) fn partition_of(number: i32) -> TopicPartition {
    TopicPartition::new("topic", number)
}

pub(super) fn producer_spec(id: &str) -> ProducerSpec {
    ProducerSpec {
        transactional_id: Some(id.to_owned()),
        transaction_timeout: Duration::from_millis(10_000),
        client_id: "client".to_owned(),
    }
}

pub(super) fn topic_spec(name: &str, config: &[(&str, &str)]) -> TopicSpec {
    TopicSpec {
        name: name.into(),
        partitions: PARTITIONS,
        replication_factor: None,
        config: config
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()))
            .collect(),
    }
}

pub(super) fn put(
    producer: &mut EmbeddedProducer,
    partition: &TopicPartition,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Result<(), LogError> {
    producer.send(ProducerRecord {
        topic: &partition.topic,
        partition: Some(partition.partition),
        key,
        value,
        timestamp: 0,
        headers: &Headers::new(),
    })
}

/// Reads what a read-committed reader sees of the topic, and the group's offsets.
pub(super) fn view_of(log: &EmbeddedLog) -> View {
    let read = |number| {
        let partition = partition_of(number);
        let range = log
            .log_ranges(std::slice::from_ref(&partition), Isolation::ReadCommitted)
            .unwrap()[0];
        let mut reader = log.reader(Isolation::ReadCommitted).unwrap();
        reader.assign(&[(partition.clone(), range.start)]).unwrap();
        let mut messages = Vec::new();
        while reader.poll(7, Duration::ZERO, &mut messages).unwrap() > 0 {}
        assert_eq!(reader.position(&partition), Some(range.end));
        let value =
            |one: &EmbeddedMessage| u32::from_be_bytes(one.value().unwrap().try_into().unwrap());
        (range.start, messages.iter().map(value).collect())
    };
    let core = log.core();
    let offsets = core.state.offsets.get("group").cloned().unwrap_or_default();
    drop(core);
    let offsets = offsets
        .into_iter()
        .map(|(one, committed)| (one.partition, committed.offset));
    ((0..PARTITIONS).map(read).collect(), offsets.collect())
}

impl Run {
    pub(super) fn new(log: EmbeddedLog, clock: ManualClock) -> Self {
        let log = log.with_virtual_time();
        log.create_topics(&[topic_spec("topic", &[])]).unwrap();
        let faults = Arc::new(Next::default());
        log.set_faults(Some(Arc::clone(&faults) as Arc<dyn FaultPlan>));
        let mut consumer = log
            .consumer(&ConsumerSpec {
                group: "group".to_owned(),
                group_instance_id: None,
                client_id: "client".to_owned(),
                session_timeout: Duration::from_secs(1_000_000),
            })
            .unwrap();
        consumer.subscribe(&["topic".into()]).unwrap();
        assert!(consumer.poll_membership().unwrap().is_some());
        consumer.assign(&[]).unwrap();
        let mut run = Self {
            log,
            clock,
            model: Model {
                partitions: vec![ModelPartition::default(); usize::try_from(PARTITIONS).unwrap()],
                ..Model::default()
            },
            producers: Vec::new(),
            consumer,
            faults,
            next_value: 0,
        };
        for producer in 0..PRODUCERS {
            let started = run.start(producer);
            run.producers.push((started, None));
        }
        run
    }

    fn start(&self, producer: usize) -> EmbeddedProducer {
        let mut started = self
            .log
            .producer(&producer_spec(&format!("id-{producer}")))
            .unwrap();
        started.init_transactions().unwrap();
        started
    }

    /// Returns the producer's open transaction, begun if need be.
    fn transaction(&mut self, producer: usize) -> usize {
        if let Some(number) = self.producers[producer].1 {
            return number;
        }
        self.producers[producer].0.begin_transaction().unwrap();
        self.model.transactions.push(ModelTransaction::default());
        let number = self.model.transactions.len() - 1;
        self.producers[producer].1 = Some(number);
        number
    }

    /// A transaction has written something.
    fn touch(&mut self, number: usize) -> &mut ModelTransaction {
        let now = self.clock.now_ms();
        let transaction = &mut self.model.transactions[number];
        if transaction.fate.is_none() {
            *transaction = ModelTransaction {
                fate: Some(Fate::Open),
                started: now,
                ..Default::default()
            };
        }
        transaction
    }

    pub(super) fn step(&mut self, op: &Op) {
        match *op {
            Op::Send {
                producer,
                partition,
            } => self.send(producer, partition),
            Op::Plain { partition } => self.plain(partition),
            Op::Offsets {
                producer,
                partition,
            } => self.offsets(producer, partition),
            Op::Commit { producer, fault } => self.commit(producer, fault),
            Op::Abort { producer } => {
                let number = self.transaction(producer);
                self.producers[producer].0.abort_transaction().unwrap();
                if self.model.is_open(number) {
                    self.model.end(number, Fate::Aborted);
                }
                self.producers[producer].1 = None;
            }
            Op::Restart { producer } => {
                let started = self.start(producer);
                let (_, open) = std::mem::replace(&mut self.producers[producer], (started, None));
                if let Some(number) = open.filter(|number| self.model.is_open(*number)) {
                    self.model.end(number, Fate::Aborted);
                }
            }
            Op::DeleteRecords { partition, share } => {
                let model = &mut self.model.partitions[usize::try_from(partition).unwrap()];
                let start = model.slots.len() * usize::from(share) / 255;
                model.start = model.start.max(start);
                let below = (partition_of(partition), i64::try_from(start).unwrap());
                self.log.delete_records(&[below]).unwrap();
            }
            Op::Pass { time } => self.pass(time),
        }
        assert_eq!(view_of(&self.log), self.model.view());
    }

    pub(super) fn view(&self) -> View {
        self.model.view()
    }

    fn value(&mut self) -> u32 {
        self.next_value += 1;
        self.next_value
    }

    fn send(&mut self, producer: usize, partition: i32) {
        let number = self.transaction(producer);
        let value = self.value();
        let bytes = value.to_be_bytes();
        let sent = &mut self.producers[producer].0;
        put(sent, &partition_of(partition), Some(b"key"), Some(&bytes)).unwrap();
        let at = usize::try_from(partition).unwrap();
        let transaction = self.touch(number);
        if !transaction.partitions.contains(&at) {
            transaction.partitions.push(at);
        }
        self.model.partitions[at]
            .slots
            .push((Some(value), Some(number)));
    }

    fn plain(&mut self, partition: i32) {
        let spec = ProducerSpec {
            transactional_id: None,
            ..producer_spec("")
        };
        let mut producer = self.log.producer(&spec).unwrap();
        let value = self.value();
        put(
            &mut producer,
            &partition_of(partition),
            None,
            Some(&value.to_be_bytes()),
        )
        .unwrap();
        producer.flush().unwrap();
        let at = usize::try_from(partition).unwrap();
        self.model.partitions[at].slots.push((Some(value), None));
    }

    fn offsets(&mut self, producer: usize, partition: i32) {
        let number = self.transaction(producer);
        let offset = i64::from(self.value());
        let committed = CommittedOffset {
            offset,
            metadata: "metadata".to_owned(),
        };
        let metadata = self.consumer.group_metadata().unwrap();
        let sent = &mut self.producers[producer].0;
        sent.send_offsets(&[(partition_of(partition), committed)], &metadata)
            .unwrap();
        self.touch(number).offsets.insert(partition, offset);
        let asked = self.log.group_offsets("group", &[partition_of(partition)]);
        assert!(
            matches!(asked, Err(LogError::Retriable { .. })),
            "{asked:?}"
        );
    }

    fn commit(&mut self, producer: usize, fault: Option<Fault>) {
        let number = self.transaction(producer);
        *self.faults.0.lock().unwrap() = fault;
        let committed = self.producers[producer].0.commit_transaction();
        // A commit of nothing asks nothing of the log, so that it meets no fault.
        let fault = self.faults.0.lock().unwrap().take().map_or(fault, |_| None);
        match fault {
            None => assert_eq!(committed, Ok(())),
            Some(Fault::AbortRequired) => {
                assert!(
                    matches!(committed, Err(LogError::AbortRequired { .. })),
                    "{committed:?}"
                );
                self.producers[producer].0.abort_transaction().unwrap();
                self.model.end(number, Fate::Aborted);
                self.producers[producer].1 = None;
                return;
            }
            Some(_) => {
                assert!(
                    matches!(committed, Err(LogError::UnknownOutcome { .. })),
                    "{committed:?}"
                );
                let aborted = self.producers[producer].0.abort_transaction();
                assert!(
                    matches!(aborted, Err(LogError::Fatal { .. })),
                    "{aborted:?}"
                );
                if fault == Some(Fault::RequestLost) {
                    assert_eq!(
                        view_of(&self.log),
                        self.model.view(),
                        "a lost request did nothing"
                    );
                }
                assert_eq!(self.producers[producer].0.commit_transaction(), Ok(()));
            }
        }
        if self.model.is_open(number) {
            self.model.end(number, Fate::Committed);
        }
        self.producers[producer].1 = None;
    }

    /// Lets time pass; what is open too long is aborted, and its producer fenced.
    fn pass(&mut self, time: i64) {
        self.clock.advance(time);
        let now = self.clock.now_ms();
        self.log.maintain().unwrap();
        for producer in 0..PRODUCERS {
            let Some(number) = self.producers[producer].1 else {
                continue;
            };
            let transaction = &self.model.transactions[number];
            if transaction.fate == Some(Fate::Open) && now > transaction.started + TIMEOUT_MS {
                self.model.end(number, Fate::Aborted);
                let refused = self.producers[producer].0.commit_transaction();
                assert!(
                    matches!(refused, Err(LogError::Fenced { .. })),
                    "{refused:?}"
                );
                self.producers[producer] = (self.start(producer), None);
            }
        }
    }
}

proptest! {
    #[test]
    fn readers_see_what_the_model_says(ops in ops()) {
        let clock = ManualClock::at(0);
        let mut run = Run::new(EmbeddedLog::in_memory(Arc::new(clock.clone())), clock);
        for op in &ops {
            run.step(op);
        }
    }

    #[test]
    fn a_snapshot_builds_the_same_state(ops in ops()) {
        let clock = ManualClock::at(0);
        let mut run = Run::new(EmbeddedLog::in_memory(Arc::new(clock.clone())), clock);
        for op in &ops {
            run.step(op);
        }
        let core = run.log.core();
        let mut rebuilt = State::default();
        for mutation in core.state.snapshot() {
            let mut bytes = Vec::new();
            codec::encode(&mutation, &mut bytes);
            prop_assert_eq!(&codec::decode(&bytes).unwrap(), &mutation);
            rebuilt.apply(mutation).unwrap();
        }
        prop_assert_eq!(&rebuilt, &core.state);
    }

    /// Whatever compaction removes, the fold of what is committed stays, and nothing at or above
    /// the last stable offset goes.
    #[test]
    fn compaction_keeps_the_fold(
        writes in prop::collection::vec((0..4_u8, prop::option::of(any::<u8>()), 0..4_u8), 1..60),
        rounds in 1..4_i64,
    ) {
        let clock = ManualClock::at(0);
        let log = EmbeddedLog::in_memory(Arc::new(clock.clone())).with_virtual_time();
        let config = [("cleanup.policy", "compact"), ("delete.retention.ms", "100")];
        log.create_topics(&[topic_spec("topic", &config)]).unwrap();
        let mut producer = log.producer(&producer_spec("id")).unwrap();
        let partition = partition_of(0);
        producer.init_transactions().unwrap();
        producer.begin_transaction().unwrap();
        let mut folded = BTreeMap::new();
        let mut pending = BTreeMap::new();
        for (key, value, end) in &writes {
            let value = value.map(|value| [value]);
            let bytes = value.as_ref().map(<[u8; 1]>::as_slice);
            put(&mut producer, &partition, Some(&[*key]), bytes).unwrap();
            pending.insert(*key, value);
            match end {
                0 => producer.commit_transaction().unwrap(),
                1 => producer.abort_transaction().unwrap(),
                _ => continue,
            }
            let pending = std::mem::take(&mut pending);
            if *end == 0 {
                folded.extend(pending);
            }
            producer.begin_transaction().unwrap();
        }
        folded.retain(|_, value| value.is_some());
        let unstable = |log: &EmbeddedLog| {
            let one = std::slice::from_ref(&partition);
            let stable = log.log_ranges(one, Isolation::ReadCommitted).unwrap()[0].end;
            let mut records = log.inspect_records(&partition).unwrap();
            records.retain(|record| record.offset >= stable);
            records
        };
        let untouched = unstable(&log);
        for _ in 0..rounds {
            log.maintain().unwrap();
            clock.advance(101);
            let mut reader = log.reader(Isolation::ReadCommitted).unwrap();
            reader.assign(&[(partition.clone(), 0)]).unwrap();
            let (mut messages, mut fold) = (Vec::new(), BTreeMap::new());
            while reader.poll(100, Duration::ZERO, &mut messages).unwrap() > 0 {}
            for message in &messages {
                let value = message.value().map(|value| [value[0]]);
                fold.insert(message.key().unwrap()[0], value);
            }
            fold.retain(|_, value| value.is_some());
            prop_assert_eq!(&fold, &folded);
            prop_assert_eq!(&unstable(&log), &untouched);
        }
    }
}
