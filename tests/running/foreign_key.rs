//! Changes of both sides of a foreign-key join that pass each other on the way through its topics.

use std::sync::Arc;
use std::time::Duration;

use millstream::log::Log;
use millstream::prelude::*;
use millstream::topology::Topology;

use super::{Place, Running, config, unique};

/// A left value is `<foreign key>:<number>`, `-` is no key; a right value `gone` deletes.
fn topology(name: &str) -> Arc<Topology> {
    let builder = StreamsBuilder::new();
    let text = |name: &str| Materialized::as_store(name, serdes::string(), serdes::string());
    let table = |side: &str| {
        builder.table(
            &format!("{name}-{side}"),
            Consumed::with(serdes::string(), serdes::string()),
            text(side),
        )
    };
    let there = table("right")
        .filter(|_, value| value != "gone")
        .materialized(text("there"));
    table("left")
        .join_foreign_key(
            &there,
            |_, value| {
                let (key, _) = value.split_once(':')?;
                (key != "-").then(|| key.to_owned())
            },
            |_, left, right| format!("{left}|{right}"),
            TableJoined::as_name("of-key"),
            text("joined"),
        )
        .to_stream()
        .to(
            &format!("{name}-joined"),
            Produced::with(serdes::string(), serdes::optional(serdes::string())),
        );
    Arc::new(builder.build().unwrap())
}

/// Makes a result, then writes `changes` (topic, value) for the thread to find all at once, and waits
/// until the result is gone.
fn ends_a_result<L: Log>(place: &Place<L>, changes: &[(&str, &str)]) {
    let name = unique("foreign");
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(place, &topology(&name), &config(&name, &dir));
    let topic = |side: &str| format!("{name}-{side}");
    let write = |side: &str, value: &str| place.write(&topic(side), &[value.as_bytes().to_vec()]);
    let results = || place.texts(&topic("joined"));
    write("right", "r");
    write("left", "k:1");
    running
        .run_until(place, "both values are joined", |_| {
            results().last().is_some_and(|last| last == "k:1|r")
        })
        .unwrap();
    // Nothing else is on its way.
    place.pass(Duration::from_millis(1));
    running.run_dry(place).unwrap();
    for (side, value) in changes {
        write(side, value);
    }
    running
        .run_until(place, "the result is gone", |_| {
            // A null reads as nothing.
            results().last().is_some_and(String::is_empty)
        })
        .unwrap();
    running.stop(place);
}

pub(crate) fn a_result_ends_when_its_right_value_goes_while_the_left_one_changes<L: Log>(
    place: &Place<L>,
) {
    ends_a_result(place, &[("right", "gone"), ("left", "k:2")]);
}

pub(crate) fn a_result_ends_when_its_left_value_loses_the_key_and_changes_again<L: Log>(
    place: &Place<L>,
) {
    ends_a_result(place, &[("left", "-:2"), ("left", "-:3")]);
}
