//! Each kind of change, on topologies as their authors write them; the record, on the embedded log.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::log::embedded::EmbeddedLog;
use crate::log::{Headers, Log, LogProducer, ProducerRecord, ProducerSpec, TopicName};
use crate::prelude::*;
use crate::runtime::RuntimeConfig;
use crate::topology::{Durability, NodeRole, Persistence, Topology, TopologyDescription};

const APPLICATION: &str = "shop";

fn consumed() -> Consumed<String, String> {
    Consumed::with(serdes::string(), serdes::string())
}

fn produced() -> Produced<String, String> {
    Produced::with(serdes::string(), serdes::string())
}

/// Orders counted by customer behind a repartition topic, and passed on.
fn shop() -> Topology {
    let builder = StreamsBuilder::new();
    let orders = builder.stream("orders", consumed());
    let by_customer = Grouped::with("by-customer", serdes::string(), serdes::string());
    let counts = Materialized::as_store("counts", serdes::string(), serdes::i64());
    orders
        .group_by(|_, customer| customer.clone(), by_customer)
        .count(counts);
    orders.to("copies", produced());
    builder.build().unwrap()
}

fn planned(change: impl FnOnce(&mut TopologyDescription)) -> TopologyPlan {
    let running = shop().describe().clone();
    let mut planned = running.clone();
    change(&mut planned);
    compare(APPLICATION, Some(&running), &planned)
}

fn texts(plan: &TopologyPlan) -> Vec<String> {
    let line = |change: &TopologyChange| format!("{}: {change}", change.verdict());
    plan.changes.iter().map(line).collect()
}

#[test]
fn the_same_topology_is_unchanged() {
    let plan = planned(|_| {});
    assert_eq!(plan.verdict(), Verdict::Unchanged);
    assert_eq!(plan.to_string(), "`shop`: unchanged; nothing to do");
    assert!(plan.orphans.is_empty());
}

#[test]
fn before_the_first_start_there_is_nothing_to_compare_with() {
    let plan = compare(APPLICATION, None, shop().describe());
    assert_eq!(plan.verdict(), Verdict::Unchanged);
    assert_eq!(
        plan.to_string(),
        "`shop` has recorded no topology yet: its first start does"
    );
}

#[test]
fn what_keeps_no_state_may_change_while_old_processes_run() {
    let running = shop();
    let builder = StreamsBuilder::new();
    let orders = builder.stream("orders", consumed());
    let by_customer = Grouped::with("by-customer", serdes::string(), serdes::string());
    let counts = Materialized::as_store("counts", serdes::string(), serdes::i64());
    orders
        .group_by(|_, customer| customer.clone(), by_customer)
        .count(counts);
    orders
        .filter(|_, value| !value.is_empty())
        .named("not-empty")
        .to("full", produced());
    let new = builder.build().unwrap();
    let plan = compare(APPLICATION, Some(running.describe()), new.describe());
    assert_eq!(plan.verdict(), Verdict::Safe, "{plan}");
    let texts = texts(&plan);
    for line in [
        "safe: `full` is written",
        "safe: `copies` is no longer written",
    ] {
        assert!(texts.iter().any(|text| text == line), "{line} in {texts:?}");
    }
}

#[test]
fn a_new_store_that_missed_the_past_needs_a_reset_and_a_record_store_does_not() {
    let with_store = |record: bool| {
        let builder = StreamsBuilder::new();
        let orders = builder.stream("orders", consumed());
        let by_customer = Grouped::with("by-customer", serdes::string(), serdes::string());
        let counts = Materialized::as_store("counts", serdes::string(), serdes::i64());
        orders
            .group_by(|_, customer| customer.clone(), by_customer)
            .count(counts);
        orders.to("copies", produced());
        let mut totals = Materialized::as_store("totals", serdes::string(), serdes::i64());
        if record {
            totals = totals.record();
        }
        let grouped = Grouped::with("same-key", serdes::string(), serdes::string());
        orders.group_by_key(grouped).count(totals);
        builder.build().unwrap()
    };
    let running = shop();
    let plan = compare(
        APPLICATION,
        Some(running.describe()),
        with_store(false).describe(),
    );
    assert_eq!(plan.verdict(), Verdict::NeedsReset);
    let wanted =
        "needs reset: store `totals` is new; what was read of `orders` already is not in it";
    assert_eq!(texts(&plan).first().map(String::as_str), Some(wanted));
    let plan = compare(
        APPLICATION,
        Some(running.describe()),
        with_store(true).describe(),
    );
    assert_eq!(plan.verdict(), Verdict::NeedsRestart, "{plan}");
}

#[test]
fn a_topic_that_joins_a_task_with_state_needs_a_reset() {
    let running = shop();
    let builder = StreamsBuilder::new();
    let orders = builder.stream("orders", consumed());
    let returns = builder.stream("returns", consumed());
    let by_customer = Grouped::with("by-customer", serdes::string(), serdes::string());
    let counts = Materialized::as_store("counts", serdes::string(), serdes::i64());
    let all = orders.merge(&returns);
    all.group_by(|_, customer| customer.clone(), by_customer)
        .count(counts);
    orders.to("copies", produced());
    let new = builder.build().unwrap();
    // The store's own tasks read the repartition topic as before, so that none of them meets a
    // partition without an offset.
    let plan = compare(APPLICATION, Some(running.describe()), new.describe());
    assert_eq!(plan.verdict(), Verdict::NeedsRestart, "{plan}");
    // Read by the tasks of the store itself, it is one.
    let plan = planned(|topology| {
        let stateful = topology
            .sub_topologies
            .iter_mut()
            .find(|sub| !sub.stores.is_empty())
            .unwrap();
        let mut node = stateful.nodes.first().unwrap().clone();
        node.name = "returns-source".to_owned();
        node.role = NodeRole::Source {
            topic: "returns".to_owned(),
            rewindable: true,
            pattern: false,
        };
        stateful.nodes.push(node);
    });
    assert_eq!(plan.verdict(), Verdict::NeedsReset);
    assert!(
        texts(&plan)[0].contains("they would refuse to start"),
        "{plan}"
    );
}

/// Orders counted, with or without the returns that are read beside them, by customer or as they are.
fn counted(with_returns: bool, regrouped: bool) -> Topology {
    let builder = StreamsBuilder::new();
    let (orders, returns) = (
        builder.stream("orders", consumed()),
        builder.stream("returns", consumed()),
    );
    returns.to("copies", produced());
    let all = if with_returns {
        orders.merge(&returns)
    } else {
        orders
    };
    let by_customer = Grouped::with("by-customer", serdes::string(), serdes::string());
    let counts = Materialized::as_store("counts", serdes::string(), serdes::i64());
    if regrouped {
        let all = all.group_by(|_, customer| customer.clone(), by_customer);
        drop(all.count(counts));
    } else {
        drop(all.group_by_key(by_customer).count(counts));
    }
    builder.build().unwrap()
}

#[test]
fn a_store_that_is_fed_by_a_topic_whose_past_was_read_without_it_needs_a_reset() {
    for regrouped in [false, true] {
        let (running, new) = (counted(false, regrouped), counted(true, regrouped));
        let plan = compare(APPLICATION, Some(running.describe()), new.describe());
        assert_eq!(plan.verdict(), Verdict::NeedsReset, "{plan}");
        assert!(
            texts(&plan)[0].contains("store `counts` is fed by `returns`, too"),
            "{plan}"
        );
        let plan = compare(APPLICATION, Some(new.describe()), running.describe());
        assert!(plan.verdict() < Verdict::NeedsReset, "{plan}");
    }
}

#[test]
fn a_table_that_a_stream_looks_up_is_not_fed_by_it() {
    let topology = |joined: bool| {
        let builder = StreamsBuilder::new();
        let users = Materialized::as_store("users", serdes::string(), serdes::string());
        let users = builder.table("users", consumed(), users);
        let orders = builder.stream("orders", consumed());
        orders.to("copies", produced());
        if joined {
            orders
                .join_table(
                    &users,
                    |_, order, user| format!("{order} of {user}"),
                    Joined::as_name("named"),
                )
                .to("named", produced());
        }
        builder.build().unwrap()
    };
    let (running, new) = (topology(false), topology(true));
    let plan = compare(APPLICATION, Some(running.describe()), new.describe());
    assert!(plan.verdict() < Verdict::NeedsReset, "{plan}");
}

#[test]
fn a_repartition_topic_that_goes_leaves_an_orphan_and_unread_records() {
    let running = shop();
    let builder = StreamsBuilder::new();
    let orders = builder.stream("orders", consumed());
    let grouped = Grouped::with("as-keyed", serdes::string(), serdes::string());
    let counts = Materialized::as_store("counts", serdes::string(), serdes::i64());
    orders.group_by_key(grouped).count(counts);
    orders.to("copies", produced());
    let new = builder.build().unwrap();
    let plan = compare(APPLICATION, Some(running.describe()), new.describe());
    assert_eq!(plan.verdict(), Verdict::NeedsReset);
    assert_eq!(plan.orphans, ["shop-by-customer-repartition"]);
    let texts = texts(&plan);
    assert!(
        texts
            .iter()
            .any(|text| text.contains("is gone, with what nobody has read of it")),
        "{texts:?}"
    );
    assert!(
        texts
            .iter()
            .any(|text| text.contains("its keys may be in other partitions")),
        "{texts:?}"
    );
}

#[test]
fn a_store_that_goes_leaves_its_changelog() {
    let plan = planned(|topology| {
        for sub in &mut topology.sub_topologies {
            sub.stores.clear();
        }
    });
    assert_eq!(plan.verdict(), Verdict::NeedsRestart);
    assert_eq!(plan.orphans, ["shop-counts-changelog"]);
    assert_eq!(
        plan.to_string(),
        "`shop`: needs restart; stop all processes, then start the new ones\n\n  needs restart  \
         store `counts` is gone\n\ninternal topics that nothing uses any more; delete them when no \
         older version will run again:\n  shop-counts-changelog"
    );
}

#[test]
fn every_other_change_has_the_verdict_of_its_consequence() {
    type Edit = fn(&mut TopologyDescription);
    fn store(topology: &mut TopologyDescription) -> &mut crate::topology::StoreDescription {
        let mut subs = topology.sub_topologies.iter_mut();
        subs.find_map(|sub| sub.stores.first_mut()).unwrap()
    }
    let cases: [(Edit, Verdict, &str); 7] = [
        (
            |it| store(it).persistence = Persistence::InMemory,
            Verdict::NeedsRestart,
            "lives in memory",
        ),
        (
            |it| store(it).durability = Durability::Record,
            Verdict::Safe,
            "a reset keeps it",
        ),
        (
            |it| store(it).changelog = None,
            Verdict::NeedsRestart,
            "ends with the local disk",
        ),
        (
            |it| {
                store(it).changelog =
                    Some(BTreeMap::from([("segment.ms".to_owned(), "1".to_owned())]))
            },
            Verdict::Safe,
            "keeps its own",
        ),
        (
            |it| {
                it.repartition_topics
                    .values_mut()
                    .for_each(|count| *count = Some(7))
            },
            Verdict::NeedsReset,
            "7 partitions instead of as many",
        ),
        (
            |it| it.sub_topologies.iter_mut().for_each(|sub| sub.id += 1),
            Verdict::NeedsRestart,
            "sub-topology 0 is 1 now",
        ),
        (
            |it| {
                let nodes = it.sub_topologies.iter_mut().flat_map(|sub| &mut sub.nodes);
                for node in nodes {
                    if let NodeRole::Source { rewindable, .. } = &mut node.role {
                        *rewindable = false;
                    }
                }
            },
            Verdict::Safe,
            "no longer reads `orders` again",
        ),
    ];
    for (edit, verdict, text) in cases {
        let plan = planned(edit);
        assert_eq!(plan.verdict(), verdict, "{plan}");
        assert!(plan.to_string().contains(text), "{text}: {plan}");
    }
    // The other way round: what the store holds is not in the changelog that it gets.
    let mut running = shop().describe().clone();
    store(&mut running).changelog = None;
    let plan = compare(APPLICATION, Some(&running), shop().describe());
    assert_eq!(plan.verdict(), Verdict::NeedsReset, "{plan}");
}

#[test]
fn the_json_has_verdict_change_and_text() {
    let plan = planned(|topology| {
        topology
            .sub_topologies
            .iter_mut()
            .for_each(|sub| sub.stores.clear())
    });
    let json: serde_json::Value = serde_json::from_str(&plan.to_json()).unwrap();
    assert_eq!(json["formatVersion"], 1);
    assert_eq!(json["verdict"], "needsRestart");
    assert_eq!(json["changes"][0]["type"], "storeRemoved");
    assert_eq!(json["changes"][0]["store"], "counts");
    assert_eq!(json["changes"][0]["text"], "store `counts` is gone");
    assert_eq!(json["orphans"][0], "shop-counts-changelog");
}

struct Site {
    log: EmbeddedLog,
    config: RuntimeConfig,
    clock: Arc<dyn Clock>,
}

impl Site {
    fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        Self {
            log: EmbeddedLog::in_memory(Arc::clone(&clock)),
            config: RuntimeConfig::new(APPLICATION, "unused"),
            clock,
        }
    }

    fn announce(&self, topology: &TopologyDescription) {
        announce(&self.log, topology, &self.config, &self.clock).unwrap();
    }

    fn write_raw(&self, value: &[u8]) {
        let mut producer = self
            .log
            .producer(&ProducerSpec {
                transactional_id: None,
                transaction_timeout: std::time::Duration::from_secs(1),
                client_id: "test".to_owned(),
            })
            .unwrap();
        let topic: TopicName = "shop-millstream-topology".into();
        producer
            .send(ProducerRecord {
                topic: &topic,
                partition: Some(0),
                key: Some(b"topology"),
                value: Some(value),
                timestamp: 1,
                headers: &Headers::new(),
            })
            .unwrap();
        producer.flush().unwrap();
    }
}

#[test]
fn the_last_recorded_topology_is_the_one_that_runs() {
    let site = Site::new();
    assert_eq!(recorded(&site.log, APPLICATION).unwrap(), None);
    let first = shop().describe().clone();
    let mut second = first.clone();
    second
        .sub_topologies
        .iter_mut()
        .for_each(|sub| sub.stores.clear());
    for topology in [&first, &second] {
        site.announce(topology);
        assert_eq!(
            recorded(&site.log, APPLICATION).unwrap().as_ref(),
            Some(topology)
        );
    }
    let partition = crate::log::TopicPartition::new("shop-millstream-topology", 0);
    let end = || {
        let isolation = crate::log::Isolation::ReadCommitted;
        site.log
            .log_ranges(std::slice::from_ref(&partition), isolation)
            .unwrap()[0]
            .end
    };
    let before = end();
    site.announce(&second);
    assert_eq!(
        end(),
        before,
        "what is recorded already is not written again"
    );
}

#[test]
fn a_newer_format_is_named_and_never_overwritten() {
    let site = Site::new();
    site.announce(shop().describe());
    site.write_raw(br#"{"formatVersion":99,"planets":[]}"#);
    let error = recorded(&site.log, APPLICATION).unwrap_err();
    assert!(
        matches!(error, RecordedError::Newer { found: 99, .. }),
        "{error}"
    );
    site.announce(shop().describe());
    assert!(matches!(
        recorded(&site.log, APPLICATION),
        Err(RecordedError::Newer { .. })
    ));
}

#[test]
fn a_damaged_record_is_named_and_replaced_by_the_next_start() {
    let site = Site::new();
    site.announce(shop().describe());
    site.write_raw(b"not JSON");
    let error = recorded(&site.log, APPLICATION).unwrap_err();
    assert!(matches!(error, RecordedError::Damaged { .. }), "{error}");
    site.announce(shop().describe());
    assert_eq!(
        recorded(&site.log, APPLICATION).unwrap().as_ref(),
        Some(shop().describe())
    );
}

#[test]
fn a_topology_that_needs_a_reset_is_recorded_by_the_reset_only() {
    let site = Site::new();
    let first = shop().describe().clone();
    site.announce(&first);
    let mut second = first.clone();
    let partitions = second.repartition_topics.values_mut();
    partitions.for_each(|count| *count = Some(7));
    site.announce(&second);
    let running = recorded(&site.log, APPLICATION).unwrap();
    assert_eq!(running.as_ref(), Some(&first), "it still says what ran");
    set_recorded(&site.log, &second, &site.config, &site.clock).unwrap();
    let running = recorded(&site.log, APPLICATION).unwrap();
    assert_eq!(running.as_ref(), Some(&second));
}

#[test]
fn a_store_that_becomes_one_of_windows_needs_a_reset_and_another_retention_does_not() {
    let windowed = |retention: u64| {
        let builder = StreamsBuilder::new();
        let orders = builder.stream("orders", consumed());
        let by_customer = Grouped::with("by-customer", serdes::string(), serdes::string());
        let counts = Materialized::as_store("counts", serdes::string(), serdes::i64());
        let seconds = std::time::Duration::from_secs;
        drop(
            orders
                .group_by(|_, customer| customer.clone(), by_customer)
                .windowed_by(TimeWindows::of_size_with_no_grace(seconds(60)))
                .count(counts.with_retention(seconds(retention))),
        );
        orders.to("copies", produced());
        builder.build().unwrap()
    };
    let (hour, day) = (windowed(3600), windowed(86_400));
    let plan = compare(APPLICATION, Some(shop().describe()), hour.describe());
    assert_eq!(plan.verdict(), Verdict::NeedsReset, "{plan}");
    assert!(
        plan.to_string().contains("entries of another kind"),
        "{plan}"
    );
    let plan = compare(APPLICATION, Some(hour.describe()), day.describe());
    assert_eq!(plan.verdict(), Verdict::NeedsRestart, "{plan}");
    assert!(plan.to_string().contains("86400000 ms"), "{plan}");
}

fn copies(pattern: &str, name: &str) -> Topology {
    let builder = StreamsBuilder::new();
    let copied = builder.stream_pattern(pattern, consumed().named(name));
    copied.to("copies", produced());
    builder.build().unwrap()
}

#[test]
fn another_name_for_a_source_by_pattern_is_another_driver() {
    let running = copies("in-.*", "inputs");
    let planned = copies("in-.*", "all-inputs");
    let plan = compare(APPLICATION, Some(running.describe()), planned.describe());
    assert_eq!(plan.verdict(), Verdict::NeedsRestart);
    assert!(
        texts(&plan)[0].contains("would both own its tasks"),
        "{plan}"
    );
    assert_eq!(plan.orphans, ["shop-inputs-millstream-driver"]);
}

#[test]
fn another_pattern_keeps_the_driver() {
    let running = copies("in-.*", "inputs");
    let planned = copies("in-[0-9]+", "inputs");
    let plan = compare(APPLICATION, Some(running.describe()), planned.describe());
    assert_eq!(plan.verdict(), Verdict::NeedsRestart);
    assert!(plan.orphans.is_empty());
    let text = planned.describe().to_string();
    assert!(
        text.contains("Source: inputs (topics: in-[0-9]+)"),
        "{text}"
    );
}
