//! A library whose shelves books are put on and taken from; two projections of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millstream::event_sourcing::{
    Aggregate, AggregateTopics, CommandData, Drawn, EventSourced, Grouped, GroupedProjection,
    HistoryKey, Outcome, Projected, Projection, ProjectionEndpoint, ProjectionPhase,
    ProjectionProgress, ReasonCode, RecordedEvent, Rejection, Reply, Shares,
};
use millstream::prelude::*;
use millstream::query::PageLimits;
use millstream::testing::TopologyTestDriver;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Put {
    pub(crate) books: Vec<String>,
}
impl CommandData for Put {}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Clear {}
impl CommandData for Clear {}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct BookPut {
    pub(crate) book: String,
}
millstream::first_version!(BookPut);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ShelfCleared {}
millstream::first_version!(ShelfCleared);

millstream::commands! { pub(crate) enum ShelfCommand { Put(Put), Clear(Clear) } }
millstream::events! { pub(crate) enum ShelfEvent { BookPut(BookPut), ShelfCleared(ShelfCleared) } }

#[derive(Debug, thiserror::Error)]
#[error("no books")]
pub(crate) struct NoBooks;
impl Rejection for NoBooks {
    fn code(&self) -> ReasonCode {
        ReasonCode::new("NO_BOOKS")
    }
}

/// A shelf: its books.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Books(pub(crate) Vec<String>);

pub(crate) struct Shelf;

impl Aggregate for Shelf {
    const TYPE: &'static str = "Shelf";
    type State = Books;
    type Command = ShelfCommand;
    type Event = ShelfEvent;
    type Rejection = NoBooks;

    fn decide(_: &Books, command: ShelfCommand) -> Result<Vec<ShelfEvent>, NoBooks> {
        match command {
            ShelfCommand::Put(Put { books }) if books.is_empty() => Err(NoBooks),
            ShelfCommand::Put(Put { books }) => Ok(books
                .into_iter()
                .map(|book| BookPut { book }.into())
                .collect()),
            ShelfCommand::Clear(Clear {}) => Ok(vec![ShelfCleared {}.into()]),
        }
    }

    fn apply(state: &mut Books, event: &ShelfEvent) {
        match event {
            ShelfEvent::BookPut(put) => state.0.push(put.book.clone()),
            ShelfEvent::ShelfCleared(_) => state.0.clear(),
        }
    }
}

type Happened = RecordedEvent<ShelfEvent, Books>;

/// The row of a shelf: how many books, by a rule that programs change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Count {
    pub(crate) shelf: String,
    pub(crate) books: u64,
}

/// A group of the projection over shelves: how many books begin with a letter, by a rule that programs
/// change.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Letter {
    pub(crate) letter: String,
    pub(crate) books: i64,
}

/// A program: which projections it draws, and by which rules.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// What a book counts.
    pub(crate) weight: u64,
    /// The version of the rule.
    pub(crate) version: u32,
    /// Whether there is a row for each book, too.
    pub(crate) ledger: bool,
    /// Whether books are counted over all shelves.
    pub(crate) letters: bool,
    /// Has rows made wrongly, as a bug would.
    pub(crate) wrong: Arc<AtomicBool>,
}

impl Program {
    pub(crate) fn first() -> Self {
        Self {
            weight: 1,
            version: 1,
            ledger: true,
            letters: false,
            wrong: Arc::default(),
        }
    }

    fn counts(&self) -> Projection<Shelf, String, Count> {
        let (weight, wrong) = (self.weight, Arc::clone(&self.wrong));
        Projection::<Shelf, String, Count>::new("counts", move |shelf, event: &Happened, rows| {
            if event.after.0.is_empty() {
                return rows.delete(shelf.to_owned());
            }
            let bug = u64::from(wrong.load(Ordering::Relaxed));
            let before = rows.get(&shelf.to_owned())?.map_or(0, |row| row.books);
            let count = Count {
                shelf: shelf.to_owned(),
                books: before + weight + bug,
            };
            rows.put(shelf.to_owned(), count)
        })
        .version(self.version)
    }

    /// Books over all shelves by their first letters.
    fn draw_letters(&self, builder: &StreamsBuilder, drawn: &Drawn<Shelf>) -> ProjectionEndpoint {
        let weight = i64::try_from(self.weight).unwrap();
        let wrong = Arc::clone(&self.wrong);
        let letters = GroupedProjection::<Shelf, i64, Letter>::new(
            "letters",
            move |_, event: &Happened, shares: &mut Shares<i64>| {
                shares.clear();
                for book in &event.after.0 {
                    let letter = &book[..1];
                    let books = shares.get(letter).copied().unwrap_or(0);
                    shares.set(letter, books + weight);
                }
                Ok(())
            },
            Letter::default,
            move |letter, books, sum| Letter {
                letter: letter.to_owned(),
                books: sum.books + books + i64::from(wrong.load(Ordering::Relaxed)),
            },
            |letter, books, sum| Letter {
                letter: letter.to_owned(),
                books: sum.books - books,
            },
        )
        .version(self.version);
        let Grouped { rows, endpoint } = drawn.projections.draw_grouped(builder, letters);
        rows.to(
            "letters",
            Produced::with(serdes::string(), serdes::optional(serdes::json::<Letter>())),
        );
        endpoint
    }

    fn build(&self, slice: usize) -> (Topology, Vec<ProjectionEndpoint>) {
        let builder = StreamsBuilder::new();
        let topics = AggregateTopics {
            commands: "commands".to_owned(),
            events: "events".to_owned(),
            replies: "replies".to_owned(),
            dead_letters: "dead".to_owned(),
        };
        let drawn = EventSourced::<Shelf>::new("shelf", topics)
            .rebuild_slice_entries(slice)
            .draw_all(&builder);
        let Projected { rows, endpoint } = drawn.projections.draw(&builder, self.counts());
        rows.to(
            "counts",
            Produced::with(serdes::string(), serdes::optional(serdes::json::<Count>())),
        );
        let mut endpoints = vec![endpoint];
        if self.ledger {
            let ledger = Projection::new("ledger", |shelf, event: &Happened, rows| {
                let ShelfEvent::BookPut(put) = &event.event else {
                    return Ok(());
                };
                let row = json!({"shelf": shelf, "book": put.book, "version": event.version});
                rows.put(HistoryKey::new(shelf, event.version), row)
            });
            let Projected { rows, endpoint } = drawn.projections.draw(&builder, ledger);
            rows.for_each(|_, _: Option<Value>| {});
            endpoints.push(endpoint);
        }
        if self.letters {
            endpoints.push(self.draw_letters(&builder, &drawn));
        }
        (builder.build().unwrap(), endpoints)
    }
}

/// Rows as they are served, in order.
pub(crate) type Served = Vec<Value>;

pub(crate) struct Library {
    pub(crate) driver: TopologyTestDriver,
    pub(crate) endpoints: Vec<ProjectionEndpoint>,
    pub(crate) program: Program,
    /// What the books of each shelf were, one after another.
    pub(crate) shelves: BTreeMap<String, Vec<String>>,
    slice: usize,
    commands: u64,
}

impl Library {
    /// Opens a library whose rebuilds go `slice` events at a time.
    pub(crate) fn new(program: Program, slice: usize) -> Self {
        let (topology, endpoints) = program.build(slice);
        let driver = TopologyTestDriver::builder()
            .partitions(2)
            .build(topology)
            .unwrap();
        Self {
            driver,
            endpoints,
            program,
            shelves: BTreeMap::new(),
            slice,
            commands: 0,
        }
    }

    /// Kills the program and starts another one; without its state, it restores.
    pub(crate) fn restart_as(&mut self, program: Program, keep_state: bool) {
        let (topology, endpoints) = program.build(self.slice);
        self.driver.restart_with(topology, keep_state).unwrap();
        (self.endpoints, self.program) = (endpoints, program);
    }

    /// Kills the program and starts it again.
    pub(crate) fn kill(&mut self, keep_state: bool) {
        self.restart_as(self.program.clone(), keep_state);
    }

    fn send(&mut self, shelf: &str, kind: &str, data: &Value) {
        self.commands += 1;
        let command = json!({
            "commandId": format!("c-{}", self.commands), "commandType": kind,
            "aggregateId": shelf, "timestamp": "2025-07-04T10:00:00.000Z", "data": data,
        });
        let now = self.driver.now_ms();
        let value = command.to_string();
        let (key, value) = (Some(shelf.as_bytes()), Some(value.as_bytes()));
        self.driver
            .pipe_bytes("commands", key, value, now, &Headers::new())
            .unwrap();
        let replies = self
            .driver
            .output_topic("replies", serdes::string(), serdes::json::<Reply>())
            .read_values(&mut self.driver)
            .unwrap();
        let reply = replies.last().unwrap();
        assert_eq!(reply.outcome, Outcome::Accepted, "{reply:?}");
    }

    pub(crate) fn put(&mut self, shelf: &str, books: &[&str]) {
        self.send(shelf, "Put", &json!({"books": books}));
        let on = self.shelves.entry(shelf.to_owned()).or_default();
        on.extend(books.iter().map(|book| (*book).to_owned()));
    }

    pub(crate) fn clear(&mut self, shelf: &str) {
        self.send(shelf, "Clear", &json!({}));
        self.shelves.remove(shelf);
    }

    pub(crate) fn endpoint(&self, name: &str) -> ProjectionEndpoint {
        let mut endpoints = self.endpoints.iter();
        endpoints.find(|it| it.name() == name).unwrap().clone()
    }

    /// Lets the tasks do about one slice.
    pub(crate) fn step(&mut self) {
        let by = Duration::from_millis(250);
        self.driver.advance_wall_clock_time(by).unwrap();
    }

    pub(crate) fn progress(&self, name: &str) -> Vec<ProjectionProgress> {
        let view = self.endpoint(name).view(self.driver.queries()).unwrap();
        assert_eq!(view.partitions_missing, Vec::<i32>::new());
        let partitions = view.partitions.into_iter();
        partitions.map(|partition| partition.progress).collect()
    }

    pub(crate) fn rests(&self, name: &str) -> bool {
        let view = self.endpoint(name).view(self.driver.queries()).unwrap();
        let rows = view.partitions.iter().map(|it| &it.progress.phase);
        let groups = view.groups.iter().flat_map(|groups| &groups.partitions);
        let mut phases = rows.chain(groups.map(|it| &it.phase));
        phases.all(|phase| *phase == ProjectionPhase::Resting)
    }

    pub(crate) fn served(&self, name: &str) -> Served {
        let limits = PageLimits {
            values: 10_000,
            entries: 10_000,
        };
        let queries = self.driver.queries();
        let serving = self.endpoint(name).serving();
        let page = queries.page_serving(&*serving, None, limits, |_| true);
        let mut values = page.unwrap().values;
        values.sort_by_key(ToString::to_string);
        values
    }

    /// Returns the counts as a rule makes them.
    pub(crate) fn counts(&self, weight: u64) -> Served {
        let shelves = self.shelves.iter();
        let mut counts: Served = shelves
            .map(|(shelf, books)| {
                let books = u64::try_from(books.len()).unwrap() * weight;
                json!({"shelf": shelf, "books": books})
            })
            .collect();
        counts.sort_by_key(ToString::to_string);
        counts
    }

    /// Returns the books by their first letters, as a rule counts them.
    pub(crate) fn letters(&self, weight: i64) -> Served {
        let mut letters: BTreeMap<&str, i64> = BTreeMap::new();
        for book in self.shelves.values().flatten() {
            *letters.entry(&book[..1]).or_default() += weight;
        }
        let letters = letters.into_iter();
        let mut rows: Served = letters
            .map(|(letter, books)| json!({"letter": letter, "books": books}))
            .collect();
        rows.sort_by_key(ToString::to_string);
        rows
    }

    /// Returns the letters that were sent on since the last look.
    pub(crate) fn sent_letters(&mut self) -> Vec<(String, Option<Letter>)> {
        let value = serdes::optional(serdes::json::<Letter>());
        let topic = self.driver.output_topic("letters", serdes::string(), value);
        let records = topic.read_records(&mut self.driver).unwrap();
        let records = records.into_iter();
        records.map(|record| (record.key, record.value)).collect()
    }

    /// Lets the tasks work until a projection is at rest.
    pub(crate) fn settle(&mut self, name: &str) {
        for _ in 0..500 {
            self.step();
            if self.rests(name) {
                return;
            }
        }
        panic!("{name} is still at work: {:?}", self.progress(name));
    }

    /// Returns the rows that were sent on since the last look.
    pub(crate) fn sent(&mut self) -> Vec<(String, Option<Count>)> {
        let value = serdes::optional(serdes::json::<Count>());
        let topic = self.driver.output_topic("counts", serdes::string(), value);
        let records = topic.read_records(&mut self.driver).unwrap();
        let records = records.into_iter();
        records.map(|record| (record.key, record.value)).collect()
    }

    /// Returns how many rows a store has.
    pub(crate) fn rows_of(&self, store: &str) -> usize {
        let entries = self
            .driver
            .store_entries(store, &serdes::bytes(), &serdes::bytes());
        entries.unwrap().len()
    }
}
