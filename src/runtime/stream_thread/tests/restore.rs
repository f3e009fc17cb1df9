//! What local state is worth after a stop, a kill and a long time.

use super::*;
use crate::state::{Layout, StoreDecl, TaskDb};
use crate::topology::Persistence;

const TWO_DAYS_MS: i64 = 2 * 24 * 60 * 60 * 1000;
const RESTORED: &str = "millstream_restore_records_total";
const SET_ASIDE: &str = "millstream_state_directories_set_aside_total";

fn ready(site: &Site, member: &mut Member) {
    run_until(site, &mut [member], "it is ready", |members| {
        members[0].is_ready()
    });
}

/// Counts two words, and returns when the counts are committed.
fn count_two_words(site: &Site, member: &mut Member) {
    ready(site, member);
    site.write(["tea", "tea", "rice"]);
    run_until(site, &mut [member], "they are counted", |members| {
        members[0].count("tea") == Some(2) && members[0].count("rice") == Some(1)
    });
}

#[test]
fn state_of_an_application_that_stood_still_is_kept_however_long_it_was_stopped() {
    let (site, dir) = (Site::new(1, |_| {}), dir());
    let mut member = Member::start(&site, &dir);
    count_two_words(&site, &mut member);
    member.stop(&site);
    site.clock.advance(TWO_DAYS_MS);
    let mut again = Member::start(&site, &dir);
    ready(&site, &mut again);
    assert!(
        again.metric(SET_ASIDE, "").abs() < 0.5,
        "nothing is set aside"
    );
    assert!(
        again.metric(RESTORED, "counts").abs() < 0.5,
        "nothing is replayed"
    );
    assert_eq!(
        (again.count("tea"), again.count("rice")),
        (Some(2), Some(1))
    );
    again.stop(&site);
}

#[test]
fn state_that_was_not_closed_and_is_older_than_tombstones_live_is_replayed_from_the_start() {
    let (site, dir) = (Site::new(1, |_| {}), dir());
    let mut member = Member::start(&site, &dir);
    count_two_words(&site, &mut member);
    // Until it has flushed: in steps, or its session would time out.
    run_until(&site, &mut [&mut member], "it has flushed", |members| {
        members[0]
            .thread
            .live()
            .all(|task| task.db.dirty_since().is_none())
    });
    drop(member);
    site.clock.advance(TWO_DAYS_MS);
    let mut again = Member::start(&site, &dir);
    ready(&site, &mut again);
    assert!((again.metric(SET_ASIDE, "too_old") - 1.0).abs() < 0.5);
    assert!((again.metric(RESTORED, "counts") - 2.0).abs() < 0.5);
    assert_eq!(
        (again.count("tea"), again.count("rice")),
        (Some(2), Some(1))
    );
    again.stop(&site);
}

#[test]
fn what_another_owner_wrote_behind_a_closed_store_is_replayed() {
    let site = Site::new(1, |_| {});
    let (first_dir, second_dir) = (dir(), dir());
    let mut first = Member::start(&site, &first_dir);
    count_two_words(&site, &mut first);
    first.stop(&site);
    let mut second = Member::start(&site, &second_dir);
    ready(&site, &mut second);
    site.write(["tea"]);
    run_until(&site, &mut [&mut second], "it is counted", |members| {
        members[0].count("tea") == Some(3)
    });
    second.stop(&site);
    let mut again = Member::start(&site, &first_dir);
    ready(&site, &mut again);
    assert!(
        (again.metric(RESTORED, "counts") - 1.0).abs() < 0.5,
        "the tail"
    );
    assert_eq!(
        (again.count("tea"), again.count("rice")),
        (Some(3), Some(1))
    );
    again.stop(&site);
}

#[test]
fn data_that_no_checkpoint_explains_is_set_aside_and_restored() {
    let site = Site::new(1, |_| {});
    let (first_dir, second_dir) = (dir(), dir());
    let mut first = Member::start(&site, &first_dir);
    count_two_words(&site, &mut first);
    first.stop(&site);
    {
        let state = StateDir::open(second_dir.path(), || "second".to_owned()).unwrap();
        let stores = [StoreDecl {
            name: "counts".to_owned(),
            persistence: Persistence::RocksDb,
            layout: Layout::KeyValue,
            keeps_headers: false,
        }];
        let task = TaskId {
            sub_topology: 0,
            partition: 0,
        };
        let budget = MemoryBudget::new(MEMORY);
        let db = TaskDb::open(&state.task_dir(task), &stores, &budget).unwrap();
        let mut batch = db.batch();
        let store = db.store_id("counts").unwrap();
        batch
            .entry(store, b"ghost", Some(&7_i64.to_be_bytes()), START)
            .unwrap();
        db.apply(batch, START).unwrap();
        db.flush().unwrap();
    }
    let mut second = Member::start(&site, &second_dir);
    ready(&site, &mut second);
    assert!((second.metric(SET_ASIDE, "no_checkpoint") - 1.0).abs() < 0.5);
    assert_eq!(second.count("ghost"), None);
    assert_eq!(
        (second.count("tea"), second.count("rice")),
        (Some(2), Some(1))
    );
    second.stop(&site);
}
