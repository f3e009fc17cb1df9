use super::TransactionEvent as E;
use super::TransactionState as S;
use super::*;

/// The protocol as a table: for each state its legal events. Every other pair must be refused.
const LEGAL: &[(S, &[(E, S)])] = &[
    (
        S::Unsettled,
        &[
            (E::Initialised, S::Idle),
            (E::Fenced, S::Unsettled),
            (E::Fatal, S::Unsettled),
        ],
    ),
    (
        S::Idle,
        &[
            (E::Begun, S::Open),
            (E::Fenced, S::Fenced),
            (E::Fatal, S::Undetermined),
        ],
    ),
    (
        S::Open,
        &[
            (E::OffsetsSent, S::OffsetsSent),
            (E::AbortDecided, S::Aborting),
            (E::AbortRequired, S::Aborting),
            (E::Fenced, S::Fenced),
            (E::Fatal, S::Undetermined),
        ],
    ),
    (
        S::OffsetsSent,
        &[
            (E::CommitRequested, S::CommitRequested),
            (E::AbortDecided, S::Aborting),
            (E::AbortRequired, S::Aborting),
            (E::Fenced, S::Fenced),
            (E::Fatal, S::Undetermined),
        ],
    ),
    (
        S::CommitRequested,
        &[
            (E::CommitSucceeded, S::Committed),
            (E::CommitUnknown, S::OutcomeUnknown),
            (E::AbortRequired, S::Aborting),
            (E::Fenced, S::Fenced),
            (E::Fatal, S::Undetermined),
        ],
    ),
    (
        S::OutcomeUnknown,
        &[
            (E::CommitRequested, S::CommitRequested),
            (E::CommitSucceeded, S::Committed),
            (E::CommitUnknown, S::OutcomeUnknown),
            (E::AbortRequired, S::Undetermined),
            (E::Fenced, S::Fenced),
            (E::Fatal, S::Undetermined),
        ],
    ),
    (S::Committed, &[(E::Applied, S::Idle)]),
    (
        S::Aborting,
        &[
            (E::AbortSucceeded, S::Aborted),
            (E::AbortRequired, S::Aborting),
            (E::Fenced, S::Fenced),
            (E::Fatal, S::Undetermined),
        ],
    ),
    (
        S::Aborted,
        &[
            (E::RolledBack, S::Idle),
            (E::Fenced, S::Fenced),
            (E::Fatal, S::Undetermined),
        ],
    ),
    (
        S::Fenced,
        &[
            (E::TasksClosed, S::Unsettled),
            (E::Fenced, S::Fenced),
            (E::Fatal, S::Fenced),
        ],
    ),
    (
        S::Undetermined,
        &[
            (E::TasksClosed, S::Unsettled),
            (E::Fenced, S::Fenced),
            (E::Fatal, S::Undetermined),
        ],
    ),
];

#[test]
fn every_pair_of_state_and_event_is_either_drawn_or_refused() {
    assert_eq!(LEGAL.len(), S::ALL.len());
    for state in S::ALL {
        let (_, legal) = LEGAL.iter().find(|(from, _)| *from == state).unwrap();
        for event in E::ALL {
            let expected = legal.iter().find(|(on, _)| *on == event).map(|(_, to)| *to);
            assert_eq!(
                state.next(event),
                expected.ok_or(IllegalTransition { state, event }),
                "{state:?} on {event:?}"
            );
        }
    }
}

#[test]
fn a_commit_is_requested_only_after_offsets_were_sent() {
    for state in S::ALL {
        let requested = state.next(E::CommitRequested).is_ok();
        assert_eq!(
            requested,
            matches!(state, S::OffsetsSent | S::OutcomeUnknown),
            "{state:?}"
        );
    }
    for state in S::ALL {
        let sent = E::ALL
            .into_iter()
            .any(|event| state.next(event) == Ok(S::OffsetsSent));
        assert_eq!(sent, state == S::Open, "{state:?}");
    }
}

#[test]
fn only_a_successful_commit_leads_to_the_stores() {
    for state in S::ALL {
        for event in E::ALL {
            if let Ok(next) = state.next(event)
                && next.may_apply()
            {
                assert_eq!(event, E::CommitSucceeded, "{state:?}");
            }
        }
    }
}

#[test]
fn every_state_leads_back_to_idle() {
    for start in S::ALL {
        let mut reached = vec![start];
        let mut at = 0;
        while at < reached.len() {
            for event in E::ALL {
                if let Ok(next) = reached[at].next(event)
                    && !reached.contains(&next)
                {
                    reached.push(next);
                }
            }
            at += 1;
        }
        assert!(reached.contains(&S::Idle), "{start:?} is a dead end");
    }
}

#[test]
fn a_commit_that_did_not_clearly_fail_leaves_its_outcome_open() {
    let retriable = LogError::Retriable {
        operation: "commit",
        message: String::new(),
    };
    assert_eq!(E::of_commit(&Err(retriable.clone())), E::CommitUnknown);
    assert_eq!(E::of_error(&retriable), None);
    assert_eq!(E::of_commit(&Ok(())), E::CommitSucceeded);
    let lost = LogError::MemberUnknown {
        operation: "send_offsets",
        message: String::new(),
    };
    assert_eq!(E::of_error(&lost), Some(E::Fenced));
}
