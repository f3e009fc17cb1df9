//! A note that lines are written on, until it is burnt; what is drawn of notes, and a program that runs.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

use millstream::event_sourcing::{
    Aggregate, AggregateHistory, AggregateRecord, AggregateTopics, EventSourced, HistoryKey,
    Projected, Projection, ProjectionEndpoint, ProjectionPhase, ReasonCode, RecordedEvent,
    Rejection, Reply, format_timestamp,
};
use millstream::prelude::*;
use millstream::query::PageLimits;
use millstream::testing::TopologyTestDriver;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Write {
    pub(crate) lines: Vec<String>,
}

/// Writes a last line, where there is one, and burns the note.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Burn {
    #[serde(default)]
    pub(crate) last: Option<String>,
}

/// Burns the note and writes on the ashes: what no aggregate should decide.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Haunt {}

millstream::command_data!(Write, Burn, Haunt);
millstream::commands! {
    pub(crate) enum NoteCommand { Write(Write), Burn(Burn), Haunt(Haunt) }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LineWritten {
    pub(crate) line: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct NoteBurnt {}

millstream::first_version!(LineWritten, NoteBurnt);
millstream::events! {
    pub(crate) enum NoteEvent { LineWritten(LineWritten), NoteBurnt(NoteBurnt) }
}

pub(crate) const NO_LINES: ReasonCode = ReasonCode::new("NO_LINES");

#[derive(Debug, thiserror::Error)]
#[error("nothing to write")]
pub(crate) struct NoLines;

impl Rejection for NoLines {
    fn code(&self) -> ReasonCode {
        NO_LINES
    }
}

/// What is on a note.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Lines {
    pub(crate) lines: Vec<String>,
}

/// A note, in the version `FORM` of its stored state.
#[derive(Debug)]
pub(crate) struct Note<const FORM: u32>;

pub(crate) fn written(line: &str) -> NoteEvent {
    let line = line.to_owned();
    LineWritten { line }.into()
}

impl<const FORM: u32> Aggregate for Note<FORM> {
    const TYPE: &'static str = "Note";
    const STATE_VERSION: u32 = FORM;
    type State = Lines;
    type Command = NoteCommand;
    type Event = NoteEvent;
    type Rejection = NoLines;

    fn decide(_: &Lines, command: NoteCommand) -> Result<Vec<NoteEvent>, NoLines> {
        Ok(match command {
            NoteCommand::Write(Write { lines }) if lines.is_empty() => return Err(NoLines),
            NoteCommand::Write(Write { lines }) => lines.iter().map(|it| written(it)).collect(),
            NoteCommand::Burn(Burn { last }) => {
                let last = last.as_deref().map(written);
                last.into_iter().chain([NoteBurnt {}.into()]).collect()
            }
            NoteCommand::Haunt(Haunt {}) => vec![NoteBurnt {}.into(), written("boo")],
        })
    }

    fn apply(note: &mut Lines, event: &NoteEvent) {
        match event {
            NoteEvent::LineWritten(LineWritten { line }) => note.lines.push(line.clone()),
            NoteEvent::NoteBurnt(_) => panic!("a tombstone is not applied"),
        }
    }

    fn is_tombstone(event: &NoteEvent) -> bool {
        matches!(event, NoteEvent::NoteBurnt(_))
    }
}

type Happened = RecordedEvent<NoteEvent, Lines>;

fn described<const FORM: u32>() -> EventSourced<Note<FORM>> {
    EventSourced::new("note", AggregateTopics::prefixed("note"))
        .snapshot_interval(NonZeroU64::new(3).unwrap())
        .rebuild_slice_entries(2)
}

/// A projection with a row for each line, and one with a row for each event that keeps them.
fn topology<const FORM: u32>() -> (Topology, [ProjectionEndpoint; 2]) {
    let builder = StreamsBuilder::new();
    let drawn = described::<FORM>().draw_all(&builder);
    drawn
        .changes
        .map_values(|record: AggregateRecord<Lines>| record.alive().map(|alive| alive.state))
        .to(
            "notes",
            Produced::with(serdes::string(), serdes::optional(serdes::json::<Lines>())),
        );
    let lines = Projection::new("lines", |note, event: &Happened, rows| match &event.event {
        NoteEvent::LineWritten(written) => {
            let row = json!({"note": note, "line": written.line});
            rows.put(HistoryKey::new(note, event.version), row)
        }
        NoteEvent::NoteBurnt(_) => Err("rows of tombstones are not asked for".into()),
    });
    let Projected {
        rows,
        endpoint: lines,
    } = drawn.projections.draw(&builder, lines);
    rows.flat_map(|key: HistoryKey, row: Option<Value>| {
        Some((format!("{}@{}", key.aggregate_id, key.version), row))
    })
    .to(
        "lines",
        Produced::with(serdes::string(), serdes::optional(serdes::json::<Value>())),
    );
    let log = Projection::new("log", |note, event: &Happened, rows| {
        let before = event.before.as_ref().map_or(0, |before| before.lines.len());
        let row = json!({
            "note": note, "version": event.version, "linesBefore": before,
            "burnt": event.tombstoned,
        });
        rows.put(HistoryKey::new(note, event.version), row)
    })
    .keep_tombstoned();
    let Projected {
        rows,
        endpoint: log,
    } = drawn.projections.draw(&builder, log);
    rows.for_each(|_, _: Option<Value>| {});
    (builder.build().unwrap(), [lines, log])
}

/// A drawer of notes: a program that runs.
pub(crate) struct Drawer<const FORM: u32> {
    pub(crate) driver: TopologyTestDriver,
    pub(crate) history: AggregateHistory<Note<FORM>>,
    endpoints: [ProjectionEndpoint; 2],
    commands: u64,
}

impl Drawer<1> {
    pub(crate) fn new() -> Self {
        let (topology, endpoints) = topology::<1>();
        Self {
            driver: TopologyTestDriver::builder()
                .partitions(2)
                .build(topology)
                .unwrap(),
            history: described::<1>().history(),
            endpoints,
            commands: 0,
        }
    }
}

impl<const FORM: u32> Drawer<FORM> {
    /// Kills the program and starts it again; without its state, it restores.
    pub(crate) fn kill(&mut self, keep_state: bool) {
        let (topology, endpoints) = topology::<FORM>();
        self.driver.restart_with(topology, keep_state).unwrap();
        self.endpoints = endpoints;
    }

    /// Kills the program and starts one whose stored states have another form.
    pub(crate) fn upgrade<const NEXT: u32>(mut self) -> Drawer<NEXT> {
        let (topology, endpoints) = topology::<NEXT>();
        self.driver.restart_with(topology, true).unwrap();
        Drawer {
            driver: self.driver,
            history: described::<NEXT>().history(),
            endpoints,
            commands: self.commands,
        }
    }

    /// Sends a command under an id; returns the reply, `None` when there was none.
    pub(crate) fn send(&mut self, id: &str, note: &str, kind: &str, data: Value) -> Option<Reply> {
        let now = self.driver.now_ms();
        let command = json!({
            "commandId": id, "commandType": kind, "aggregateId": note,
            "timestamp": format_timestamp(now).unwrap(),
            "metadata": {"actorId": "ann"}, "data": data,
        });
        self.pipe("note.commands", note, &command);
        let replies = self
            .driver
            .output_topic("note.replies", serdes::string(), serdes::json::<Reply>())
            .read_values(&mut self.driver)
            .unwrap();
        assert!(replies.len() <= 1, "{replies:?}");
        replies.into_iter().next()
    }

    pub(crate) fn pipe(&mut self, topic: &str, key: &str, value: &Value) {
        let (now, value) = (self.driver.now_ms(), value.to_string());
        let (key, value) = (Some(key.as_bytes()), Some(value.as_bytes()));
        self.driver
            .pipe_bytes(topic, key, value, now, &Headers::new())
            .unwrap();
    }

    /// Sends a new command, which is answered.
    pub(crate) fn command(&mut self, note: &str, kind: &str, data: Value) -> Reply {
        self.commands += 1;
        let id = format!("c-{}", self.commands);
        self.send(&id, note, kind, data).unwrap()
    }

    pub(crate) fn write(&mut self, note: &str, lines: &[&str]) -> Reply {
        self.command(note, "Write", json!({"lines": lines}))
    }

    pub(crate) fn burn(&mut self, note: &str) -> Reply {
        self.command(note, "Burn", json!({}))
    }

    /// Takes the records of a topic since the last look, values as JSON.
    pub(crate) fn take(&mut self, topic: &str) -> Vec<Record<String, Option<Value>>> {
        let value = serdes::optional(serdes::json::<Value>());
        let topic = self.driver.output_topic(topic, serdes::string(), value);
        topic.read_records(&mut self.driver).unwrap()
    }

    /// Returns what a compacted topic has of each key, as far as it was taken just now.
    pub(crate) fn latest(&mut self, topic: &str) -> BTreeMap<String, Option<Value>> {
        let records = self.take(topic).into_iter();
        records.map(|record| (record.key, record.value)).collect()
    }

    pub(crate) fn endpoint(&self, name: &str) -> &ProjectionEndpoint {
        let mut endpoints = self.endpoints.iter();
        endpoints.find(|it| it.name() == name).unwrap()
    }

    /// Returns the rows that a projection serves, in order.
    pub(crate) fn rows(&self, name: &str) -> Vec<Value> {
        let limits = PageLimits {
            values: 10_000,
            entries: 10_000,
        };
        let serving = self.endpoint(name).serving();
        let queries = self.driver.queries();
        let page = queries.page_serving(&*serving, None, limits, |_| true);
        let mut values = page.unwrap().values;
        values.sort_by_key(ToString::to_string);
        values
    }

    /// Lets the tasks do about one slice of a rebuild.
    pub(crate) fn step(&mut self) {
        let by = Duration::from_millis(250);
        self.driver.advance_wall_clock_time(by).unwrap();
    }

    /// Whether all partitions of a projection serve a generation and rest.
    pub(crate) fn rests_at(&self, name: &str, generation: u64) -> bool {
        let view = self.endpoint(name).view(self.driver.queries()).unwrap();
        view.partitions.iter().all(|it| {
            it.progress.generation == generation && it.progress.phase == ProjectionPhase::Resting
        })
    }

    /// Builds a projection anew, with `meanwhile` between the slices.
    pub(crate) fn rebuild(
        &mut self,
        name: &str,
        generation: u64,
        mut meanwhile: impl FnMut(&mut Self, usize),
    ) {
        let asked = self
            .endpoint(name)
            .request_rebuild(self.driver.queries())
            .unwrap();
        assert!(asked.values().all(|it| *it == generation), "{asked:?}");
        for step in 0.. {
            assert!(step < 500, "{name} is never built");
            self.step();
            if self.rests_at(name, generation) {
                return;
            }
            meanwhile(self, step);
        }
    }

    /// Compares everything derived with the events.
    pub(crate) fn assert_verified(&self) {
        let queries = self.driver.queries();
        let found = self.history.verify(queries, None, 1_000).unwrap();
        assert_eq!(found.difference, None);
        assert_eq!(found.cursor, None);
        for endpoint in &self.endpoints {
            let found = endpoint.verify(queries, None, 1_000).unwrap();
            assert_eq!(found.difference, None, "{}", endpoint.name());
        }
    }

    pub(crate) fn metric(&self, name: &str) -> f64 {
        let metrics = self.driver.metrics();
        let lines = metrics.lines().filter(|line| line.starts_with(name));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}
