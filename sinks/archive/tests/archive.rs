//! The archive on the embedded log and a local directory: every committed record once, whatever was
//! killed when, and read back across the archive and the topic.

mod support;

use std::ops::ControlFlow;

use millstream::log::Log;
use millstream::sink::{CatchUp, PastError, PastReader, SinkRecord, SinkState, Span};
use millstream_archive::ArchiveSink;
use support::{PARTITIONS, PATIENCE, SMALL, Site, TOPIC, at, create_topic, until};

fn topics(site: &Site) -> Vec<Vec<SinkRecord>> {
    (0..PARTITIONS).map(|it| site.topic(it)).collect()
}

#[test]
fn every_committed_record_is_in_one_file_and_repeated_runs_change_nothing() {
    let mut site = Site::new();
    site.write(30);
    let expected = topics(&site);
    let count: u64 = expected.iter().map(|records| records.len() as u64).sum();
    assert!(count < 300, "some transactions were aborted");
    let done = site.archive(SMALL);
    assert_eq!(done.records, count);
    assert!(done.rows > 6, "{done:?}");
    site.assert_once(&expected);
    let before: Vec<_> = (0..PARTITIONS).map(|it| site.manifest(it)).collect();
    for _ in 0..3 {
        assert_eq!(site.archive(SMALL), CatchUp::default());
    }
    let after: Vec<_> = (0..PARTITIONS).map(|it| site.manifest(it)).collect();
    assert_eq!(before, after);
    for ((partition, manifest), expected) in (0..PARTITIONS).zip(&before).zip(expected) {
        site.delete_below(partition, manifest.end().unwrap());
        assert_eq!(
            site.across(partition, Span::ALL).unwrap(),
            expected,
            "byte for byte"
        );
    }
}

#[test]
fn a_process_killed_between_file_and_manifest_leaves_a_file_that_the_next_one_adopts() {
    let mut site = Site::new();
    site.write(10);
    site.archive(SMALL);
    let before: Vec<Vec<String>> = (0..PARTITIONS).map(|it| site.files(it)).collect();
    for partition in 0..PARTITIONS {
        site.kill_before_manifest(partition);
    }
    // More has come since: the file would reach further if it were written now.
    site.write(10);
    site.archive("");
    site.assert_once(&topics(&site));
    for (partition, before) in (0..PARTITIONS).zip(&before) {
        assert_eq!(
            site.files(partition)[..before.len()],
            before[..],
            "kept as they were"
        );
    }
}

#[test]
fn a_first_file_that_a_killed_process_left_is_adopted_though_retention_has_passed_its_start() {
    let mut site = Site::new();
    site.write(10);
    let expected = topics(&site);
    site.archive("");
    for partition in 0..PARTITIONS {
        assert_eq!(site.files(partition).len(), 1);
        site.kill_before_manifest(partition);
        assert!(site.manifest(partition).files.is_empty());
        site.delete_below(partition, 3);
    }
    site.archive("");
    site.assert_once(&expected);
}

#[test]
fn records_in_memory_are_archived_though_retention_passes_them_while_the_store_is_away() {
    let mut site = Site::new();
    let running = site.run("one", "    max_age: 3s\n");
    until("both partitions are placed", || {
        (running.statuses()[0].view().partitions.len() == 2).then_some(())
    });
    site.take_away();
    site.write(10);
    let expected = topics(&site);
    until("a file could not be written", || {
        (running.statuses()[0].view().state == SinkState::Waiting).then_some(())
    });
    for (partition, expected) in (0..PARTITIONS).zip(&expected) {
        site.delete_below(partition, expected[expected.len() / 2].offset);
    }
    site.bring_back();
    until("all of it is archived", || {
        let ends = (0..PARTITIONS).map(|it| site.manifest(it).end());
        let mut all = ends.zip(&expected);
        all.all(|(end, records)| end == records.last().map(|it| it.offset + 1))
            .then_some(())
    });
    running.stop(PATIENCE);
    site.assert_once(&expected);
    for (partition, expected) in (0..PARTITIONS).zip(expected) {
        assert_eq!(site.across(partition, Span::ALL).unwrap(), expected);
    }
}

#[test]
fn two_processes_and_a_command_archive_every_record_once() {
    let mut site = Site::new();
    let bounds = "    file_records: 20\n    max_age: 1s\n";
    let (one, two) = (site.run("one", bounds), site.run("two", bounds));
    for _ in 0..10 {
        site.write(6);
        site.archive(bounds);
    }
    one.stop(PATIENCE);
    two.stop(PATIENCE);
    site.archive(bounds);
    site.assert_once(&topics(&site));
}

#[test]
fn a_background_archive_keeps_up_and_goes_on_after_a_restart() {
    let mut site = Site::new();
    let bounds = "    file_records: 20\n    max_age: 1s\n";
    for round in 0..3 {
        let running = site.run("one", bounds);
        site.write(11);
        let expected = topics(&site);
        until(&format!("round {round} is archived"), || {
            let view = running.statuses()[0].view();
            let next = |partition: i32| {
                let mut known = view.partitions.iter();
                known
                    .find(|it| it.partition == partition)
                    .map(|it| it.next_offset)
            };
            let last = |records: &[SinkRecord]| records.last().map(|it| it.offset + 1);
            let all = expected
                .iter()
                .zip(0..)
                .all(|(it, partition)| next(partition) == last(it));
            all.then_some(())
        });
        running.stop(PATIENCE);
        site.assert_once(&expected);
    }
}

#[test]
fn what_is_read_across_archive_and_topic_has_neither_gap_nor_repetition() {
    let mut site = Site::new();
    site.write(40);
    let first = site.topic(0);
    site.archive(SMALL);
    site.write(20);
    let all = site.topic(0);
    assert!(first.len() < all.len());
    let archived = site.manifest(0).end().unwrap();
    // The topic begins within the archive, exactly after it, and between.
    for start in [5, 17, archived / 2, archived] {
        site.delete_below(0, start);
        assert_eq!(
            site.across(0, Span::ALL).unwrap(),
            all,
            "topic from {start}"
        );
        let from = Span {
            from: start / 2,
            ..Span::ALL
        };
        let expected: Vec<_> = all
            .iter()
            .filter(|it| it.offset >= start / 2)
            .cloned()
            .collect();
        assert_eq!(site.across(0, from).unwrap(), expected);
    }
    let refused = site.read(None, 0, Span::ALL).unwrap_err();
    assert!(
        matches!(refused, PastError::Missing { from: 0, .. }),
        "{refused}"
    );
}

#[test]
fn retention_may_delete_while_a_read_goes_on() {
    let mut site = Site::new();
    site.write(300);
    let archived = site.topic(0).len();
    site.archive(SMALL);
    let end = site.manifest(0).end().unwrap();
    site.write(11);
    let all = site.topic(0);
    let past = site.sink("").sink.past();
    let reader = PastReader::new(&site.log, site.runtime.handle(), past, PATIENCE);
    let mut found = Vec::new();
    reader
        .read(&at(0), Span::ALL, |record| {
            found.push(record);
            if found.len() == 3 {
                site.delete_below(0, end);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(found, all);
    assert!(found.len() > archived);
}

#[test]
fn a_range_that_is_missing_is_refused_by_name() {
    let mut site = Site::new();
    site.write(20);
    // The topic was longer than the archive when it began.
    site.delete_below(0, 30);
    site.archive(SMALL);
    let from = Span {
        from: 30,
        ..Span::ALL
    };
    assert!(!site.across(0, from).unwrap().is_empty());
    let end = site.manifest(0).end().unwrap();
    site.write(20);
    site.delete_below(0, end);
    let refused = site.across(0, Span::ALL).unwrap_err().to_string();
    assert!(
        refused.contains("records 0 to 29 of events-0 are neither"),
        "{refused}"
    );
    // And once retention is faster than the archive.
    site.delete_below(0, end + 12);
    let refused = site.across(0, from).unwrap_err().to_string();
    let named = format!("records {end} to {} of events-0", end + 11);
    assert!(refused.contains(&named), "{refused}");
    let refused = site.try_archive(SMALL).unwrap_err();
    assert!(
        refused.contains("were deleted before this sink had them"),
        "{refused}"
    );
}

#[test]
fn a_period_reads_only_the_files_that_may_have_it() {
    let mut site = Site::new();
    site.write(40);
    let all = site.topic(0);
    site.archive(SMALL);
    let manifest = site.manifest(0);
    let middle = &manifest.files[manifest.files.len() / 2];
    let span = Span::of_period(middle.min_timestamp, middle.max_timestamp + 1);
    let inside =
        |it: &&SinkRecord| (middle.min_timestamp..=middle.max_timestamp).contains(&it.timestamp);
    let expected: Vec<SinkRecord> = all.iter().filter(inside).cloned().collect();
    site.delete_below(0, manifest.end().unwrap());
    // Another file would be missed if it were read.
    for file in manifest.files.iter().filter(|file| *file != middle) {
        std::fs::remove_file(site.folder(0).join(&file.name)).unwrap();
    }
    assert_eq!(site.across(0, span).unwrap(), expected);
    assert!(site.across(0, Span::ALL).is_err());
}

#[test]
fn the_events_of_one_key_and_of_all_are_read_across_archive_and_topic() {
    let mut site = Site::new();
    site.write_by_key(30);
    let all: Vec<SinkRecord> = topics(&site).concat();
    let of_key = |it: &&SinkRecord| it.key.as_deref() == Some(b"key-3".as_slice());
    let expected: Vec<SinkRecord> = all.iter().filter(of_key).cloned().collect();
    assert!(!expected.is_empty());
    site.archive(SMALL);
    for partition in 0..PARTITIONS {
        site.delete_below(partition, site.manifest(partition).end().unwrap() - 7);
    }
    let sink = site.sink("");
    let (reader, topic) = (site.reader(&sink), site.sink_topic(&sink));
    let mut found = Vec::new();
    let keep = |found: &mut Vec<SinkRecord>, record| {
        found.push(record);
        ControlFlow::Continue(())
    };
    let read = reader.read_key(&topic, b"key-3", Span::ALL, |it| keep(&mut found, it));
    assert!(read.is_ok(), "{read:?}");
    assert_eq!(found, expected);
    found.clear();
    let read = reader.read_topic(&topic, Span::ALL, |it| keep(&mut found, it));
    assert!(read.is_ok(), "{read:?}");
    assert_eq!(found, all);
    found.clear();
    let read = reader.read_topic(&topic, Span::ALL, |it| {
        found.push(it);
        ControlFlow::Break(())
    });
    assert!(read.is_ok() && found.len() == 1, "{read:?}");
}

#[test]
fn a_damaged_file_is_named() {
    let mut site = Site::new();
    site.write(20);
    site.archive(SMALL);
    assert!(site.verify().is_ok());
    let name = site.files(0).remove(1);
    let path = site.folder(0).join(&name);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&path, &bytes).unwrap();
    let refused = site.verify().unwrap_err();
    assert!(refused.contains(&format!("events/0/{name}")), "{refused}");
    site.delete_below(0, site.manifest(0).end().unwrap());
    let error = site.across(0, Span::ALL).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains(&name), "{cause}");
    std::fs::remove_file(&path).unwrap();
    let refused = site.verify().unwrap_err();
    assert!(refused.contains(&name), "{refused}");
}

#[test]
fn a_file_with_other_content_under_the_name_of_a_range_is_not_taken_for_it() {
    let mut site = Site::new();
    site.write(7);
    site.archive("");
    let name = site.files(0).remove(0);
    let other = std::fs::read(site.folder(1).join(site.files(1).remove(0))).unwrap();
    site.kill_before_manifest(0);
    std::fs::write(site.folder(0).join(&name), other).unwrap();
    let refused = site.try_archive("").unwrap_err();
    assert!(
        refused.contains(&name) && refused.contains("not what its name says"),
        "{refused}"
    );
}

#[test]
fn a_topic_that_was_created_again_does_not_join_the_archive() {
    let mut site = Site::new();
    site.write(7);
    site.archive("");
    site.log.delete_topics(&[TOPIC]).unwrap();
    create_topic(&site.log);
    site.write(7);
    let refused = site.try_archive("").unwrap_err();
    assert!(refused.contains("deleted and created again"), "{refused}");
}

#[test]
fn settings_that_do_not_fit_are_refused_before_anything_is_touched() {
    let site = Site::new();
    let declared = ArchiveSink::declare("archive", &[TOPIC]);
    for (more, expected) in [
        ("    url: file:///tmp\n", "either `directory` or `url`"),
        ("    level: 23\n", "`level`"),
        ("    file_bytes: 1KiB\n", "`file_bytes`"),
        ("    max_age: 30d\n", "`max_age`"),
        ("    colour: red\n", "unknown key `colour`"),
    ] {
        let refused = declared
            .make(&site.parameters(more))
            .unwrap_err()
            .to_string();
        assert!(refused.contains(expected), "{refused}");
    }
}
