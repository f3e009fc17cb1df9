//! A counter, the smallest aggregate with a rule: it counts up, by at most ten at a time.

use serde::{Deserialize, Serialize};

use super::{Aggregate, CommandData, ReasonCode, Rejection, Versioned};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Counter {
    pub(super) total: u64,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Count {
    pub(super) by: Vec<u64>,
    #[serde(default)]
    pub(super) ballast: usize,
}
impl CommandData for Count {}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct CountedV1 {
    by: u64,
}
crate::first_version!(CountedV1);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Counted {
    pub(super) before: Option<u64>,
    pub(super) by: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) ballast: String,
}
impl Versioned for Counted {
    type Previous = CountedV1;
    fn upcast(old: CountedV1) -> Self {
        Self {
            before: None,
            by: old.by,
            ballast: String::new(),
        }
    }
}

crate::commands! { pub(super) enum CounterCommand { Count(Count) } }
crate::events! { pub(super) enum CounterEvent { Counted(Counted) } }

pub(super) const TOO_MUCH: ReasonCode = ReasonCode::new("TOO_MUCH");
pub(super) const WRONG_TOTAL: ReasonCode = ReasonCode::new("WRONG_TOTAL");

#[derive(Debug, thiserror::Error)]
pub(super) enum No {
    #[error("counts by at most 10, not {0}")]
    TooMuch(u64),
    #[error("the total is {0}")]
    WrongTotal(u64),
}
impl Rejection for No {
    fn code(&self) -> ReasonCode {
        match self {
            Self::TooMuch(_) => TOO_MUCH,
            Self::WrongTotal(_) => WRONG_TOTAL,
        }
    }
}

impl Aggregate for Counter {
    const TYPE: &'static str = "Counter";
    type State = Self;
    type Command = CounterCommand;
    type Event = CounterEvent;
    type Rejection = No;

    fn decide(counter: &Self, command: CounterCommand) -> Result<Vec<CounterEvent>, No> {
        let CounterCommand::Count(Count { by, ballast }) = command;
        if let Some(by) = by.iter().copied().find(|by| *by > 10) {
            return Err(No::TooMuch(by));
        }
        let mut total = counter.total;
        let event = |by| {
            let before = Some(total);
            total += by;
            Counted {
                before,
                by,
                ballast: "x".repeat(ballast),
            }
            .into()
        };
        Ok(by.into_iter().map(event).collect())
    }

    fn apply(counter: &mut Self, event: &CounterEvent) {
        let CounterEvent::Counted(counted) = event;
        counter.total = counted.before.unwrap_or(counter.total) + counted.by;
    }

    fn follows(counter: &Self, event: &CounterEvent) -> Result<(), No> {
        let CounterEvent::Counted(counted) = event;
        match counted.before {
            Some(before) if before != counter.total => Err(No::WrongTotal(counter.total)),
            _ => Ok(()),
        }
    }

    fn adopt(counter: &mut Self, first: &CounterEvent) {
        let CounterEvent::Counted(counted) = first;
        counter.total = counted.before.unwrap_or(0);
    }
}
