//! A state type that changes: the next program upgrades what the one before has written.

use millstream::plan::{Verdict, compare};
use millstream::prelude::*;
use millstream::testing::{DriverError, TopologyTestDriver};
use serde::{Deserialize, Serialize};

use super::support::{consumed, record};

/// Visits of a user, as the first program counts them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Visits(u32);

/// As the second does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Known {
    visits: u32,
    last: Option<String>,
}

/// And the third.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct User {
    visits: u32,
    pages: Vec<String>,
}

fn second_values() -> VersionedValue<Known> {
    VersionedValue::unversioned(serdes::json::<Visits>()).then(serdes::json(), |Visits(visits)| {
        Known { visits, last: None }
    })
}

fn third_values() -> VersionedValue<User> {
    second_values().then(serdes::json(), |known| User {
        visits: known.visits,
        pages: known.last.into_iter().collect(),
    })
}

/// Folds pages into what is known of users.
fn program<A: Clone + 'static>(
    values: impl Serde<A> + TextCodec,
    start: impl Fn() -> A + Send + Sync + 'static,
    visit: impl Fn(A, String) -> A + Send + Sync + 'static,
) -> Topology {
    let builder = StreamsBuilder::new();
    builder
        .stream("pages", consumed())
        .group_by_key(Grouped::as_name("by-user"))
        .aggregate(
            start,
            move |_, page, user| visit(user, page),
            Materialized::as_store("users", serdes::string(), values),
        );
    builder.build().unwrap()
}

fn first() -> Topology {
    program(serdes::json(), || Visits(0), |user, _| Visits(user.0 + 1))
}

fn second() -> Topology {
    let start = || Known {
        visits: 0,
        last: None,
    };
    program(second_values(), start, |user, page| Known {
        visits: user.visits + 1,
        last: Some(page),
    })
}

fn third() -> Topology {
    let start = || User {
        visits: 0,
        pages: Vec::new(),
    };
    program(third_values(), start, |mut user: User, page| {
        user.visits += 1;
        user.pages.push(page);
        user
    })
}

fn visit(driver: &mut TopologyTestDriver, user: &str, page: &str) -> Result<(), DriverError> {
    let pages = driver.input_topic("pages", serdes::string(), serdes::string());
    pages.pipe_record(driver, &record(user, page, 1))
}

#[test]
fn state_of_older_programs_is_upgraded_on_read_locally_and_after_a_restore() {
    for keep_state in [true, false] {
        let mut driver = TopologyTestDriver::new(first()).unwrap();
        for user in ["ann", "bob", "cem"] {
            visit(&mut driver, user, "/").unwrap();
        }
        driver.restart_with(second(), keep_state).unwrap();
        visit(&mut driver, "bob", "/shop").unwrap();
        driver.restart_with(third(), keep_state).unwrap();
        visit(&mut driver, "cem", "/cart").unwrap();
        let user = |driver: &TopologyTestDriver, user| {
            let found = driver.store_value("users", user).unwrap().unwrap();
            serde_json::from_value::<User>(found).unwrap()
        };
        let known = |visits, pages: &[&str]| User {
            visits,
            pages: pages.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(user(&driver, "ann"), known(1, &[]), "version 0");
        assert_eq!(user(&driver, "bob"), known(2, &["/shop"]), "version 1");
        assert_eq!(user(&driver, "cem"), known(2, &["/cart"]), "version 2");
        let all = driver.store_entries("users", &serdes::string(), &third_values());
        assert_eq!(all.unwrap().len(), 3);
    }
}

#[test]
fn a_value_of_a_newer_program_is_refused_by_store_key_and_version() {
    let mut driver = TopologyTestDriver::new(third()).unwrap();
    visit(&mut driver, "ann", "/").unwrap();
    driver.restart_with(second(), false).unwrap();
    let error = visit(&mut driver, "ann", "/").unwrap_err();
    let mut text = String::new();
    let mut next: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    for part in ["`users`", "`ann`", "version 2", "1 is the newest"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    // What an old program does not look at is not touched.
    driver.restart_with(third(), true).unwrap();
    assert!(driver.store_value("users", "ann").unwrap().is_some());
}

#[test]
fn a_plan_tells_upgrades_from_values_that_nobody_reads() {
    let verdict = |running: Topology, planned: Topology| {
        let plan = compare("app", Some(running.describe()), planned.describe());
        (plan.verdict(), plan.to_string())
    };
    assert_eq!(verdict(first(), second()).0, Verdict::Safe);
    assert_eq!(verdict(first(), third()).0, Verdict::Safe);
    let (upgraded, text) = verdict(second(), third());
    assert_eq!(upgraded, Verdict::Safe);
    assert!(text.contains("those of version 1 are upgraded"), "{text}");
    let (back, text) = verdict(third(), second());
    assert_eq!(back, Verdict::NeedsReset);
    assert!(text.contains("holds values of version 2"), "{text}");
    let start = || User {
        visits: 0,
        pages: Vec::new(),
    };
    let late = VersionedValue::starting_at(2, serdes::json());
    let late = program(late, start, |user, _| user);
    assert_eq!(verdict(first(), late).0, Verdict::NeedsReset);
    assert_eq!(verdict(second(), second()).0, Verdict::Unchanged);
}

/// The users again, joined by foreign key with what is known of their last pages.
fn joined(values: VersionedValue<Known>) -> Topology {
    let builder = StreamsBuilder::new();
    let strings = || Consumed::with(serdes::string(), serdes::string());
    let users = builder
        .stream("pages", strings())
        .group_by_key(Grouped::as_name("by-user"))
        .aggregate(
            || Known {
                visits: 0,
                last: None,
            },
            |_, page, user| Known {
                visits: user.visits + 1,
                last: Some(page),
            },
            Materialized::as_store("users", serdes::string(), values),
        );
    let titles = builder.table(
        "titles",
        strings(),
        Materialized::as_store("titles", serdes::string(), serdes::string()),
    );
    drop(users.join_foreign_key(
        &titles,
        |_, user| user.last.clone(),
        |_, _, title| title,
        TableJoined::as_name("title-of-user"),
        Materialized::as_store("titles-of-users", serdes::string(), serdes::string()),
    ));
    builder.build().unwrap()
}

#[test]
fn an_upgrade_of_the_left_table_of_a_foreign_key_join_needs_a_reset() {
    let running = joined(VersionedValue::starting_at(1, serdes::json()));
    let upgraded = VersionedValue::starting_at(1, serdes::json::<Known>());
    let planned = joined(upgraded.then(serdes::json(), |known| known));
    let plan = compare("app", Some(running.describe()), planned.describe());
    assert_eq!(plan.verdict(), Verdict::NeedsReset, "{plan}");
    assert!(plan.to_string().contains("foreign-key join"), "{plan}");
}
