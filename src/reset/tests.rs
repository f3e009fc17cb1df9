//! Each rule of the plan, above all invariant 7.

use std::sync::Arc;

use super::*;
use crate::log::{GroupMember, LogRange, TopicName, TopicPartition};
use crate::topology::Durability;

fn topic(name: &str) -> TopicName {
    Arc::from(name)
}

fn partition(partition: i32, committed: Option<(i64, u64)>, range: (i64, i64)) -> PartitionFacts {
    let committed = committed.map(|(offset, generation)| Position { offset, generation });
    PartitionFacts {
        partition,
        committed,
        range: LogRange {
            start: range.0,
            end: range.1,
        },
    }
}

/// The account topology after a while: events, commands, a history, a projection, a repartition.
fn account() -> ResetFacts {
    let store = |name: &str, durability| StoreFacts {
        name: name.to_owned(),
        durability,
        changelog: Some(topic(&format!("billing-{name}-changelog"))),
    };
    let existing = [
        "events",
        "commands",
        "balances",
        "dlq",
        "billing-history-changelog",
        "billing-accounts-changelog",
        "billing-by-status-repartition",
    ];
    ResetFacts {
        application_id: "billing".to_owned(),
        members: Vec::new(),
        sources: vec![
            SourceFacts {
                topic: topic("events"),
                rewindable: true,
                partitions: vec![
                    partition(0, Some((100, 3)), (0, 120)),
                    partition(1, Some((80, 3)), (7, 80)),
                    partition(2, None, (0, 0)),
                ],
            },
            SourceFacts {
                topic: topic("commands"),
                rewindable: false,
                partitions: vec![
                    partition(0, Some((40, 3)), (0, 45)),
                    partition(1, None, (12, 12)),
                ],
            },
        ],
        repartitions: vec![RepartitionFacts {
            topic: topic("billing-by-status-repartition"),
            partitions: 2,
            generation: 3,
        }],
        stores: vec![
            store("history", Durability::Record),
            store("accounts", Durability::Derived),
        ],
        outputs: vec![
            topic("events"),
            topic("balances"),
            topic("dlq"),
            topic("replies"),
        ],
        existing: existing.into_iter().map(topic).collect(),
    }
}

fn steps(facts: &ResetFacts) -> ResetSteps {
    match plan(facts) {
        ResetPlan::Reset(steps) => steps,
        other => panic!("not a reset: {other:?}"),
    }
}

fn refusals(facts: &ResetFacts) -> Vec<Refusal> {
    match plan(facts) {
        ResetPlan::Refused(refusals) => refusals,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn rewindable_sources_go_to_the_start_of_the_log() {
    let rewinds = steps(&account()).rewinds;
    let moves: Vec<(i32, Option<i64>, i64)> = rewinds
        .iter()
        .map(|plan| (plan.partition.partition, plan.from, plan.to))
        .collect();
    assert_eq!(moves, [(0, Some(100), 0), (1, Some(80), 7), (2, None, 0)]);
}

#[test]
fn command_topics_are_never_rewound() {
    let facts = account();
    let steps = steps(&facts);
    let positions: Vec<(i32, i64)> = steps
        .kept_positions
        .iter()
        .map(|plan| (plan.partition.partition, plan.to))
        .collect();
    assert_eq!(positions, [(0, 40), (1, 12)]);
    for (partition, offset) in steps.offsets_after() {
        if &*partition.topic == "commands" {
            let before = facts.sources[1]
                .partitions
                .iter()
                .find(|p| p.partition == partition.partition);
            let committed = before
                .and_then(|p| p.committed)
                .map_or(0, |position| position.offset);
            assert!(
                offset >= committed,
                "{partition} rewound from {committed} to {offset}"
            );
        }
    }
}

#[test]
fn a_topic_read_as_commands_and_as_events_is_not_rewound() {
    let mut facts = account();
    let mut again = facts.sources[1].clone();
    again.rewindable = true;
    facts.sources.push(again);
    assert!(
        steps(&facts)
            .rewinds
            .iter()
            .all(|plan| &*plan.partition.topic != "commands")
    );
}

#[test]
fn only_derived_state_is_deleted() {
    let steps = steps(&account());
    let deleted: Vec<&str> = steps
        .deletions
        .iter()
        .map(|deletion| &*deletion.topic)
        .collect();
    assert_eq!(
        deleted,
        [
            "billing-accounts-changelog",
            "billing-by-status-repartition"
        ]
    );
    assert_eq!(
        steps.kept,
        [KeptStore {
            store: "history".to_owned(),
            changelog: topic("billing-history-changelog")
        }]
    );
}

#[test]
fn a_topic_that_does_not_exist_is_not_deleted() {
    let mut facts = account();
    facts.existing.remove("billing-accounts-changelog");
    assert_eq!(steps(&facts).deletions.len(), 1);
}

#[test]
fn every_offset_gets_the_next_generation() {
    let facts = account();
    let steps = steps(&facts);
    assert_eq!(steps.generation, 4);
    let partitions: Vec<String> = steps
        .offsets_after()
        .map(|(partition, offset)| format!("{partition}={offset}"))
        .collect();
    assert_eq!(
        partitions,
        [
            "events-0=0",
            "events-1=7",
            "events-2=0",
            "commands-0=40",
            "commands-1=12",
            "billing-by-status-repartition-0=0",
            "billing-by-status-repartition-1=0",
        ]
    );
}

#[test]
fn the_generation_rises_above_the_highest_one_anywhere() {
    let mut facts = account();
    facts.sources[0].partitions[1].committed = Some(Position {
        offset: 80,
        generation: 9,
    });
    assert_eq!(steps(&facts).generation, 10);
    facts.repartitions[0].generation = 11;
    assert_eq!(steps(&facts).generation, 12);
}

#[test]
fn a_reset_that_was_interrupted_can_be_run_again() {
    // After the first step of a reset: nothing moved, the topics partly gone.
    let mut facts = account();
    let first = steps(&facts);
    facts.existing.remove("billing-accounts-changelog");
    facts.existing.remove("billing-by-status-repartition");
    facts.repartitions[0].generation = 0;
    let second = steps(&facts);
    assert_eq!(second.rewinds, first.rewinds);
    assert_eq!(second.kept_positions, first.kept_positions);
    assert!(second.generation >= first.generation);
}

#[test]
fn the_first_step_marks_every_committed_offset_where_it_is() {
    let steps = steps(&account());
    let marked: Vec<String> = steps
        .offsets_before()
        .map(|(partition, offset)| format!("{partition}={offset}"))
        .collect();
    assert_eq!(marked, ["events-0=100", "events-1=80", "commands-0=40"]);
}

#[test]
fn members_alive_refuse_the_reset_by_name() {
    let mut facts = account();
    facts.members = vec![
        GroupMember {
            client_id: "node-1:8080".to_owned(),
            group_instance_id: Some("billing-7f-0".to_owned()),
            assignment: vec![
                TopicPartition::new("events", 0),
                TopicPartition::new("events", 1),
            ],
        },
        GroupMember {
            client_id: "node-2:8080".to_owned(),
            group_instance_id: None,
            assignment: Vec::new(),
        },
    ];
    assert_eq!(refusals(&facts).len(), 2);
    assert_eq!(
        plan(&facts).to_string(),
        "refused; nothing was changed\n  \
         member `billing-7f-0` is alive and owns events-0, events-1: stop it; one that was killed \
         is gone after its session timeout\n  \
         member `node-2:8080` is alive: stop it; one that was killed is gone after its session \
         timeout"
    );
}

#[test]
fn a_command_topic_with_records_and_no_position_refuses_the_reset() {
    let mut facts = account();
    facts.sources[1].partitions[1] = partition(1, None, (0, 5));
    let partition = TopicPartition::new("commands", 1);
    let range = LogRange { start: 0, end: 5 };
    assert_eq!(
        refusals(&facts),
        [Refusal::PositionUnknown { partition, range }]
    );
}

#[test]
fn a_record_store_without_changelog_refuses_the_reset() {
    let mut facts = account();
    facts.stores[0].changelog = None;
    let store = "history".to_owned();
    assert_eq!(
        refusals(&facts),
        [Refusal::RecordStoreWithoutChangelog { store }]
    );
}

#[test]
fn an_application_without_a_trace_needs_no_reset() {
    let mut facts = account();
    facts
        .existing
        .retain(|topic| !topic.starts_with("billing-"));
    for source in &mut facts.sources {
        for partition in &mut source.partitions {
            partition.committed = None;
        }
    }
    assert_eq!(plan(&facts), ResetPlan::Nothing);
}

#[test]
fn state_without_any_position_is_no_clean_slate() {
    // All offsets have expired; the history is still there, and so are commands.
    let mut facts = account();
    facts
        .existing
        .retain(|topic| !topic.starts_with("billing-") || topic.contains("history"));
    for source in &mut facts.sources {
        for partition in &mut source.partitions {
            partition.committed = None;
        }
    }
    assert_eq!(refusals(&facts).len(), 1);
}

#[test]
fn outputs_that_are_not_read_keep_old_results() {
    let outputs = steps(&account()).outputs;
    assert_eq!(outputs, [topic("balances"), topic("dlq")]);
}

#[test]
fn the_plan_reads_like_a_plan() {
    assert_eq!(
        plan(&account()).to_string(),
        "\
read again from the beginning
  events-0: 100 -> 0
  events-1: 80 -> 7 (what was before has expired)
  events-2: none -> 0
delete
  billing-accounts-changelog: changelog of the derived store `accounts`
  billing-by-status-repartition: repartition topic, created again empty
keep
  commands-0: records up to 40 are done
  commands-1: records up to 12 are done
  billing-history-changelog: changelog of the record store `history`
keep, with old results before the new ones
  balances
  dlq
local state
  stale on every node: generation 3 -> 4"
    );
}

#[test]
fn a_repartition_topic_that_an_interrupted_reset_deleted_is_created_again() {
    let mut facts = account();
    let repartition = topic("billing-by-status-repartition");
    facts.existing.remove(&repartition);
    facts.repartitions[0].generation = 0;
    let steps = steps(&facts);
    let again: Vec<_> = steps
        .deletions
        .iter()
        .filter(|deletion| deletion.topic == repartition)
        .collect();
    assert!(
        matches!(
            again[..],
            [Deletion {
                exists: false,
                reason: DeletionReason::Repartition(2),
                ..
            }]
        ),
        "{again:?}"
    );
    let offsets = steps.offsets_after();
    assert_eq!(offsets.filter(|(at, _)| at.topic == repartition).count(), 2);
    let text = ResetPlan::Reset(steps).to_string();
    assert!(text.contains("missing, created again"), "{text}");
}

#[test]
fn missing_repartition_topics_alone_are_nothing_to_reset() {
    let mut facts = account();
    facts.existing.clear();
    for source in &mut facts.sources {
        source.partitions.clear();
    }
    assert_eq!(plan(&facts), ResetPlan::Nothing);
}

mod interrupted {
    //! A reset that ends between its steps, on the embedded log.

    use std::sync::Arc;

    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::format::offset_metadata::OffsetMetadata;
    use crate::log::embedded::EmbeddedLog;
    use crate::log::{CommittedOffset, Log};
    use crate::prelude::*;
    use crate::reset::execute::{delete, mark};
    use crate::runtime::{RuntimeConfig, ensure_topics};

    const REPARTITION: &str = "app-by-length-repartition";

    fn topology() -> Arc<Topology> {
        let builder = StreamsBuilder::new();
        builder
            .stream("words", Consumed::with(serdes::string(), serdes::string()))
            .group_by(
                |_: &String, word: &String| word.len().to_string(),
                Grouped::with("by-length", serdes::string(), serdes::string()),
            )
            .count(Materialized::as_store(
                "counts",
                serdes::string(),
                serdes::i64(),
            ));
        Arc::new(builder.build().unwrap())
    }

    fn both() -> [TopicPartition; 2] {
        ["words", REPARTITION].map(|topic| TopicPartition::new(topic, 0))
    }

    #[test]
    fn a_reset_killed_between_deletion_and_creation_is_finished_by_the_next() {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(1_704_067_200_000));
        let log = EmbeddedLog::in_memory(clock).with_virtual_time();
        let topology = topology();
        let mut config = RuntimeConfig::new("app", "unused");
        config.default_partitions = 1;
        ensure_topics(&log, &topology, &config).unwrap();
        let committed = both().map(|partition| {
            let metadata = OffsetMetadata::new(None, 0).encode();
            (
                partition,
                CommittedOffset {
                    offset: 0,
                    metadata,
                },
            )
        });
        log.alter_group_offsets("app", &committed).unwrap();

        let first = steps(&collect_facts(&log, &topology, &config).unwrap());
        mark(&log, "app", &first).unwrap();
        delete(&log, &first).unwrap();
        assert_eq!(log.describe_topics(&[REPARTITION]).unwrap(), [None]);
        // Killed here.
        let second = steps(&collect_facts(&log, &topology, &config).unwrap());
        execute(&log, &config, &second).unwrap();

        assert!(log.describe_topics(&[REPARTITION]).unwrap()[0].is_some());
        for offset in log.group_offsets("app", &both()).unwrap() {
            let metadata = OffsetMetadata::decode(&offset.unwrap().metadata).unwrap();
            assert_eq!(metadata.generation(), second.generation);
            assert!(!metadata.entries.contains_key(PENDING_KEY));
        }
    }

    /// A log with topics of one partition, and the facts of `builder`'s application after it has
    /// committed offset 0 of `read`.
    fn facts_after(builder: StreamsBuilder, topics: &[&str], read: &[&str]) -> ResetFacts {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(1_704_067_200_000));
        let log = EmbeddedLog::in_memory(clock).with_virtual_time();
        let specs = topics.iter().map(|name| crate::log::TopicSpec {
            name: (*name).into(),
            partitions: 1,
            replication_factor: None,
            config: std::collections::BTreeMap::new(),
        });
        log.create_topics(&specs.collect::<Vec<_>>()).unwrap();
        let mut config = RuntimeConfig::new("app", "unused");
        config.default_partitions = 1;
        let topology = Arc::new(builder.build().unwrap());
        ensure_topics(&log, &topology, &config).unwrap();
        let metadata = OffsetMetadata::new(None, 0).encode();
        let committed = read.iter().map(|topic| {
            let (offset, metadata) = (0, metadata.clone());
            (
                TopicPartition::new(*topic, 0),
                CommittedOffset { offset, metadata },
            )
        });
        let committed: Vec<_> = committed.collect();
        log.alter_group_offsets("app", &committed).unwrap();
        collect_facts(&log, &topology, &config).unwrap()
    }

    fn texts() -> Consumed<String, String> {
        Consumed::with(serdes::string(), serdes::string())
    }

    #[test]
    fn a_global_table_is_left_alone() {
        let builder = StreamsBuilder::new();
        let store = Materialized::as_store("users", serdes::string(), serdes::string());
        let users = builder.global_table("users", texts(), store);
        builder
            .stream("orders", texts())
            .join_global_table(&users, |key, _| Some(key.clone()), |_, _, name| name)
            .to("out", Produced::with(serdes::string(), serdes::string()));
        let facts = facts_after(builder, &["users"], &["orders"]);
        let read: Vec<&str> = facts.sources.iter().map(|source| &*source.topic).collect();
        assert_eq!(read, ["orders"], "no offsets are committed for a mirror");
        assert_eq!(
            facts.stores,
            [],
            "a mirror has nothing that a reset could rebuild"
        );
        let steps = steps(&facts);
        assert_eq!(steps.deletions, []);
        let moved = steps.offsets_after().map(|(partition, _)| partition);
        assert!(moved.eq([TopicPartition::new("orders", 0)]));
    }

    #[test]
    fn every_topic_that_a_pattern_matches_goes_to_its_start_and_the_driver_stays() {
        let builder = StreamsBuilder::new();
        builder
            .stream_pattern("in-.*|app.*", texts().named("inputs"))
            .to("out", Produced::with(serdes::string(), serdes::string()));
        let facts = facts_after(builder, &["in-1", "in-2", "other"], &["in-1", "in-2"]);
        let read: Vec<&str> = facts.sources.iter().map(|source| &*source.topic).collect();
        assert_eq!(read, ["in-1", "in-2"]);
        assert!(facts.existing.contains("app-inputs-millstream-driver"));
        assert_eq!(steps(&facts).deletions, []);
    }
}
