//! When a thread is ready: it has its assignment, and all of it runs.

use super::*;
use crate::log::LogConsumer;

#[test]
fn a_member_is_not_ready_before_the_partitions_it_is_to_get_are_free() {
    let site = Site::new(4, |_| {});
    let (first_dir, second_dir) = (dir(), dir());
    let mut first = Member::start(&site, &first_dir);
    run_until(&site, &mut [&mut first], "the first is ready", |members| {
        members[0].is_ready()
    });
    assert_eq!(first.tasks(), 4);
    // The second one's poll ends the rebalance: it is a member, and what it will get is still with
    // the first, who has not been told.
    let mut second = Member::start(&site, &second_dir);
    first.step();
    second.step();
    second.step();
    assert!(second.thread.consumer.is_member());
    assert_eq!(second.tasks(), 0);
    assert_eq!(second.membership(), Membership::Waiting);
    assert!(!second.is_ready(), "its partitions are on their way");
    run_until(
        &site,
        &mut [&mut first, &mut second],
        "both are ready",
        |members| members.iter().all(|member| member.is_ready()),
    );
    assert_eq!((first.tasks(), second.tasks()), (2, 2));
}

#[test]
fn a_member_without_partitions_is_ready_once_others_own_them_all() {
    let site = Site::new(1, |_| {});
    let (first_dir, second_dir) = (dir(), dir());
    let mut first = Member::start(&site, &first_dir);
    let mut second = Member::start(&site, &second_dir);
    assert!(!first.is_ready() && !second.is_ready());
    run_until(
        &site,
        &mut [&mut first, &mut second],
        "both are ready",
        |members| members.iter().all(|member| member.is_ready()),
    );
    assert_eq!(first.tasks() + second.tasks(), 1);
}

#[test]
fn a_member_that_cannot_take_its_partitions_over_is_not_ready() {
    let site = Site::new(2, |_| {});
    let faults = FaultAt::default();
    faults.set(Some((FaultPoint::Committed, Fault::Retriable)));
    site.log.set_faults(Some(Arc::new(faults.clone())));
    let dir = dir();
    let mut member = Member::start(&site, &dir);
    for _ in 0..50 {
        member.step();
        assert!(!member.is_ready());
        site.clock.advance(10);
    }
    assert_eq!(member.membership(), Membership::Waiting);
    faults.set(None);
    run_until(&site, &mut [&mut member], "it is ready", |members| {
        members[0].is_ready()
    });
    assert_eq!(member.tasks(), 2);
}
