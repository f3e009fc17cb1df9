//! Windowed joins of two streams.

use std::time::Duration;

use millstream::prelude::*;

use crate::cases;
use crate::stateless::{Text, java, nullable, writes};

cases![
    stream_stream_join,
    stream_stream_left_join,
    stream_stream_outer_join,
    stream_stream_join_grace,
    stream_stream_left_join_grace,
    stream_stream_outer_join_grace,
    stream_stream_left_join_late_in_grace,
    stream_stream_join_asymmetric,
    stream_stream_left_join_asymmetric,
    stream_stream_outer_join_asymmetric,
    stream_stream_outer_join_only_after,
    stream_stream_outer_join_apart,
    stream_stream_join_same_time,
    stream_stream_self_join,
    stream_stream_self_outer_join,
    stream_stream_join_repartitioned,
    stream_stream_outer_join_repartitioned,
    stream_stream_join_chained,
];

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn no_grace() -> JoinWindows {
    JoinWindows::of_time_difference_with_no_grace(ms(1500))
}

fn grace(difference: u64, grace: u64) -> JoinWindows {
    JoinWindows::of_time_difference_and_grace(ms(difference), ms(grace))
}

fn asymmetric(before: u64, after: u64) -> JoinWindows {
    JoinWindows::of_time_difference_with_no_grace(ms(after)).before(ms(before))
}

fn named(name: &str) -> StreamJoined<Text, Text, Text> {
    let text = || serdes::optional(serdes::string());
    StreamJoined::with(name, text(), text(), text())
}

fn other(builder: &StreamsBuilder, topic: &str) -> KStream<Text, Text> {
    let text = || serdes::optional(serdes::string());
    builder.stream(topic, Consumed::with(text(), text()))
}

fn right(builder: &StreamsBuilder) -> KStream<Text, Text> {
    other(builder, "other")
}

fn by_value(stream: &KStream<Text, Text>) -> KStream<Text, Text> {
    stream.select_key(|_, value| value.clone())
}

fn show(key: &Text, left: &Text, right: &Text) -> Text {
    Some(format!("{}:{}+{}", java(key), java(left), java(right)))
}

fn inner(
    left: &KStream<Text, Text>,
    right: &KStream<Text, Text>,
    windows: JoinWindows,
) -> KStream<Text, Text> {
    let join = |key: &Text, left, right| show(key, &left, &right);
    left.join(right, join, windows, named("joined"))
}

fn left_joined(
    left: &KStream<Text, Text>,
    right: &KStream<Text, Text>,
    windows: JoinWindows,
    name: &str,
) -> KStream<Text, Text> {
    let join = |key: &Text, left, right: Option<Text>| show(key, &left, &right.flatten());
    left.left_join(right, join, windows, named(name))
}

fn outer_joined(
    left: &KStream<Text, Text>,
    right: &KStream<Text, Text>,
    windows: JoinWindows,
    name: &str,
) -> KStream<Text, Text> {
    let join = |key: &Text, left: Option<Text>, right: Option<Text>| {
        show(key, &left.flatten(), &right.flatten())
    };
    left.outer_join(right, join, windows, named(name))
}

fn stream_stream_join(builder: &StreamsBuilder) {
    inner(&nullable(builder), &right(builder), no_grace()).to("out", writes());
}

fn stream_stream_left_join(builder: &StreamsBuilder) {
    left_joined(&nullable(builder), &right(builder), no_grace(), "joined").to("out", writes());
}

fn stream_stream_outer_join(builder: &StreamsBuilder) {
    outer_joined(&nullable(builder), &right(builder), no_grace(), "joined").to("out", writes());
}

fn stream_stream_join_grace(builder: &StreamsBuilder) {
    inner(&nullable(builder), &right(builder), grace(1500, 4000)).to("out", writes());
}

fn stream_stream_left_join_grace(builder: &StreamsBuilder) {
    let windows = grace(10_001, 3000);
    left_joined(&nullable(builder), &right(builder), windows, "joined").to("out", writes());
}

fn stream_stream_outer_join_grace(builder: &StreamsBuilder) {
    let windows = grace(10_001, 3000);
    outer_joined(&nullable(builder), &right(builder), windows, "joined").to("out", writes());
}

fn stream_stream_left_join_late_in_grace(builder: &StreamsBuilder) {
    let windows = grace(1000, 5000);
    left_joined(&nullable(builder), &right(builder), windows, "joined").to("out", writes());
}

fn stream_stream_join_asymmetric(builder: &StreamsBuilder) {
    inner(&nullable(builder), &right(builder), asymmetric(400, 2000)).to("out", writes());
}

fn stream_stream_left_join_asymmetric(builder: &StreamsBuilder) {
    let windows = asymmetric(2000, 300);
    left_joined(&nullable(builder), &right(builder), windows, "joined").to("out", writes());
}

fn stream_stream_outer_join_asymmetric(builder: &StreamsBuilder) {
    let windows = asymmetric(300, 2000);
    outer_joined(&nullable(builder), &right(builder), windows, "joined").to("out", writes());
}

fn stream_stream_outer_join_only_after(builder: &StreamsBuilder) {
    let windows = asymmetric(0, 1500);
    outer_joined(&nullable(builder), &right(builder), windows, "joined").to("out", writes());
}

fn stream_stream_outer_join_apart(builder: &StreamsBuilder) {
    let windows = JoinWindows::of_time_difference_with_no_grace(ms(2500)).at_least_after(ms(300));
    outer_joined(&nullable(builder), &right(builder), windows, "joined").to("out", writes());
}

fn stream_stream_join_same_time(builder: &StreamsBuilder) {
    inner(&nullable(builder), &right(builder), grace(0, 2000)).to("out", writes());
}

fn stream_stream_self_join(builder: &StreamsBuilder) {
    let stream = nullable(builder);
    inner(&stream, &stream, asymmetric(500, 900)).to("out", writes());
}

fn stream_stream_self_outer_join(builder: &StreamsBuilder) {
    let stream = nullable(builder);
    let small = stream.filter(|_, value| value.as_deref().is_none_or(|value| value < "5"));
    outer_joined(&stream, &small, no_grace(), "joined").to("out", writes());
}

fn stream_stream_join_repartitioned(builder: &StreamsBuilder) {
    let (left, right) = (by_value(&nullable(builder)), by_value(&right(builder)));
    inner(&left, &right, no_grace()).to("out", writes());
}

fn stream_stream_outer_join_repartitioned(builder: &StreamsBuilder) {
    let left = by_value(&nullable(builder));
    outer_joined(&left, &right(builder), no_grace(), "joined").to("out", writes());
}

fn stream_stream_join_chained(builder: &StreamsBuilder) {
    let first = left_joined(&nullable(builder), &right(builder), no_grace(), "first");
    let third = other(builder, "third");
    outer_joined(&first, &third, no_grace(), "second").to("out", writes());
}
