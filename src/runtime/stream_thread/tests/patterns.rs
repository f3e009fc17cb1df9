//! Topics that come, go and do not fit under a pattern.

use super::*;
use crate::log::{Isolation, LogMessage, LogReader, TopicPartition, TopicSpec};
use crate::runtime::{ThreadError, TopicsError};

/// Copies what matches `in-.*` to `out`, with the topic as the key.
fn copies(change: impl FnOnce(&mut RuntimeConfig)) -> Site {
    let builder = StreamsBuilder::new();
    let text = || Consumed::with(serdes::string(), serdes::string());
    builder
        .stream_pattern("in-.*", text().named("inputs"))
        .to("out", Produced::with(serdes::string(), serdes::string()));
    site(builder, &[], change)
}

/// Counts by key what matches `in-.*`.
fn counts(topics: &[(&str, i32)]) -> Site {
    let builder = StreamsBuilder::new();
    let text = || Consumed::with(serdes::string(), serdes::string());
    builder
        .stream_pattern("in-.*", text().named("inputs"))
        .group_by_key(Grouped::as_name("by-key"))
        .count(Materialized::as_store(
            "counts",
            serdes::string(),
            serdes::i64(),
        ));
    site(builder, topics, |_| {})
}

fn site(
    builder: StreamsBuilder,
    topics: &[(&str, i32)],
    change: impl FnOnce(&mut RuntimeConfig),
) -> Site {
    let clock = ManualClock::at(START);
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    let log = EmbeddedLog::in_memory(shared).with_virtual_time();
    for (name, partitions) in topics {
        create(&log, name, *partitions);
    }
    let mut config = RuntimeConfig::new("app", "unused");
    config.default_partitions = 2;
    config.memory_max = MEMORY as u64;
    config.pattern_refresh_interval = Duration::from_secs(1);
    change(&mut config);
    let topology = Arc::new(builder.build().unwrap());
    let topology = Arc::new(ensure_topics(&log, &topology, &config).unwrap());
    Site {
        log,
        clock,
        topology,
        config,
    }
}

fn create(log: &EmbeddedLog, name: &str, partitions: i32) {
    let topic = TopicSpec {
        name: name.into(),
        partitions,
        replication_factor: None,
        config: std::collections::BTreeMap::new(),
    };
    log.create_topics(&[topic]).unwrap();
}

/// Writes the numbers of `values` to every partition of a topic.
fn write(site: &Site, topic: &str, partitions: i32, values: std::ops::Range<u32>) {
    let mut producer = site
        .log
        .producer(&ProducerSpec {
            transactional_id: None,
            transaction_timeout: Duration::from_secs(10),
            client_id: "writer".to_owned(),
        })
        .unwrap();
    for partition in 0..partitions {
        for value in values.clone() {
            let value = format!("{topic}/{partition}/{value}");
            let record = ProducerRecord {
                topic: &TopicName::from(topic),
                partition: Some(partition),
                key: Some(b"key"),
                value: Some(value.as_bytes()),
                timestamp: site.now(),
                headers: &Headers::new(),
            };
            producer.send(record).unwrap();
        }
    }
    producer.flush().unwrap();
}

/// What was written by [`write`], in its order.
fn written(topic: &str, partitions: i32, values: std::ops::Range<u32>) -> Vec<String> {
    let of = |partition| {
        values
            .clone()
            .map(move |it| format!("{topic}/{partition}/{it}"))
    };
    (0..partitions).flat_map(of).collect()
}

/// The committed values of `out`, sorted.
fn copied(site: &Site) -> Vec<String> {
    let mut reader = site.log.reader(Isolation::ReadCommitted).unwrap();
    let partitions: Vec<_> = (0..2)
        .map(|partition| (TopicPartition::new("out", partition), 0))
        .collect();
    reader.assign(&partitions).unwrap();
    let mut found = Vec::new();
    while reader.poll(1000, Duration::ZERO, &mut found).unwrap() > 0 {}
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut values: Vec<_> = found.iter().map(|it| text(it.value().unwrap())).collect();
    values.sort();
    values
}

fn run_until_copied(site: &Site, members: &mut [&mut Member], mut expected: Vec<String>) {
    expected.sort();
    run_until(site, members, "everything is copied", |_| {
        copied(site).len() >= expected.len()
    });
    // What was read twice would come by now.
    for _ in 0..50 {
        for member in members.iter_mut() {
            member.step();
        }
        site.clock.advance(10);
    }
    assert_eq!(copied(site), expected);
}

#[test]
fn a_topic_that_appears_is_read_from_its_start_by_all_members_once() {
    let (site, dirs) = (copies(|_| {}), [dir(), dir()]);
    let mut first = Member::start(&site, &dirs[0]);
    let mut second = Member::start(&site, &dirs[1]);
    create(&site.log, "in-1", 2);
    write(&site, "in-1", 2, 0..5);
    let mut members = [&mut first, &mut second];
    let mut expected = written("in-1", 2, 0..5);
    run_until_copied(&site, &mut members, expected.clone());
    assert_eq!(members.each_ref().map(|member| member.tasks()), [1, 1]);

    create(&site.log, "in-2", 2);
    write(&site, "in-2", 2, 0..5);
    write(&site, "in-1", 2, 5..9);
    expected.extend(written("in-2", 2, 0..5));
    expected.extend(written("in-1", 2, 5..9));
    run_until_copied(&site, &mut members, expected);
}

#[test]
fn without_a_matching_topic_a_member_is_ready_and_has_no_task() {
    let (site, dir) = (copies(|_| {}), dir());
    let mut member = Member::start(&site, &dir);
    run_until(&site, &mut [&mut member], "ready", |it| it[0].is_ready());
    assert_eq!(member.tasks(), 0);
    create(&site.log, "in-1", 1);
    run_until(&site, &mut [&mut member], "a task", |it| it[0].tasks() == 1);
    member.stop(&site);
}

#[test]
fn a_topic_waits_for_the_member_that_has_not_seen_it_yet_and_is_read_by_nobody_else() {
    let (site, dirs) = (copies(|_| {}), [dir(), dir()]);
    let mut slow = copies(|config| config.pattern_refresh_interval = Duration::from_secs(20));
    slow.log = site.log.clone();
    slow.clock = site.clock.clone();
    let mut quick = Member::start(&site, &dirs[0]);
    let mut late = Member::start(&slow, &dirs[1]);
    let mut members = [&mut quick, &mut late];
    run_until(&site, &mut members, "both are ready", |it| {
        it.iter().all(|member| member.is_ready())
    });
    create(&site.log, "in-1", 2);
    write(&site, "in-1", 2, 0..5);
    run_until(&site, &mut members, "one has seen it", |it| {
        it[0].tasks() == 1
    });
    for _ in 0..200 {
        for member in &mut members {
            member.step();
        }
        site.clock.advance(10);
    }
    assert_eq!(members.each_ref().map(|member| member.tasks()), [1, 0]);
    assert_eq!(copied(&site).len(), 5, "half of it: {:?}", copied(&site));
    run_until_copied(&site, &mut members, written("in-1", 2, 0..5));
    assert_eq!(members.each_ref().map(|member| member.tasks()), [1, 1]);
}

#[test]
fn tasks_move_to_a_member_that_joins_and_back_with_or_without_a_topic() {
    for topic_first in [true, false] {
        let (site, dirs) = (copies(|_| {}), [dir(), dir()]);
        let mut first = Member::start(&site, &dirs[0]);
        let mut expected = Vec::new();
        if topic_first {
            create(&site.log, "in-1", 2);
            write(&site, "in-1", 2, 0..5);
            expected = written("in-1", 2, 0..5);
        }
        run_until_copied(&site, &mut [&mut first], expected);
        let mut second = Member::start(&site, &dirs[1]);
        let mut members = [&mut first, &mut second];
        run_until(&site, &mut members, "both are ready", |it| {
            it.iter().all(|member| member.is_ready())
        });
        create(&site.log, "in-1", 2);
        write(&site, "in-1", 2, 5..9);
        let from = if topic_first { 0 } else { 5 };
        run_until_copied(&site, &mut members, written("in-1", 2, from..9));
        assert_eq!(members.each_ref().map(|member| member.tasks()), [1, 1]);
        second.stop(&site);
        write(&site, "in-1", 2, 9..12);
        run_until_copied(&site, &mut [&mut first], written("in-1", 2, from..12));
        assert_eq!(first.tasks(), 2);
    }
}

#[test]
fn partitions_beyond_the_number_of_tasks_go_round() {
    let (site, dirs) = (copies(|_| {}), [dir(), dir()]);
    let mut first = Member::start(&site, &dirs[0]);
    let mut second = Member::start(&site, &dirs[1]);
    create(&site.log, "in-5", 5);
    write(&site, "in-5", 5, 0..3);
    let mut members = [&mut first, &mut second];
    run_until_copied(&site, &mut members, written("in-5", 5, 0..3));
    assert_eq!(members.each_ref().map(|member| member.tasks()), [1, 1]);
}

#[test]
fn a_topic_that_is_deleted_is_left() {
    let (site, dir) = (copies(|_| {}), dir());
    create(&site.log, "in-1", 2);
    create(&site.log, "in-2", 2);
    let mut member = Member::start(&site, &dir);
    write(&site, "in-1", 2, 0..3);
    write(&site, "in-2", 2, 0..3);
    let mut expected = written("in-1", 2, 0..3);
    expected.extend(written("in-2", 2, 0..3));
    run_until_copied(&site, &mut [&mut member], expected.clone());

    site.log.delete_topics(&["in-1"]).unwrap();
    write(&site, "in-2", 2, 3..6);
    expected.extend(written("in-2", 2, 3..6));
    run_until_copied(&site, &mut [&mut member], expected);
    member.stop(&site);
}

#[test]
fn state_beside_a_pattern_outlives_the_arrival_of_a_topic() {
    let (site, dir) = (counts(&[("in-1", 2)]), dir());
    let mut member = Member::start(&site, &dir);
    // Nothing is found while the task is opened.
    let count = |member: &Member| {
        let found = member.queries.get("counts", "key").ok().flatten();
        found.and_then(|found| found.value.as_i64())
    };
    write(&site, "in-1", 2, 0..3);
    run_until(&site, &mut [&mut member], "three", |it| {
        count(it[0]) == Some(3)
    });
    create(&site.log, "in-2", 2);
    write(&site, "in-2", 2, 0..4);
    run_until(&site, &mut [&mut member], "seven", |it| {
        count(it[0]) == Some(7)
    });
    assert!(member.metric("millstream_restore_records_total", "") < 1.0);
    member.stop(&site);
}

#[test]
fn beside_a_store_a_topic_with_another_number_of_partitions_ends_the_process_with_words() {
    let (site, dir) = (counts(&[("in-1", 2)]), dir());
    let mut member = Member::start(&site, &dir);
    create(&site.log, "in-3", 3);
    for _ in 0..STEPS_MAX {
        if let Err(ThreadError::Refused(text)) = member.thread.step() {
            for part in [
                "`in-3` has 3",
                "`app-inputs-millstream-driver`, the number of tasks, has 2",
            ] {
                assert!(text.contains(part), "{text}");
            }
            return;
        }
        site.clock.advance(10);
    }
    panic!("the topic was taken");
}

#[test]
fn a_topic_of_two_patterns_is_refused() {
    let builder = StreamsBuilder::new();
    for (pattern, name) in [("in-.*", "all"), (".*-1", "ones")] {
        let text = Consumed::with(serdes::string(), serdes::string());
        builder
            .stream_pattern(pattern, text.named(name))
            .to("out", Produced::with(serdes::string(), serdes::string()));
    }
    let log = EmbeddedLog::in_memory(Arc::new(ManualClock::at(START))).with_virtual_time();
    create(&log, "in-1", 1);
    let config = RuntimeConfig::new("app", "unused");
    let found = ensure_topics(&log, &Arc::new(builder.build().unwrap()), &config);
    assert!(
        matches!(&found, Err(TopicsError::MatchedTwice { topic, .. }) if topic == "in-1"),
        "{found:?}"
    );
}

#[test]
fn a_pattern_does_not_match_the_applications_own_topics() {
    let builder = StreamsBuilder::new();
    let text = Consumed::with(serdes::string(), serdes::string());
    builder
        .stream_pattern(".*", text.named("all"))
        .group_by_key(Grouped::as_name("by-key"))
        .count(Materialized::as_store(
            "counts",
            serdes::string(),
            serdes::i64(),
        ));
    let log = EmbeddedLog::in_memory(Arc::new(ManualClock::at(START))).with_virtual_time();
    create(&log, "in", 3);
    create(&log, "app-driver", 3);
    let config = RuntimeConfig::new("app", "unused");
    let topology = Arc::new(builder.build().unwrap());
    // The second time all of the application's topics are there.
    for _ in 0..2 {
        let resolved = ensure_topics(&log, &topology, &config).unwrap();
        let sub = resolved.sub_topology(0).unwrap();
        let names: Vec<_> = sub.topics.sources[0].iter().map(|it| &*it.name).collect();
        assert_eq!(names, ["app-driver", "in"]);
        assert_eq!(
            (&*sub.topics.driver, sub.topics.tasks),
            ("app-all-millstream-driver", 3)
        );
    }
}
