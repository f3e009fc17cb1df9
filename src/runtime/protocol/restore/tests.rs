use super::*;

const NOW: Timestamp = 1_000_000;
const RETENTION: i64 = 10_000;

fn input() -> TopicPartition {
    TopicPartition::new("in", 0)
}

fn local(input_offset: Offset, changelog_offset: Offset) -> LocalCheckpoint {
    LocalCheckpoint {
        generation: 3,
        inputs: BTreeMap::from([(input(), input_offset)]),
        changelogs: BTreeMap::from([(
            "s".to_owned(),
            ChangelogCheckpoint {
                topic_id: [1; 16],
                offset: changelog_offset,
                at_end: NOW - 1,
            },
        )]),
        with_data: BTreeSet::from(["s".to_owned()]),
    }
}

fn stable(committed: Option<Offset>) -> StableOffsets {
    StableOffsets {
        inputs: BTreeMap::from([(input(), committed)]),
        generation: 3,
    }
}

fn log(start: Offset, end: Offset) -> BTreeMap<String, ChangelogFacts> {
    let range = LogRange { start, end };
    let facts = ChangelogFacts {
        topic_id: [1; 16],
        range,
        tombstone_retention: Some(RETENTION),
    };
    BTreeMap::from([("s".to_owned(), facts)])
}

fn from(offset: Offset) -> BTreeMap<String, Offset> {
    BTreeMap::from([("s".to_owned(), offset)])
}

#[test]
fn a_trusted_checkpoint_replays_only_the_tail() {
    let plan = plan_restore(Some(&local(5, 40)), &stable(Some(7)), &log(0, 60), NOW);
    assert_eq!(plan, Ok(RestorePlan::Replay(from(40))));
}

#[test]
fn without_local_state_the_whole_changelog_is_replayed() {
    let plan = plan_restore(None, &stable(Some(7)), &log(2, 60), NOW);
    assert_eq!(plan, Ok(RestorePlan::Replay(from(2))));
}

#[test]
fn a_store_new_in_the_topology_is_replayed_from_its_start() {
    let mut changelogs = log(0, 60);
    changelogs.insert("new".to_owned(), log(4, 9)["s"]);
    let plan = plan_restore(Some(&local(5, 40)), &stable(Some(7)), &changelogs, NOW);
    let expected = BTreeMap::from([("s".to_owned(), 40), ("new".to_owned(), 4)]);
    assert_eq!(plan, Ok(RestorePlan::Replay(expected)));
}

#[test]
fn local_state_from_before_a_reset_is_set_aside_though_offsets_went_back() {
    let mut older = local(5, 40);
    older.generation = 2;
    let plan = plan_restore(Some(&older), &stable(Some(0)), &log(0, 0), NOW);
    let distrust = Distrust::OlderGeneration {
        stored: 2,
        committed: 3,
    };
    assert_eq!(plan, Ok(RestorePlan::SetAside(distrust, from(0))));
}

#[test]
fn a_group_rewound_by_another_tool_is_refused() {
    let refusal = plan_restore(Some(&local(5, 40)), &stable(Some(4)), &log(0, 60), NOW);
    let expected = RestoreRefusal::GroupRewound {
        partition: input(),
        stored: 5,
        committed: 4,
    };
    assert_eq!(refusal, Err(expected));
}

#[test]
fn a_generation_that_vanished_from_the_offsets_is_refused() {
    let mut offsets = stable(Some(7));
    offsets.generation = 0;
    let refusal = plan_restore(Some(&local(5, 40)), &offsets, &log(0, 60), NOW);
    assert_eq!(
        refusal,
        Err(RestoreRefusal::GenerationLost {
            stored: 3,
            committed: 0
        })
    );
}

#[test]
fn missing_offsets_are_refused_where_state_exists() {
    let missing = RestoreRefusal::OffsetMissing { partition: input() };
    let refusal = plan_restore(Some(&local(5, 40)), &stable(None), &log(0, 60), NOW);
    assert_eq!(refusal, Err(missing.clone()));
    assert_eq!(check_restored(&stable(None), true), Err(missing));
    assert_eq!(check_restored(&stable(None), false), Ok(()));
    assert_eq!(check_restored(&stable(Some(3)), true), Ok(()));
}

#[test]
fn an_input_that_never_held_a_record_starts_at_its_beginning() {
    let log = |start, end| Some(LogRange { start, end });
    assert_eq!(known_start(None, log(0, 0)), Some(0));
    assert_eq!(known_start(None, log(0, 1)), None, "it may have been read");
    assert_eq!(
        known_start(None, log(7, 7)),
        None,
        "it was read, and purged"
    );
    assert_eq!(known_start(None, None), None);
    assert_eq!(known_start(Some(7), log(0, 0)), Some(7));
    let untouched = stable(known_start(None, log(0, 0)));
    assert_eq!(check_restored(&untouched, true), Ok(()));
}

#[test]
fn a_recreated_changelog_is_not_the_one_the_data_came_from() {
    let mut changelogs = log(0, 60);
    changelogs.get_mut("s").unwrap().topic_id = [2; 16];
    let plan = plan_restore(Some(&local(5, 40)), &stable(Some(7)), &changelogs, NOW);
    let distrust = Distrust::OtherTopic {
        store: "s".to_owned(),
    };
    assert_eq!(plan, Ok(RestorePlan::SetAside(distrust, from(0))));
}

#[test]
fn a_checkpoint_outside_the_log_is_set_aside() {
    for (offset, range) in [(39, (40, 60)), (61, (40, 60))] {
        let plan = plan_restore(
            Some(&local(5, offset)),
            &stable(Some(7)),
            &log(range.0, range.1),
            NOW,
        );
        assert!(
            matches!(
                plan,
                Ok(RestorePlan::SetAside(Distrust::OutsideLog { .. }, _))
            ),
            "{offset}: {plan:?}"
        );
    }
}

#[test]
fn a_checkpoint_older_than_tombstones_live_is_set_aside_unless_nothing_follows_it() {
    let at = |age| {
        let mut old = local(5, 40);
        old.changelogs.get_mut("s").unwrap().at_end = NOW - age;
        old
    };
    let young = plan_restore(Some(&at(RETENTION - 1)), &stable(Some(7)), &log(0, 60), NOW);
    assert_eq!(young, Ok(RestorePlan::Replay(from(40))));
    let old = plan_restore(Some(&at(RETENTION)), &stable(Some(7)), &log(0, 60), NOW);
    assert!(
        matches!(old, Ok(RestorePlan::SetAside(Distrust::TooOld { .. }, _))),
        "{old:?}"
    );
    let at_end = plan_restore(Some(&at(RETENTION)), &stable(Some(7)), &log(0, 40), NOW);
    assert_eq!(at_end, Ok(RestorePlan::Replay(from(40))));
}

#[test]
fn a_target_is_reached_at_the_high_watermark_and_not_before() {
    let target = RestoreTarget::after(&stable(Some(7)), 12);
    assert!(!target.is_reached(11));
    assert!(target.is_reached(12));
    assert_eq!(target.offset(), 12);
}

#[test]
fn data_without_a_checkpoint_is_set_aside_and_not_taken_for_a_new_store() {
    let unexplained = Distrust::NoCheckpoint {
        store: "s".to_owned(),
    };
    let mut nothing_but_data = local(5, 40);
    nothing_but_data.changelogs.clear();
    let plan = plan_restore(Some(&nothing_but_data), &stable(Some(7)), &log(2, 60), NOW);
    assert_eq!(
        plan,
        Ok(RestorePlan::SetAside(unexplained.clone(), from(2)))
    );
    // Not even the inputs are known: the checkpoint as a whole is missing.
    let bare = LocalCheckpoint {
        generation: 3,
        with_data: BTreeSet::from(["s".to_owned()]),
        ..LocalCheckpoint::default()
    };
    let plan = plan_restore(Some(&bare), &stable(Some(7)), &log(2, 60), NOW);
    assert_eq!(plan, Ok(RestorePlan::SetAside(unexplained, from(2))));
}

#[test]
fn data_of_a_store_without_a_changelog_needs_no_checkpoint() {
    let mut other = local(5, 40);
    other.with_data.insert("unlogged".to_owned());
    let plan = plan_restore(Some(&other), &stable(Some(7)), &log(0, 60), NOW);
    assert_eq!(plan, Ok(RestorePlan::Replay(from(40))));
}

#[test]
fn a_store_is_closed_at_the_high_watermark_where_only_markers_follow_its_checkpoint() {
    let read = |position, records| ReadBack { position, records };
    assert_eq!(closing_offset(40, 41, read(41, 0)), Some(41));
    assert_eq!(
        closing_offset(40, 41, read(44, 0)),
        Some(41),
        "only to where it was asked"
    );
    assert_eq!(
        closing_offset(40, 40, read(40, 0)),
        None,
        "it is there already"
    );
    assert_eq!(
        closing_offset(40, 45, read(45, 1)),
        None,
        "a successor has written"
    );
    assert_eq!(
        closing_offset(40, 45, read(41, 0)),
        None,
        "a transaction is open"
    );
    assert_eq!(closing_offset(40, 39, read(40, 0)), None, "never back");
}
