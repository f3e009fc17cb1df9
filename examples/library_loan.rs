//! A third aggregate, whole: a library book and who has it, from its rules to its past.
//!
//! `cargo run --release --example library_loan` lends a book through the production runtime, on a log in
//! memory, and asks what was when; `cargo test --release --example library_loan` tests the rules.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::time::Duration;

use millstream::event_sourcing::{
    Aggregate, AggregateHistory, AggregateRecord, AggregateTopics, EventSourced, Point, ReasonCode,
    Rejection, Versioned, format_timestamp,
};
use millstream::prelude::*;
use millstream::testing::TopologyTestDriver;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

// What can be asked for: `commandType` is the type's name, its fields are `data`.

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Lend {
    member: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Renew {}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct TakeBack {}

millstream::command_data!(Lend, Renew, TakeBack);
millstream::commands! { enum BookCommand { Lend(Lend), Renew(Renew), TakeBack(TakeBack) } }

// What can have happened. Loans were once recorded without a desk: version 2 has one.

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct BookLentV1 {
    member: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct BookLent {
    member: String,
    desk: String,
}

impl Versioned for BookLent {
    type Previous = BookLentV1;
    fn upcast(old: BookLentV1) -> Self {
        let desk = "main".to_owned();
        Self {
            member: old.member,
            desk,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct LoanRenewed {}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct BookReturned {
    member: String,
}

millstream::first_version!(BookLentV1, LoanRenewed, BookReturned);
millstream::events! {
    enum BookEvent { BookLent(BookLent), LoanRenewed(LoanRenewed), BookReturned(BookReturned) }
}

// The rules.

const RENEWALS_MAX: u32 = 2;

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("{0} has the book")]
    LentOut(String),
    #[error("nobody has the book")]
    NotLent,
    #[error("a loan is renewed at most {RENEWALS_MAX} times")]
    RenewedTooOften,
}

impl Rejection for Refused {
    fn code(&self) -> ReasonCode {
        ReasonCode::new(match self {
            Self::LentOut(_) => "LENT_OUT",
            Self::NotLent => "NOT_LENT",
            Self::RenewedTooOften => "RENEWED_TOO_OFTEN",
        })
    }
}

/// A book: what its events add up to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Book {
    member: Option<String>,
    renewals: u32,
    loans: u32,
}

impl Aggregate for Book {
    const TYPE: &'static str = "Book";
    type State = Self;
    type Command = BookCommand;
    type Event = BookEvent;
    type Rejection = Refused;

    fn decide(book: &Self, command: BookCommand) -> Result<Vec<BookEvent>, Refused> {
        let event = match (command, book.member.clone()) {
            (BookCommand::Lend(_), Some(member)) => return Err(Refused::LentOut(member)),
            (BookCommand::Lend(Lend { member }), None) => {
                let desk = "main".to_owned();
                BookLent { member, desk }.into()
            }
            (BookCommand::Renew(_) | BookCommand::TakeBack(_), None) => {
                return Err(Refused::NotLent);
            }
            (BookCommand::Renew(_), Some(_)) if book.renewals >= RENEWALS_MAX => {
                return Err(Refused::RenewedTooOften);
            }
            (BookCommand::Renew(_), Some(_)) => LoanRenewed {}.into(),
            (BookCommand::TakeBack(_), Some(member)) => BookReturned { member }.into(),
        };
        Ok(vec![event])
    }

    fn apply(book: &mut Self, event: &BookEvent) {
        match event {
            BookEvent::BookLent(lent) => {
                book.member = Some(lent.member.clone());
                (book.renewals, book.loans) = (0, book.loans + 1);
            }
            BookEvent::LoanRenewed(_) => book.renewals += 1,
            BookEvent::BookReturned(_) => book.member = None,
        }
    }
}

// The topology: the aggregate, and one read model: how often each book was lent.

fn library() -> Result<(Topology, AggregateHistory<Book>), TopologyErrors> {
    let builder = StreamsBuilder::new();
    let books = EventSourced::<Book>::new("book", AggregateTopics::prefixed("library.book"));
    let history = books.history();
    books
        .draw(&builder)
        .map_values(|book: AggregateRecord<Book>| i64::from(book.state.loans))
        .to(
            "library.loans",
            Produced::with(serdes::string(), serdes::i64()),
        );
    Ok((builder.build()?, history))
}

/// Sends a command for the book `moby-dick` by somebody at the desk.
fn send(driver: &mut TopologyTestDriver, kind: &str, data: Value) -> Result<(), Box<dyn Error>> {
    let commands = driver.input_topic(
        "library.book.commands",
        serdes::string(),
        serdes::json::<Value>(),
    );
    let now = driver.now_ms();
    let command = json!({
        "commandId": format!("{kind}-{now}"), "commandType": kind, "aggregateId": "moby-dick",
        "timestamp": format_timestamp(now)?, "metadata": {"actorId": "desk-1"}, "data": data,
    });
    Ok(commands.pipe(driver, "moby-dick".to_owned(), command)?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let (topology, history) = library()?;
    let mut driver = TopologyTestDriver::new(topology)?;
    let day = Duration::from_secs(24 * 60 * 60);
    let opened = driver.now_ms();
    send(&mut driver, "Lend", json!({"member": "ishmael"}))?;
    driver.advance_wall_clock_time(day)?;
    send(&mut driver, "Renew", json!({}))?;
    driver.advance_wall_clock_time(day)?;
    send(&mut driver, "TakeBack", json!({}))?;
    send(&mut driver, "Lend", json!({"member": "queequeg"}))?;

    let queries = driver.queries();
    let noon = Point::Time(opened + 12 * 60 * 60 * 1000);
    let then = history
        .as_of(queries, "moby-dick", noon)?
        .ok_or("no such book")?;
    println!("half a day later: {:?}", then.record.state);
    assert_eq!(then.record.state.member.as_deref(), Some("ishmael"));
    let timeline = history
        .timeline(queries, "moby-dick", 1, 100)?
        .ok_or("no such book")?;
    for entry in &timeline.items {
        println!("{entry}");
    }
    assert_eq!(timeline.items.len(), 4);
    let loans = driver.output_topic("library.loans", serdes::string(), serdes::i64());
    assert_eq!(loans.read_values(&mut driver)?, [1, 1, 1, 2]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use millstream::event_sourcing::given;

    use super::*;

    fn lent_to(member: &str) -> BookEvent {
        let (member, desk) = (member.to_owned(), "main".to_owned());
        BookLent { member, desk }.into()
    }

    #[test]
    fn a_book_is_lent_to_one_member_at_a_time() {
        let lend = |member: &str| Lend {
            member: member.to_owned(),
        };
        let returned = BookReturned {
            member: "ishmael".to_owned(),
        };
        given::<Book>([])
            .when(lend("ishmael"))
            .then([lent_to("ishmael")])
            .when(lend("queequeg"))
            .then_rejected(ReasonCode::new("LENT_OUT"))
            .when(TakeBack {})
            .then([returned.into()])
            .when(lend("queequeg"))
            .then([lent_to("queequeg")]);
    }

    #[test]
    fn a_loan_is_renewed_twice_and_the_next_loan_anew() {
        given::<Book>([
            lent_to("ishmael"),
            LoanRenewed {}.into(),
            LoanRenewed {}.into(),
        ])
        .when(Renew {})
        .then_rejected(ReasonCode::new("RENEWED_TOO_OFTEN"));
        given::<Book>([])
            .when(Renew {})
            .then_rejected(ReasonCode::new("NOT_LENT"));
    }

    #[test]
    fn the_example_runs() {
        main().unwrap();
    }
}
