//! Joins with tables, of tables, and by foreign key.

use millstream::prelude::*;

use crate::aggregations::{store, writes_counts, writes_texts};
use crate::cases;
use crate::stateless::{Text, java, nullable, writes};
use crate::tables::strings;

cases![
    stream_table_join,
    stream_table_left_join,
    stream_table_join_repartitioned,
    stream_table_left_join_repartitioned,
    stream_table_join_derived,
    table_table_join,
    table_table_left_join,
    table_table_outer_join,
    table_table_join_materialized,
    table_table_join_derived,
    table_table_left_join_derived,
    table_table_join_self,
    table_table_join_twice,
    table_table_outer_join_grouped,
    stream_global_join,
    stream_global_left_join,
    foreign_key_join,
    foreign_key_left_join,
];

fn named(builder: &StreamsBuilder, topic: &str, name: &str) -> KTable<Text, String> {
    let consumed = Consumed::with(serdes::optional(serdes::string()), serdes::string());
    builder.table(topic, consumed, store(name, serdes::string()))
}

fn table(builder: &StreamsBuilder) -> KTable<Text, String> {
    named(builder, "table", "table-store")
}

/// Texts one after the other, as Java joins them.
fn concat(left: &Text, right: &Text) -> Text {
    Some(format!("{}{}", java(left), java(right)))
}

fn by_value() -> Joined<Text, Text> {
    let text = || serdes::optional(serdes::string());
    Joined::with("by-value", text(), text())
}

fn stream_table_join(builder: &StreamsBuilder) {
    nullable(builder)
        .join_table(
            &table(builder),
            |key, value, found| Some(format!("{}:{}{found}", java(key), java(&value))),
            Joined::as_name("joined"),
        )
        .to("out", writes());
}

fn stream_table_left_join(builder: &StreamsBuilder) {
    nullable(builder)
        .left_join_table(
            &table(builder),
            |key, value, found| Some(format!("{}:{}{}", java(key), java(&value), java(&found))),
            Joined::as_name("joined"),
        )
        .to("out", writes());
}

fn global(builder: &StreamsBuilder) -> GlobalKTable<Text, String> {
    let key = || serdes::optional(serdes::string());
    builder.global_table(
        "table",
        Consumed::with(key(), serdes::string()),
        Materialized::as_store("global-store", key(), serdes::string()),
    )
}

fn stream_global_join(builder: &StreamsBuilder) {
    nullable(builder)
        .join_global_table(
            &global(builder),
            |_, value| Some(value.clone()),
            |_, value, found| concat(&value, &Some(found)),
        )
        .to("out", writes());
}

fn stream_global_left_join(builder: &StreamsBuilder) {
    nullable(builder)
        .left_join_global_table(
            &global(builder),
            |_, value| Some(value.clone()),
            |_, value, found| concat(&value, &found),
        )
        .to("out", writes());
}

fn stream_table_join_repartitioned(builder: &StreamsBuilder) {
    nullable(builder)
        .select_key(|_, value| value.clone())
        .join_table(
            &table(builder),
            |_, value, found| concat(&value, &Some(found)),
            by_value(),
        )
        .to("out", writes());
}

fn stream_table_left_join_repartitioned(builder: &StreamsBuilder) {
    nullable(builder)
        .select_key(|_, value| value.clone())
        .left_join_table(
            &table(builder),
            |_, value, found| concat(&value, &found),
            by_value(),
        )
        .to("out", writes());
}

fn stream_table_join_derived(builder: &StreamsBuilder) {
    let derived = table(builder)
        .filter(|_, value| value.as_str() > "3")
        .map_values(|_, value| format!("{value}!"));
    nullable(builder)
        .join_table(
            &derived,
            |_, value, found| concat(&value, &Some(found)),
            Joined::as_name("joined"),
        )
        .to("out", writes());
}

fn table_table_join(builder: &StreamsBuilder) {
    strings(builder)
        .join(&table(builder), |_, left, right| left + &right)
        .to_stream()
        .to("out", writes_texts());
}

fn left_joined(left: &KTable<Text, String>, right: &KTable<Text, String>) -> KTable<Text, String> {
    left.left_join(right, |_, left, right| left + java(&right))
}

fn table_table_left_join(builder: &StreamsBuilder) {
    left_joined(&strings(builder), &table(builder))
        .to_stream()
        .to("out", writes_texts());
}

fn table_table_outer_join(builder: &StreamsBuilder) {
    outer_joined(builder).to_stream().to("out", writes_texts());
}

fn outer_joined(builder: &StreamsBuilder) -> KTable<Text, String> {
    strings(builder).outer_join(&table(builder), |_, left, right| {
        format!("{}{}", java(&left), java(&right))
    })
}

fn table_table_join_materialized(builder: &StreamsBuilder) {
    strings(builder)
        .join(&table(builder), |_, left, right| left + &right)
        .materialized(store("joined", serdes::string()))
        .filter(|_, value| value.as_str() > "5")
        .materialized(store("filtered", serdes::string()))
        .to_stream()
        .to("out", writes_texts());
}

fn table_table_join_derived(builder: &StreamsBuilder) {
    let right = table(builder).map_values(|_, value| value + "!");
    strings(builder)
        .filter(|_, value| value.as_str() > "3")
        .join(&right, |_, left, right| left + &right)
        .to_stream()
        .to("out", writes_texts());
}

fn table_table_left_join_derived(builder: &StreamsBuilder) {
    let left = strings(builder).filter(|_, value| value.as_str() > "3");
    let right = table(builder).filter(|_, value| value.as_str() < "6");
    left_joined(&left, &right)
        .to_stream()
        .to("out", writes_texts());
}

fn table_table_join_self(builder: &StreamsBuilder) {
    let table = strings(builder);
    let louder = table.map_values(|_, value| value + "!");
    table
        .join(&louder, |_, left, right| left + &right)
        .to_stream()
        .to("out", writes_texts());
}

fn table_table_join_twice(builder: &StreamsBuilder) {
    let third = named(builder, "third", "third");
    left_joined(&strings(builder), &table(builder))
        .outer_join(&third, |_, left, right| {
            format!("{}/{}", java(&left), java(&right))
        })
        .to_stream()
        .to("out", writes_texts());
}

fn table_table_outer_join_grouped(builder: &StreamsBuilder) {
    outer_joined(builder)
        .group_by(
            |_, value| (value.chars().next().map(String::from), value),
            Grouped::with(
                "by-first",
                serdes::optional(serdes::string()),
                serdes::string(),
            ),
        )
        .count(store("counts", serdes::i64()))
        .to_stream()
        .to("out", writes_counts());
}

/// The first character, none for `-`.
pub(crate) fn foreign_key(value: &str) -> Option<Text> {
    let key = value.get(..1).filter(|key| *key != "-")?;
    Some(Some(key.to_owned()))
}

fn foreign_key_join(builder: &StreamsBuilder) {
    strings(builder)
        .join_foreign_key(
            &table(builder),
            |_, value| foreign_key(value),
            |_, left, right| format!("{left}:{right}"),
            TableJoined::as_name("fk"),
            store("joined", serdes::string()),
        )
        .to_stream()
        .to("out", writes_texts());
}

fn foreign_key_left_join(builder: &StreamsBuilder) {
    strings(builder)
        .left_join_foreign_key(
            &table(builder),
            |_, value| foreign_key(value),
            |_, left, right| format!("{left}:{}", java(&right)),
            TableJoined::as_name("fk"),
            store("joined", serdes::string()),
        )
        .to_stream()
        .to("out", writes_texts());
}
