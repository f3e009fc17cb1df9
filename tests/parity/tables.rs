//! Tables and their aggregations.

use millstream::prelude::*;

use crate::aggregations::{store, writes_counts, writes_texts};
use crate::cases;
use crate::stateless::{Text, java, nullable};

cases![
    table,
    to_table,
    to_table_repartitioned,
    to_stream_with_key,
    table_filter,
    table_filter_materialized,
    table_filter_not,
    table_filter_not_materialized,
    table_map_values,
    table_map_values_materialized,
    table_group_count,
    table_group_reduce,
    table_group_aggregate,
    table_group_same_key,
    table_group_null_key,
    table_group_filtered,
    aggregate_group_table,
];

pub(crate) fn strings(builder: &StreamsBuilder) -> KTable<Text, String> {
    let consumed = Consumed::with(serdes::optional(serdes::string()), serdes::string());
    builder.table("in", consumed, store("store", serdes::string()))
}

fn above_five(value: &str) -> bool {
    value > "5"
}

fn table(builder: &StreamsBuilder) {
    strings(builder).to_stream().to("out", writes_texts());
}

fn to_table(builder: &StreamsBuilder) {
    nullable(builder)
        .to_table(store("store", serdes::string()))
        .to_stream()
        .to("out", writes_texts());
}

fn to_table_repartitioned(builder: &StreamsBuilder) {
    nullable(builder)
        .select_key(|key, value| value.clone().or_else(|| key.clone()))
        .to_table(store("store", serdes::string()))
        .to_stream()
        .to("out", writes_texts());
}

fn to_stream_with_key(builder: &StreamsBuilder) {
    strings(builder)
        .to_stream()
        .select_key(|key, value| Some(format!("{}{}", java(key), java(value))))
        .to("out", writes_texts());
}

fn table_filter(builder: &StreamsBuilder) {
    strings(builder)
        .filter(|_, value| above_five(value))
        .to_stream()
        .to("out", writes_texts());
}

fn table_filter_not(builder: &StreamsBuilder) {
    strings(builder)
        .filter_not(|_, value| above_five(value))
        .to_stream()
        .to("out", writes_texts());
}

fn table_map_values(builder: &StreamsBuilder) {
    strings(builder)
        .map_values(|key, value| format!("{}{value}", java(key)))
        .to_stream()
        .to("out", writes_texts());
}

fn table_filter_materialized(builder: &StreamsBuilder) {
    strings(builder)
        .filter(|_, value| above_five(value))
        .materialized(store("filtered", serdes::string()))
        .to_stream()
        .to("out", writes_texts());
}

fn table_filter_not_materialized(builder: &StreamsBuilder) {
    strings(builder)
        .filter_not(|_, value| above_five(value))
        .materialized(store("filtered", serdes::string()))
        .to_stream()
        .to("out", writes_texts());
}

fn table_map_values_materialized(builder: &StreamsBuilder) {
    strings(builder)
        .filter_map_values(|key, value| (value != "7").then(|| format!("{}{value}", java(key))))
        .materialized(store("mapped", serdes::string()))
        .to_stream()
        .to("out", writes_texts());
}

fn grouped<V: 'static>(name: &str, value: impl Serde<V>) -> Grouped<Text, V> {
    Grouped::with(name, serdes::optional(serdes::string()), value)
}

fn by_value(builder: &StreamsBuilder) -> KGroupedTable<Text, Text> {
    strings(builder).group_by(
        |key, value| (Some(value), key.clone()),
        grouped("by-value", serdes::optional(serdes::string())),
    )
}

fn table_group_count(builder: &StreamsBuilder) {
    by_value(builder)
        .count(store("count", serdes::i64()))
        .to_stream()
        .to("out", writes_counts());
}

fn table_group_reduce(builder: &StreamsBuilder) {
    let join =
        |sum: Text, sign: char, value: Text| Some(format!("{}{sign}{}", java(&sum), java(&value)));
    by_value(builder)
        .reduce(
            move |sum, value| join(sum, '+', value),
            move |sum, value| join(sum, '-', value),
            store("reduced", serdes::optional(serdes::string())),
        )
        .to_stream()
        .map_values(Option::flatten)
        .to("out", writes_texts());
}

fn table_group_aggregate(builder: &StreamsBuilder) {
    by_value(builder)
        .try_aggregate(
            String::new,
            |_, value, text| Ok(Some(format!("{text}+{}", java(&value)))),
            |_, value, text| {
                let value = java(&value);
                Ok((value != "b").then(|| format!("{text}-{value}")))
            },
            store("aggregated", serdes::string()),
        )
        .to_stream()
        .to("out", writes_texts());
}

fn signed(table: &KGroupedTable<Text, String>) -> KTable<Text, String> {
    table.aggregate(
        String::new,
        |_, value, text| format!("{text}+{value}"),
        |_, value, text| format!("{text}-{value}"),
        store("aggregated", serdes::string()),
    )
}

fn table_group_same_key(builder: &StreamsBuilder) {
    let by_key = strings(builder).group_by(
        |key, value| (key.clone(), value),
        grouped("same", serdes::string()),
    );
    signed(&by_key).to_stream().to("out", writes_texts());
}

fn table_group_null_key(builder: &StreamsBuilder) {
    let by_value = strings(builder).group_by(
        |key, value| {
            (
                Some(value).filter(|value| value != "4"),
                java(key).to_owned(),
            )
        },
        grouped("by", serdes::string()),
    );
    signed(&by_value).to_stream().to("out", writes_texts());
}

fn table_group_filtered(builder: &StreamsBuilder) {
    strings(builder)
        .filter(|_, value| value.as_str() > "3")
        .map_values(|_, value| if value.as_str() > "6" { "x" } else { "y" }.to_owned())
        .group_by(
            |key, value| (Some(value), java(key).to_owned()),
            grouped("by", serdes::string()),
        )
        .count(store("count", serdes::i64()))
        .to_stream()
        .to("out", writes_counts());
}

fn aggregate_group_table(builder: &StreamsBuilder) {
    nullable(builder)
        .group_by_key(Grouped::as_name("by-key"))
        .count(store("counts", serdes::i64()))
        .group_by(
            |_, count| (Some("total".to_owned()), count),
            grouped("total", serdes::i64()),
        )
        .reduce(
            |total, count| total + count,
            |total, count| total - count,
            store("sum", serdes::i64()),
        )
        .to_stream()
        .to("out", writes_counts());
}
