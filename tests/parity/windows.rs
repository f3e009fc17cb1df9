//! Windowed aggregations, emission on close, suppression.

use std::time::Duration;

use millstream::prelude::*;

use crate::aggregations::store as nullable_store;
use crate::cases;
use crate::stateless::{Text, nullable, reads};

cases![
    window_tumbling,
    window_tumbling_no_grace,
    window_hopping,
    window_unlimited,
    window_sliding,
    window_sliding_no_grace,
    window_sliding_early,
    window_session,
    window_session_no_grace,
    window_session_reduce,
    window_count,
    window_reduce,
    window_session_count,
    window_null_keys,
    window_sliding_nulls,
    window_session_nulls,
    window_cogroup,
    window_cogroup_sliding,
    window_cogroup_session,
    window_close_tumbling,
    window_close_hopping,
    window_close_jump,
    window_close_sliding,
    window_close_sliding_steps,
    window_close_session,
    window_close_session_reached,
    window_close_session_retained,
    suppress_window_closes,
    suppress_session_closes,
    suppress_sliding_closes,
    suppress_sliding_closes_at_end,
    suppress_window_closes_shut_down,
    suppress_time_limit,
    suppress_time_limit_bounded,
    suppress_time_limit_bytes,
    suppress_time_limit_bytes_updates,
    suppress_time_limit_shut_down,
];

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const SIZE: Duration = ms(2000);
const DIFFERENCE: Duration = ms(900);
const UNLIMITED: Duration = ms(i64::MAX as u64);

fn tumbling() -> TimeWindows {
    TimeWindows::of_size_and_grace(SIZE, ms(1000))
}

fn hopping() -> TimeWindows {
    tumbling().advance_by(ms(700))
}

fn sliding() -> SlidingWindows {
    SlidingWindows::of_time_difference_and_grace(DIFFERENCE, ms(1500))
}

fn sessions() -> SessionWindows {
    SessionWindows::of_inactivity_gap_and_grace(ms(600), ms(1300))
}

fn by_key(builder: &StreamsBuilder) -> KGroupedStream<String, String> {
    builder
        .stream("in", Consumed::with(serdes::string(), serdes::string()))
        .group_by_key(Grouped::as_name("by-key"))
}

fn store(name: &str) -> Materialized<String, String> {
    Materialized::as_store(name, serdes::string(), serdes::string())
}

fn concatenated(stream: &TimeWindowedKStream<String, String>) -> KTable<Windowed<String>, String> {
    stream.aggregate(String::new, |_, value, text| text + &value, store("store"))
}

fn session_texts(
    stream: &SessionWindowedKStream<String, String>,
) -> KTable<Windowed<String>, String> {
    stream.aggregate(
        String::new,
        |_, value, text| text + &value,
        |_, one, other| one + "+" + &other,
        store("store"),
    )
}

fn write(table: &KTable<Windowed<String>, String>, size: Duration) {
    let key = serdes::time_windowed(serdes::string(), size);
    table.to_stream().to(
        "out",
        Produced::with(key, serdes::optional(serdes::string())),
    );
}

fn write_sessions(table: &KTable<Windowed<String>, String>) {
    let key = serdes::session_windowed(serdes::string());
    table.to_stream().to(
        "out",
        Produced::with(key, serdes::optional(serdes::string())),
    );
}

fn window_tumbling(builder: &StreamsBuilder) {
    write(
        &concatenated(&by_key(builder).windowed_by(tumbling())),
        SIZE,
    );
}

fn window_tumbling_no_grace(builder: &StreamsBuilder) {
    let windows = TimeWindows::of_size_with_no_grace(SIZE);
    write(&concatenated(&by_key(builder).windowed_by(windows)), SIZE);
}

fn window_hopping(builder: &StreamsBuilder) {
    write(&concatenated(&by_key(builder).windowed_by(hopping())), SIZE);
}

fn window_unlimited(builder: &StreamsBuilder) {
    let windows = UnlimitedWindows::of().start_on(41_000);
    write(
        &concatenated(&by_key(builder).windowed_by(windows)),
        UNLIMITED,
    );
}

fn window_sliding(builder: &StreamsBuilder) {
    write(
        &concatenated(&by_key(builder).windowed_by(sliding())),
        DIFFERENCE,
    );
}

fn window_sliding_no_grace(builder: &StreamsBuilder) {
    let windows = SlidingWindows::of_time_difference_with_no_grace(DIFFERENCE);
    write(
        &concatenated(&by_key(builder).windowed_by(windows)),
        DIFFERENCE,
    );
}

fn window_sliding_early(builder: &StreamsBuilder) {
    window_sliding(builder);
}

fn window_session(builder: &StreamsBuilder) {
    write_sessions(&session_texts(&by_key(builder).windowed_by(sessions())));
}

fn window_session_no_grace(builder: &StreamsBuilder) {
    let windows = SessionWindows::of_inactivity_gap_with_no_grace(ms(600));
    write_sessions(&session_texts(&by_key(builder).windowed_by(windows)));
}

fn window_session_reduce(builder: &StreamsBuilder) {
    let reduced = by_key(builder)
        .windowed_by(sessions())
        .reduce(|one, other| one + &other, store("store"));
    write_sessions(&reduced);
}

fn window_count(builder: &StreamsBuilder) {
    by_key(builder)
        .windowed_by(hopping())
        .count(Materialized::as_store(
            "store",
            serdes::string(),
            serdes::i64(),
        ))
        .to_stream()
        .to(
            "out",
            Produced::with(
                serdes::time_windowed(serdes::string(), SIZE),
                serdes::optional(serdes::i64()),
            ),
        );
}

fn window_reduce(builder: &StreamsBuilder) {
    let reduced = by_key(builder)
        .windowed_by(tumbling())
        .reduce(|one, other| one + &other, store("store"));
    write(&reduced, SIZE);
}

fn window_session_count(builder: &StreamsBuilder) {
    by_key(builder)
        .windowed_by(sessions())
        .count(Materialized::as_store(
            "store",
            serdes::string(),
            serdes::i64(),
        ))
        .to_stream()
        .to(
            "out",
            Produced::with(
                serdes::session_windowed(serdes::string()),
                serdes::optional(serdes::i64()),
            ),
        );
}

fn text(value: Text) -> String {
    value.unwrap_or_default()
}

fn texts() -> Materialized<Text, String> {
    nullable_store("store", serdes::string())
}

fn write_nullable(table: &KTable<Windowed<Text>, String>, key: impl Serde<Windowed<Text>>) {
    table.to_stream().to(
        "out",
        Produced::with(key, serdes::optional(serdes::string())),
    );
}

fn keys_of(size: Duration) -> impl Serde<Windowed<Text>> {
    serdes::time_windowed(serdes::optional(serdes::string()), size)
}

fn session_keys() -> impl Serde<Windowed<Text>> {
    serdes::session_windowed(serdes::optional(serdes::string()))
}

fn nullable_by_key(builder: &StreamsBuilder) -> KGroupedStream<Text, Text> {
    nullable(builder).group_by_key(Grouped::as_name("by-key"))
}

fn window_null_keys(builder: &StreamsBuilder) {
    let table = nullable_by_key(builder).windowed_by(tumbling()).aggregate(
        String::new,
        |_, value, aggregate| aggregate + &text(value),
        texts(),
    );
    write_nullable(&table, keys_of(SIZE));
}

fn window_sliding_nulls(builder: &StreamsBuilder) {
    let table = nullable_by_key(builder).windowed_by(sliding()).aggregate(
        String::new,
        |_, value, aggregate| aggregate + &text(value),
        texts(),
    );
    write_nullable(&table, keys_of(DIFFERENCE));
}

fn window_session_nulls(builder: &StreamsBuilder) {
    let table = nullable_by_key(builder).windowed_by(sessions()).aggregate(
        String::new,
        |_, value, aggregate| aggregate + &text(value),
        |_, one, other| one + "+" + &other,
        texts(),
    );
    write_nullable(&table, session_keys());
}

fn cogrouped(builder: &StreamsBuilder) -> CogroupedKStream<Text, String> {
    let more = builder
        .stream("more", reads())
        .group_by_key(Grouped::as_name("more"));
    nullable_by_key(builder)
        .cogroup(|_, value, aggregate| format!("{aggregate}({})", text(value)))
        .cogroup(&more, |_, value, aggregate| {
            format!("{aggregate}[{}]", text(value))
        })
}

fn window_cogroup(builder: &StreamsBuilder) {
    let table = cogrouped(builder)
        .windowed_by(hopping())
        .aggregate(String::new, texts());
    write_nullable(&table, keys_of(SIZE));
}

fn window_cogroup_sliding(builder: &StreamsBuilder) {
    let table = cogrouped(builder)
        .windowed_by(sliding())
        .aggregate(String::new, texts());
    write_nullable(&table, keys_of(DIFFERENCE));
}

fn window_cogroup_session(builder: &StreamsBuilder) {
    let table = cogrouped(builder).windowed_by(sessions()).aggregate(
        String::new,
        |_, one, other| one + "+" + &other,
        texts(),
    );
    write_nullable(&table, session_keys());
}

fn closing(builder: &StreamsBuilder, windows: TimeWindows) {
    let stream = by_key(builder)
        .windowed_by(windows)
        .emit_strategy(EmitStrategy::on_window_close());
    write(&concatenated(&stream), SIZE);
}

fn window_close_tumbling(builder: &StreamsBuilder) {
    closing(builder, tumbling());
}

fn window_close_hopping(builder: &StreamsBuilder) {
    closing(builder, hopping());
}

/// Kafka Streams forgets windows that expire with the very record that closes them.
fn window_close_jump(builder: &StreamsBuilder) {
    closing(builder, tumbling());
}

fn window_close_sliding(builder: &StreamsBuilder) {
    let stream = by_key(builder)
        .windowed_by(sliding())
        .emit_strategy(EmitStrategy::on_window_close());
    write(&concatenated(&stream), DIFFERENCE);
}

/// Closed windows are looked for each time stream time has moved by a 64th of what windows live.
fn window_close_sliding_steps(builder: &StreamsBuilder) {
    window_close_sliding(builder);
}

fn closing_sessions(builder: &StreamsBuilder, store: Materialized<String, String>) {
    let table = by_key(builder)
        .windowed_by(sessions())
        .emit_strategy(EmitStrategy::on_window_close())
        .aggregate(
            String::new,
            |_, value, text| text + &value,
            |_, one, other| one + "+" + &other,
            store,
        );
    write_sessions(&table);
}

fn window_close_session(builder: &StreamsBuilder) {
    closing_sessions(builder, store("store"));
}

fn window_close_session_reached(builder: &StreamsBuilder) {
    closing_sessions(builder, store("store"));
}

/// Kafka Streams merges a session that it has sent as closed, as long as its store still has it.
fn window_close_session_retained(builder: &StreamsBuilder) {
    closing_sessions(builder, store("store").with_retention(ms(10_000)));
}

fn suppress_window_closes(builder: &StreamsBuilder) {
    let table = concatenated(&by_key(builder).windowed_by(hopping()));
    let last = Suppressed::until_window_closes("final", BufferConfig::unbounded());
    write(&table.suppress(last), SIZE);
}

fn suppress_session_closes(builder: &StreamsBuilder) {
    let table = session_texts(&by_key(builder).windowed_by(sessions()));
    let last = Suppressed::until_window_closes("final", BufferConfig::unbounded());
    write_sessions(&table.suppress(last));
}

fn suppress_sliding_closes(builder: &StreamsBuilder) {
    let table = concatenated(&by_key(builder).windowed_by(sliding()));
    let last = Suppressed::until_window_closes("final", BufferConfig::unbounded());
    write(&table.suppress(last), DIFFERENCE);
}

/// Both ends belong to a sliding window: at its end and grace period it is open still.
fn suppress_sliding_closes_at_end(builder: &StreamsBuilder) {
    suppress_sliding_closes(builder);
}

fn suppress_window_closes_shut_down(builder: &StreamsBuilder) {
    let table = concatenated(&by_key(builder).windowed_by(hopping()));
    let bounded = BufferConfig::max_records(9).shut_down_when_full();
    let last = Suppressed::until_window_closes("final", bounded);
    write(&table.suppress(last), SIZE);
}

fn calm(builder: &StreamsBuilder, suppressed: Suppressed<String>) {
    builder
        .table(
            "in",
            Consumed::with(serdes::string(), serdes::string()),
            store("table"),
        )
        .suppress(suppressed)
        .to_stream()
        .to(
            "out",
            Produced::with(serdes::string(), serdes::optional(serdes::string())),
        );
}

fn suppress_time_limit(builder: &StreamsBuilder) {
    let unbounded = BufferConfig::unbounded();
    calm(
        builder,
        Suppressed::until_time_limit("calm", ms(900), unbounded),
    );
}

fn suppress_time_limit_bounded(builder: &StreamsBuilder) {
    let bounded = BufferConfig::max_records(2);
    calm(
        builder,
        Suppressed::until_time_limit("calm", ms(5000), bounded),
    );
}

/// Values are long, so that what either side adds to one in its buffer matters little.
fn suppress_time_limit_bytes(builder: &StreamsBuilder) {
    let bounded = BufferConfig::max_bytes(340);
    calm(
        builder,
        Suppressed::until_time_limit("calm", ms(5000), bounded),
    );
}

/// An update weighs what its key's old value weighs as well.
fn suppress_time_limit_bytes_updates(builder: &StreamsBuilder) {
    suppress_time_limit_bytes(builder);
}

fn suppress_time_limit_shut_down(builder: &StreamsBuilder) {
    let bounded = BufferConfig::max_records(3).shut_down_when_full();
    calm(
        builder,
        Suppressed::until_time_limit("calm", ms(5000), bounded),
    );
}
