use proptest::prelude::*;

use super::*;
use crate::event_sourcing::counter::{Count, Counted, Counter, TOO_MUCH, WRONG_TOTAL};
use crate::event_sourcing::{EVENT_BYTES_LARGE, EVENT_BYTES_MAX, Incoming, Stored, given, judge};

const NOW: Timestamp = 1_765_281_600_000;

fn command(data: &str, extra: &str) -> String {
    format!(
        r#"{{"commandId":"cmd-1","commandType":"Count","aggregateId":"c-1",{extra}"timestamp":"2025-12-09T11:59:59.500Z","metadata":{{"actorId":"ann"}},"data":{data}}}"#
    )
}

fn decide(record: Option<&AggregateRecord<Counter>>, text: &str) -> Decision<Counter> {
    let command = CommandEnvelope::parse(text.as_bytes()).unwrap();
    decide_command::<Counter>(record, &command, NOW).unwrap()
}

fn code(decision: &Decision<Counter>) -> &str {
    decision
        .reply
        .reason
        .as_ref()
        .map_or("", |reason| reason.code.as_ref())
}

fn foreign(version: u64, data: &str, schema_version: u32) -> String {
    format!(
        r#"{{"eventId":"f-{version}","eventType":"Counted","aggregateId":"c-1","aggregateType":"Counter","aggregateVersion":{version},"timestamp":"2025-12-09T12:00:00.000Z","correlationId":"x","data":{data},"schemaVersion":{schema_version}}}"#
    )
}

fn fold(
    record: Option<AggregateRecord<Counter>>,
    text: &str,
) -> Result<AggregateRecord<Counter>, FoldError> {
    fold_foreign::<Counter>(record, &Envelope::parse(text.as_bytes()).unwrap())
}

#[test]
fn a_command_on_an_unseen_aggregate_writes_its_events_from_version_1() {
    let decision = decide(None, &command(r#"{"by":[1,2]}"#, ""));
    assert_eq!(decision.reply.outcome, Outcome::Accepted);
    assert_eq!(decision.reply.aggregate_version, 2);
    let versions: Vec<_> = decision
        .events
        .iter()
        .map(|event| event.key.version)
        .collect();
    assert_eq!(versions, [1, 2]);
    let record = decision.record.unwrap();
    assert_eq!(
        (record.origin, record.first_version, record.version),
        (Origin::Native, 1, 2)
    );
    assert_eq!(record.state.total, 3);

    let second = Envelope::parse(&decision.events[1].value).unwrap();
    assert_eq!(second.event_id, decision.reply.event_ids[1].as_str());
    assert_eq!(second.causation_id.as_deref(), Some("cmd-1"));
    assert_eq!(second.correlation_id, "cmd-1");
    assert_eq!(second.schema_version, 2);
    assert_eq!(
        second.metadata.unwrap().get(),
        r#"{"actorId":"ann","commandTimestamp":"2025-12-09T11:59:59.500Z"}"#
    );
    assert_eq!(
        decision.events[1].headers.last("aggregateVersion"),
        Some(b"2".as_slice())
    );
}

#[test]
fn an_events_time_is_never_below_its_predecessors() {
    let mut record = decide(None, &command(r#"{"by":[1]}"#, "")).record.unwrap();
    assert_eq!(record.updated_at, NOW);
    record.updated_at = NOW + 5_000;
    let decision = decide(Some(&record), &command(r#"{"by":[1]}"#, ""));
    assert_eq!(decision.events[0].timestamp, NOW + 5_000);
}

#[test]
fn another_expected_version_is_a_conflict_that_tells_the_current_one() {
    let record = decide(None, &command(r#"{"by":[1,1]}"#, ""))
        .record
        .unwrap();
    for (expected, accepted) in [(2, true), (1, false), (3, false), (0, false)] {
        let text = command(
            r#"{"by":[1]}"#,
            &format!(r#""expectedVersion":{expected},"#),
        );
        let decision = decide(Some(&record), &text);
        assert_eq!(
            decision.reply.outcome == Outcome::Accepted,
            accepted,
            "{expected}"
        );
        if !accepted {
            assert_eq!(decision.reply.outcome, Outcome::Conflict);
            assert_eq!(code(&decision), "VERSION_CONFLICT");
            assert_eq!(decision.reply.aggregate_version, 2);
            assert!(decision.events.is_empty() && decision.record.is_none());
        }
    }
    let unseen = decide(None, &command(r#"{"by":[1]}"#, r#""expectedVersion":0,"#));
    assert_eq!(unseen.reply.outcome, Outcome::Accepted);
}

#[test]
fn what_is_against_a_rule_or_cannot_be_read_is_answered_and_writes_nothing() {
    let unknown = command("{}", "").replace(r#""Count""#, r#""Uncount""#);
    for (text, expected) in [
        (command(r#"{"by":[1,11]}"#, ""), "TOO_MUCH"),
        (command(r#"{"by":"many"}"#, ""), "INVALID_COMMAND"),
        (unknown, "INVALID_COMMAND"),
    ] {
        let decision = decide(None, &text);
        assert_eq!(decision.reply.outcome, Outcome::Rejected);
        assert_eq!(code(&decision), expected);
        assert!(decision.events.is_empty() && decision.record.is_none());
    }
}

#[test]
fn a_foreign_aggregate_takes_no_commands_whatever_they_say() {
    let record = fold(None, &foreign(1, r#"{"before":0,"by":1}"#, 2)).unwrap();
    let text = command(r#"{"by":"many"}"#, r#""expectedVersion":9,"#);
    let decision = decide(Some(&record), &text);
    assert_eq!(decision.reply.outcome, Outcome::Rejected);
    assert_eq!(code(&decision), "FOREIGN_OWNED");
    assert_eq!(decision.reply.aggregate_version, 1);
}

#[test]
fn a_command_with_one_event_over_the_limit_writes_none_of_its_events() {
    let text = command(&format!(r#"{{"by":[1],"ballast":{EVENT_BYTES_MAX}}}"#), "");
    let decision = decide(None, &text);
    assert_eq!(code(&decision), "EVENT_TOO_LARGE");
    assert!(decision.events.is_empty() && decision.record.is_none());
    let message = decision.reply.reason.unwrap().message;
    let too_large = decision.too_large.unwrap();
    assert!(
        message.contains("Counted") && message.contains(&too_large.event_id),
        "{message}"
    );
    assert!(message.contains(&too_large.size.to_string()), "{message}");

    let text = command(
        &format!(r#"{{"by":[1],"ballast":{EVENT_BYTES_LARGE}}}"#),
        "",
    );
    let decision = decide(None, &text);
    assert_eq!(decision.reply.outcome, Outcome::Accepted);
    assert_eq!(decision.events[0].size, EventSize::Large);
}

#[test]
fn a_foreign_event_is_applied_only_when_it_follows() {
    let record = fold(None, &foreign(1, r#"{"before":0,"by":4}"#, 2)).unwrap();
    assert_eq!(
        (record.origin, record.version, record.state.total),
        (Origin::Foreign, 1, 4)
    );
    let error = fold(
        Some(record.clone()),
        &foreign(2, r#"{"before":3,"by":1}"#, 2),
    )
    .unwrap_err();
    assert_eq!(error.code(), WRONG_TOTAL);
    let record = fold(Some(record), &foreign(2, r#"{"before":4,"by":1}"#, 2)).unwrap();
    assert_eq!((record.version, record.state.total), (2, 5));
}

#[test]
fn a_first_foreign_event_above_version_1_opens_with_what_it_says() {
    let record = fold(None, &foreign(7, r#"{"before":40,"by":2}"#, 2)).unwrap();
    assert_eq!(
        (record.first_version, record.version, record.state.total),
        (7, 7, 42)
    );
    let error = fold(None, &foreign(1, r#"{"before":40,"by":2}"#, 2)).unwrap_err();
    assert_eq!(error.code(), WRONG_TOTAL);
}

#[test]
fn old_versions_are_upcast_when_folded_and_when_replayed() {
    let text = foreign(1, r#"{"by":4}"#, 1);
    assert_eq!(fold(None, &text).unwrap().state.total, 4);
    let entry = HistoryEntry {
        origin: Origin::Foreign,
        event: text.into_bytes(),
    };
    let record = replay::<Counter>(None, &HistoryKey::new("c-1", 1), &entry).unwrap();
    assert_eq!(record.state.total, 4);
}

#[test]
fn an_unknown_type_and_a_future_version_are_errors_with_codes() {
    let unknown = foreign(1, "{}", 1).replace("Counted", "Reset");
    assert_eq!(
        fold(None, &unknown).unwrap_err().code(),
        reasons::UNKNOWN_EVENT_TYPE
    );
    let future = foreign(1, "{}", 3);
    assert_eq!(
        fold(None, &future).unwrap_err().code(),
        reasons::UNSUPPORTED_SCHEMA_VERSION
    );
}

#[test]
fn every_forbidding_verdict_has_a_code() {
    let text = foreign(5, r#"{"by":1}"#, 1);
    let envelope = Envelope::parse(text.as_bytes()).unwrap();
    let code = |verdict| FoldError::from_verdict(verdict, &envelope).map(|error| error.code());
    assert_eq!(code(Verdict::Conflict), Some(reasons::VERSION_CONFLICT));
    assert_eq!(
        code(Verdict::Gap { expected: 4 }),
        Some(reasons::VERSION_GAP)
    );
    assert_eq!(
        code(Verdict::BeforeOpening { first: 6 }),
        Some(reasons::VERSION_BEFORE_OPENING)
    );
    for verdict in [
        Verdict::Apply,
        Verdict::AdoptOpening,
        Verdict::Repetition,
        Verdict::Broken,
    ] {
        assert_eq!(code(verdict), None);
    }
}

#[test]
fn damaged_history_stops_a_replay() {
    let entry = |text: String, origin| HistoryEntry {
        origin,
        event: text.into_bytes(),
    };
    let first = entry(foreign(1, r#"{"by":4}"#, 1), Origin::Foreign);
    let record = replay::<Counter>(None, &HistoryKey::new("c-1", 1), &first).unwrap();

    let third = entry(foreign(3, r#"{"by":4}"#, 1), Origin::Foreign);
    let gap = replay::<Counter>(Some(record.clone()), &HistoryKey::new("c-1", 3), &third);
    assert!(matches!(
        gap,
        Err(ReplayError::OutOfSequence {
            last: 1,
            version: 3,
            ..
        })
    ));

    let moved = replay::<Counter>(Some(record.clone()), &HistoryKey::new("c-1", 2), &third);
    assert!(matches!(moved, Err(ReplayError::OutOfSequence { .. })));

    let late_native = entry(foreign(3, r#"{"by":4}"#, 1), Origin::Native);
    let cut = replay::<Counter>(None, &HistoryKey::new("c-1", 3), &late_native);
    assert!(matches!(
        cut,
        Err(ReplayError::OutOfSequence {
            last: 0,
            version: 3,
            ..
        })
    ));

    let broken = entry("{".into(), Origin::Foreign);
    let unreadable = replay::<Counter>(Some(record), &HistoryKey::new("c-1", 2), &broken);
    assert!(matches!(unreadable, Err(ReplayError::Unreadable { .. })));
}

#[test]
fn the_harness_shows_decisions() {
    given::<Counter>([])
        .when(Count {
            by: vec![2],
            ballast: 0,
        })
        .then([Counted {
            before: Some(0),
            by: 2,
            ballast: String::new(),
        }
        .into()])
        .when(Count {
            by: vec![11],
            ballast: 0,
        })
        .then_rejected(TOO_MUCH);
}

#[test]
#[should_panic(expected = "expected a rejection TOO_MUCH")]
fn the_harness_fails_when_a_rejection_does_not_come() {
    given::<Counter>([])
        .when(Count {
            by: vec![2],
            ballast: 0,
        })
        .then_rejected(TOO_MUCH);
}

#[test]
#[should_panic(expected = "got")]
fn the_harness_fails_when_other_events_come() {
    given::<Counter>([])
        .when(Count {
            by: vec![2],
            ballast: 0,
        })
        .then([]);
}

proptest! {
    /// Whatever commands come, a rebuild from the history they wrote gives the same record.
    #[test]
    fn a_rebuild_gives_the_record_that_decisions_left(
        commands in prop::collection::vec(prop::collection::vec(0..13_u64, 0..4), 0..20)
    ) {
        let mut record: Option<AggregateRecord<Counter>> = None;
        let mut history = Vec::new();
        for by in commands {
            let decision = decide(record.as_ref(), &command(&format!(r#"{{"by":{by:?}}}"#), ""));
            if decision.reply.outcome != Outcome::Accepted {
                prop_assert!(decision.events.is_empty() && decision.record.is_none());
                continue;
            }
            for event in decision.events {
                let entry = HistoryEntry { origin: Origin::Native, event: event.value };
                history.push((event.key, entry));
            }
            record = decision.record.or(record);
        }
        let mut rebuilt = None;
        for (key, entry) in &history {
            rebuilt = Some(replay::<Counter>(rebuilt, key, entry).unwrap());
            let known = rebuilt.as_ref().map(AggregateRecord::known);
            let envelope = Envelope::parse(&entry.event).unwrap();
            let incoming = Incoming { event_id: &envelope.event_id, version: key.version };
            let stored = Stored { event_id: &envelope.event_id };
            prop_assert_eq!(judge(known, Some(stored), incoming), Verdict::Repetition);
        }
        prop_assert_eq!(rebuilt, record);
    }
}
