//! Aggregations of streams.

use millstream::prelude::*;

use crate::cases;
use crate::stateless::{Text, nullable, reads};

cases![count, count_by_value, reduce, aggregate, cogroup];

pub(crate) fn store<V: 'static>(
    name: &str,
    value: impl Serde<V> + TextCodec,
) -> Materialized<Text, V> {
    Materialized::as_store(name, serdes::optional(serdes::string()), value)
}

pub(crate) fn writes_counts() -> Produced<Text, Option<i64>> {
    Produced::with(
        serdes::optional(serdes::string()),
        serdes::optional(serdes::i64()),
    )
}

pub(crate) fn writes_texts() -> Produced<Text, Text> {
    crate::stateless::writes()
}

fn by_key(builder: &StreamsBuilder) -> KGroupedStream<Text, Text> {
    nullable(builder).group_by_key(Grouped::as_name("by-key"))
}

fn text(value: Text) -> String {
    value.unwrap_or_default()
}

fn count(builder: &StreamsBuilder) {
    by_key(builder)
        .count(store("store", serdes::i64()))
        .to_stream()
        .to("out", writes_counts());
}

fn count_by_value(builder: &StreamsBuilder) {
    let nullable_text = || serdes::optional(serdes::string());
    nullable(builder)
        .group_by(
            |_, value| value.clone(),
            Grouped::with("by-value", nullable_text(), nullable_text()),
        )
        .count(store("store", serdes::i64()))
        .to_stream()
        .to("out", writes_counts());
}

fn reduce(builder: &StreamsBuilder) {
    by_key(builder)
        .try_reduce(
            |left, right| {
                let (left, right) = (text(left), text(right));
                Ok((right != "9").then(|| Some(left + &right)))
            },
            store("store", serdes::optional(serdes::string())),
        )
        .to_stream()
        .map_values(Option::flatten)
        .to("out", writes_texts());
}

fn aggregate(builder: &StreamsBuilder) {
    by_key(builder)
        .try_aggregate(
            String::new,
            |_, value, aggregate| {
                let value = text(value);
                Ok((value != "9").then(|| aggregate + &value))
            },
            store("store", serdes::string()),
        )
        .to_stream()
        .to("out", writes_texts());
}

fn cogroup(builder: &StreamsBuilder) {
    let more = builder
        .stream("more", reads())
        .group_by_key(Grouped::as_name("more"));
    by_key(builder)
        .cogroup(|_, value, aggregate| format!("{aggregate}({})", text(value)))
        .try_cogroup(&more, |_, value, aggregate| {
            let value = text(value);
            Ok((value != "9").then(|| format!("{aggregate}[{value}]")))
        })
        .aggregate(String::new, store("store", serdes::string()))
        .to_stream()
        .to("out", writes_texts());
}
