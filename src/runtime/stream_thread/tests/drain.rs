//! A thread that is told to stop.

use super::*;
use crate::log::TopicPartition;
use crate::runtime::ThreadError;

#[test]
fn a_thread_whose_log_is_away_gives_up_after_its_limit_and_has_committed_nothing() {
    let limit = Duration::from_secs(30);
    let site = Site::new(1, |config| config.shutdown_timeout = limit);
    let dir = dir();
    let mut member = Member::start(&site, &dir);
    run_until(&site, &mut [&mut member], "it is ready", |members| {
        members[0].is_ready()
    });
    let faults = FaultAt::default();
    faults.set(Some((FaultPoint::Commit, Fault::Retriable)));
    site.log.set_faults(Some(Arc::new(faults)));
    site.write(["tea"]);
    member.step();
    member.thread.stop();
    let told = site.now();
    let error = loop {
        match member.thread.step() {
            Ok(Step::Stopped) => panic!("it cannot have committed"),
            Ok(_) => site.clock.advance(10),
            Err(error) => break error,
        }
        assert!(site.now() < told + 60_000, "it has not given up");
    };
    assert!(
        matches!(&error, ThreadError::DrainTimedOut { limit: at, .. } if *at == limit),
        "{error}"
    );
    assert!(
        !error.replaceable(),
        "nobody takes the place of one that stops"
    );
    assert!(error.to_string().contains("shutdown.timeout"), "{error}");
    let waited = site.now() - told;
    assert!((30_000..30_100).contains(&waited), "{waited} ms");
    let words = [TopicPartition::new("words", 0)];
    let offsets = site.log.group_offsets("app", &words);
    // While the transaction is pending the offset is not stable; nothing else was committed before.
    assert!(
        !matches!(&offsets, Ok(found) if found[0].as_ref().is_some_and(|it| it.offset > 0)),
        "{offsets:?}"
    );
}

#[test]
fn a_log_that_comes_back_in_time_lets_the_thread_commit_and_leave() {
    let site = Site::new(1, |_| {});
    let dir = dir();
    let mut member = Member::start(&site, &dir);
    run_until(&site, &mut [&mut member], "it is ready", |members| {
        members[0].is_ready()
    });
    let faults = FaultAt::default();
    faults.set(Some((FaultPoint::Commit, Fault::Retriable)));
    site.log.set_faults(Some(Arc::new(faults.clone())));
    site.write(["tea"]);
    member.step();
    member.thread.stop();
    for _ in 0..100 {
        assert_ne!(member.step(), Step::Stopped);
        site.clock.advance(10);
    }
    faults.set(None);
    member.stop(&site);
    let words = [TopicPartition::new("words", 0)];
    let offsets = site.log.group_offsets("app", &words).unwrap();
    assert!(
        offsets[0].as_ref().is_some_and(|it| it.offset > 0),
        "{offsets:?}"
    );
}

#[test]
fn a_thread_that_stops_sends_what_was_held_back_until_the_commit() {
    let builder = StreamsBuilder::new();
    counts(&builder).emit_per_commit().to_stream().to(
        "out",
        Produced::with(serdes::string(), serdes::optional(serdes::i64())),
    );
    let site = Site::of(builder, 1, |config| {
        config.commit_interval = Duration::from_secs(3600);
        config.commit_min_interval = Duration::from_secs(3600);
    });
    let dir = dir();
    let mut member = Member::start(&site, &dir);
    run_until(&site, &mut [&mut member], "it is ready", |members| {
        members[0].is_ready()
    });
    site.write(["tea", "tea"]);
    for _ in 0..10 {
        member.step();
    }
    let sent = || {
        let out = [TopicPartition::new("out", 0)];
        let isolation = crate::log::Isolation::ReadUncommitted;
        site.log.log_ranges(&out, isolation).unwrap()[0].end
    };
    assert_eq!(sent(), 0, "the commit is not due");
    member.stop(&site);
    assert_eq!(sent(), 2, "one update and the marker of its transaction");
}
