//! What a thread may hold, and what it counts when things go wrong.

use super::*;
use crate::state::MemoryShares;

/// Keys of half a MiB each, all different.
fn large_keys(count: usize) -> impl Iterator<Item = String> {
    let filling = "k".repeat(512 << 10);
    (0..count).map(move |number| format!("{number}-{filling}"))
}

#[test]
fn an_overlay_over_its_share_is_committed_though_no_interval_has_passed() {
    let site = Site::new(1, |config| {
        config.commit_interval = Duration::from_secs(5);
        config.commit_min_interval = Duration::from_secs(5);
    });
    let dir = dir();
    let mut member = Member::start(&site, &dir);
    run_until(&site, &mut [&mut member], "it is ready", |members| {
        members[0].is_ready()
    });
    let share = MemoryShares::of(MEMORY).of_thread(1).uncommitted;
    let before = member.metric("millstream_commits_total", "");
    // The clock stands still from here on: only its size makes a transaction due.
    site.write(large_keys(4));
    for _ in 0..10 {
        member.step();
    }
    let after = member.metric("millstream_commits_total", "");
    assert!((after - before).abs() < 0.5, "a small transaction waits");
    site.write(large_keys(64).skip(4));
    let mut largest = 0;
    for _ in 0..100 {
        member.step();
        largest = largest.max(member.thread.uncommitted_bytes());
    }
    let after = member.metric("millstream_commits_total", "");
    assert!(after - before >= 2.0, "{} commits", after - before);
    // Looked at every few records, so that the limit is passed by no more than these.
    assert!(largest < share + 17 * (2 << 20), "{largest} of {share}");
    site.clock.advance(5_000);
    member.stop(&site);
}

#[test]
fn a_partition_whose_buffer_is_over_its_share_of_bytes_is_not_polled() {
    let site = Site::new(1, |config| config.commit_interval = Duration::from_secs(5));
    let dir = dir();
    let mut member = Member::start(&site, &dir);
    run_until(&site, &mut [&mut member], "it is ready", |members| {
        members[0].is_ready()
    });
    let buffered = |member: &Member| -> usize {
        member
            .thread
            .live()
            .map(|task| task.group.buffered_bytes())
            .sum()
    };
    site.write(large_keys(20));
    member.thread.poll_records().unwrap();
    let full = buffered(&member);
    assert!(full >= 20 * (512 << 10), "{full}");
    site.write(large_keys(24).skip(20));
    member.thread.poll_records().unwrap();
    assert_eq!(buffered(&member), full, "it is over half of its share");
    run_until(&site, &mut [&mut member], "all are counted", |members| {
        members[0].thread.buffered() == 0 && !members[0].thread.live().any(|it| it.has_results())
    });
    assert_eq!(buffered(&member), 0);
    member.stop(&site);
}

#[test]
fn retries_aborts_unknown_outcomes_and_losses_are_counted() {
    let site = Site::new(1, |_| {});
    let dir = dir();
    let mut member = Member::start(&site, &dir);
    run_until(&site, &mut [&mut member], "it is ready", |members| {
        members[0].is_ready()
    });
    let faults = FaultAt::default();
    site.log.set_faults(Some(Arc::new(faults.clone())));
    for (point, fault, counted) in [
        (
            FaultPoint::SendOffsets,
            Fault::AbortRequired,
            "millstream_commit_aborts_total",
        ),
        (
            FaultPoint::Commit,
            Fault::RequestLost,
            "millstream_commit_unknown_outcomes_total",
        ),
        (
            FaultPoint::Commit,
            Fault::Retriable,
            "millstream_log_retries_total",
        ),
        (
            FaultPoint::SendOffsets,
            Fault::Fatal,
            "millstream_membership_losses_total",
        ),
    ] {
        let before = member.metric(counted, "");
        faults.set(Some((point, fault)));
        site.write(["tea"]);
        for _ in 0..20 {
            member.step();
            site.clock.advance(10);
        }
        assert!(
            member.metric(counted, "") > before,
            "{counted} at {point:?}"
        );
        faults.set(None);
        run_until(&site, &mut [&mut member], "it goes on", |members| {
            members[0].thread.is_quiescent()
        });
    }
    assert_eq!(member.count("tea"), Some(4));
    member.stop(&site);
}
