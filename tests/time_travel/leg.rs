//! The aggregate under test: a flight leg, in several forms of its state, as programs change it.

use std::fmt::Debug;
use std::marker::PhantomData;

use millstream::event_sourcing::{
    Aggregate, CommandData, FirstVersion, ReasonCode, Rejection, Versioned,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A command that records whatever it is told, several things at once.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Record {
    #[serde(default)]
    pub(crate) created: bool,
    #[serde(default)]
    pub(crate) stands: Vec<String>,
    #[serde(default)]
    pub(crate) status: Option<String>,
    #[serde(default)]
    pub(crate) gate: Option<String>,
}
impl CommandData for Record {}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LegCreated {}
millstream::first_version!(LegCreated);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StandAllocatedV1 {
    stand: String,
}
impl Versioned for StandAllocatedV1 {
    type Previous = FirstVersion;
    fn upcast(previous: FirstVersion) -> Self {
        match previous {}
    }
}

/// Version 2 names who allocated the stand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StandAllocated {
    pub(crate) stand: String,
    pub(crate) allocated_by: String,
}
impl Versioned for StandAllocated {
    type Previous = StandAllocatedV1;
    fn upcast(old: StandAllocatedV1) -> Self {
        Self {
            stand: old.stand,
            allocated_by: "system".to_owned(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StatusChanged {
    pub(crate) new_status: String,
}
millstream::first_version!(StatusChanged);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct GateAssigned {
    pub(crate) gate: String,
}
millstream::first_version!(GateAssigned);

millstream::commands! { pub(crate) enum LegCommand { Record(Record) } }
millstream::events! {
    pub(crate) enum LegEvent {
        LegCreated(LegCreated),
        StandAllocated(StandAllocated),
        StatusChanged(StatusChanged),
        GateAssigned(GateAssigned),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("nothing to record")]
pub(crate) struct Nothing;
impl Rejection for Nothing {
    fn code(&self) -> ReasonCode {
        ReasonCode::new("NOTHING")
    }
}

/// What a program keeps of a leg.
pub(crate) trait LegState:
    Debug + Clone + Default + PartialEq + Serialize + DeserializeOwned + Send + 'static
{
    const VERSION: u32;
    fn apply(&mut self, event: &LegEvent);
}

/// A leg whose state is an `S`.
pub(crate) struct Leg<S>(PhantomData<S>);

impl<S: LegState> Aggregate for Leg<S> {
    const TYPE: &'static str = "Leg";
    const STATE_VERSION: u32 = S::VERSION;
    type State = S;
    type Command = LegCommand;
    type Event = LegEvent;
    type Rejection = Nothing;

    fn decide(_: &S, command: LegCommand) -> Result<Vec<LegEvent>, Nothing> {
        let LegCommand::Record(record) = command;
        let mut events = Vec::new();
        if record.created {
            events.push(LegCreated {}.into());
        }
        for stand in record.stands {
            let allocated_by = "allocator".to_owned();
            let event = StandAllocated {
                stand,
                allocated_by,
            };
            events.push(event.into());
        }
        events.extend(
            record
                .status
                .map(|new_status| StatusChanged { new_status }.into()),
        );
        events.extend(record.gate.map(|gate| GateAssigned { gate }.into()));
        if events.is_empty() {
            return Err(Nothing);
        }
        Ok(events)
    }

    fn apply(state: &mut S, event: &LegEvent) {
        state.apply(event);
    }
}

/// The state as the first program keeps it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Plain {
    pub(crate) status: Option<String>,
    pub(crate) stand: Option<String>,
    pub(crate) allocated_by: Option<String>,
    pub(crate) gate: Option<String>,
    pub(crate) stands: u64,
}

impl LegState for Plain {
    const VERSION: u32 = 1;

    fn apply(&mut self, event: &LegEvent) {
        match event {
            LegEvent::LegCreated(_) => self.status = Some("Scheduled".to_owned()),
            LegEvent::StandAllocated(allocated) => {
                self.stand = Some(allocated.stand.clone());
                self.allocated_by = Some(allocated.allocated_by.clone());
                self.stands += 1;
            }
            LegEvent::StatusChanged(changed) => self.status = Some(changed.new_status.clone()),
            LegEvent::GateAssigned(assigned) => self.gate = Some(assigned.gate.clone()),
        }
    }
}

/// A later program's: other fields, and its author forgot to say so.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reshaped {
    pub(crate) last_stand: Vec<String>,
    pub(crate) stands: u64,
}

impl LegState for Reshaped {
    const VERSION: u32 = 1;

    fn apply(&mut self, event: &LegEvent) {
        if let LegEvent::StandAllocated(allocated) = event {
            self.last_stand = vec![allocated.stand.clone()];
            self.stands += 1;
        }
    }
}

/// A later program's: the same fields with another meaning, and its author forgot to say so.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Misread {
    pub(crate) stands: u64,
}

impl LegState for Misread {
    const VERSION: u32 = 1;

    fn apply(&mut self, event: &LegEvent) {
        if let LegEvent::StandAllocated(_) = event {
            self.stands += 1_000;
        }
    }
}

/// A later program's: the same fields with another meaning, and another version.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Revised {
    pub(crate) stands: u64,
}

impl LegState for Revised {
    const VERSION: u32 = 2;

    fn apply(&mut self, event: &LegEvent) {
        if let LegEvent::StandAllocated(_) = event {
            self.stands += 1_000;
        }
    }
}
