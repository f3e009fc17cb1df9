//! The application of `java/Interop.java`, on millstream: the same names, so the same topics.

#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test binary that includes this file uses a part of it"
)]

use std::time::Duration;

use millstream::prelude::*;

pub(crate) const SIZE_MS: i64 = 1_000;
pub(crate) const GRACE_MS: i64 = 500;
pub(crate) const GAP_MS: i64 = 300;

const fn millis(time: i64) -> Duration {
    Duration::from_millis(time.unsigned_abs())
}

/// Draws the topology of an application; its topics of input and output begin with its id.
pub(crate) fn topology(application: &str) -> Result<Topology, TopologyErrors> {
    let builder = StreamsBuilder::new();
    let topic = |name: &str| format!("{application}.{name}");
    let texts = || Consumed::with(serdes::string(), serdes::string());
    let text_store = |name| Materialized::as_store(name, serdes::string(), serdes::string());
    let number_store = |name| Materialized::as_store(name, serdes::string(), serdes::i64());
    let numbers = || Produced::with(serdes::string(), serdes::optional(serdes::i64()));
    let words = builder.stream(&topic("words"), texts());
    let by_key = words.group_by_key(Grouped::as_name("by-key"));
    by_key
        .count(number_store("counts"))
        .to_stream()
        .to(&topic("counts-out"), numbers());

    let tumbling = TimeWindows::of_size_and_grace(millis(SIZE_MS), millis(GRACE_MS));
    let windowed = || {
        Produced::with(
            serdes::time_windowed(serdes::string(), millis(SIZE_MS)),
            serdes::optional(serdes::i64()),
        )
    };
    let windows = by_key.windowed_by(tumbling).count(number_store("windows"));
    windows.to_stream().to(&topic("windows-out"), windowed());
    windows
        .suppress(Suppressed::until_window_closes(
            "final",
            BufferConfig::unbounded(),
        ))
        .to_stream()
        .to(&topic("final-out"), windowed());
    by_key
        .windowed_by(tumbling)
        .emit_strategy(EmitStrategy::on_window_close())
        .count(number_store("closing").with_retention(Duration::from_secs(3600)))
        .to_stream()
        .to(&topic("closing-out"), windowed());
    by_key
        .windowed_by(SessionWindows::of_inactivity_gap_and_grace(
            millis(GAP_MS),
            millis(GRACE_MS),
        ))
        .count(number_store("sessions"))
        .to_stream()
        .to(
            &topic("sessions-out"),
            Produced::with(
                serdes::session_windowed(serdes::string()),
                serdes::optional(serdes::i64()),
            ),
        );

    words
        .group_by(
            |_, word| word.clone(),
            Grouped::with("by-word", serdes::string(), serdes::string()),
        )
        .count(number_store("word-counts"))
        .to_stream()
        .to(&topic("word-counts-out"), numbers());

    let users = builder.table(&topic("users"), texts(), text_store("users"));
    words
        .join_table(
            &users,
            |_, word, user| format!("{word} by {user}"),
            Joined::as_name("named"),
        )
        .to(
            &topic("named-out"),
            Produced::with(serdes::string(), serdes::string()),
        );
    users
        .group_by(
            |key, city| (city, key.clone()),
            Grouped::with("by-city", serdes::string(), serdes::string()),
        )
        .count(number_store("cities"))
        .to_stream()
        .to(&topic("cities-out"), numbers());

    let left = builder.table(&topic("left"), texts(), text_store("left"));
    let right = builder.table(&topic("right"), texts(), text_store("right"));
    left.join_foreign_key(
        &right,
        |_, value| Some(value.clone()),
        |_, value, found| format!("{value}|{found}"),
        TableJoined::as_name("of-key"),
        text_store("joined"),
    )
    .to_stream()
    .to(
        &topic("joined-out"),
        Produced::with(serdes::string(), serdes::optional(serdes::string())),
    );
    builder.build()
}
