//! Joins of two streams, on the driver: the production thread, real commits.

use std::time::Duration;

use proptest::prelude::*;

use crate::prelude::*;
use crate::testing::TopologyTestDriver;

const fn ms(millis: i64) -> Duration {
    Duration::from_millis(millis.unsigned_abs())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Inner,
    Left,
    Outer,
}

fn texts() -> Consumed<String, String> {
    Consumed::with(serdes::string(), serdes::string()).on_error(ErrorPolicy::Skip)
}

fn joined(
    builder: &StreamsBuilder,
    kind: Kind,
    windows: JoinWindows,
    joined: StreamJoined<String, String, String>,
) -> KStream<String, String> {
    let (left, right) = (
        builder.stream("left", texts()),
        builder.stream("right", texts()),
    );
    let show = |left: Option<String>, right: Option<String>| {
        let text = |side: Option<String>| side.unwrap_or_else(|| "-".to_owned());
        format!("{}+{}", text(left), text(right))
    };
    match kind {
        Kind::Inner => {
            let join = move |_: &String, left, right| show(Some(left), Some(right));
            left.join(&right, join, windows, joined)
        }
        Kind::Left => {
            let join = move |_: &String, left, right| show(Some(left), right);
            left.left_join(&right, join, windows, joined)
        }
        Kind::Outer => {
            let join = move |_: &String, left, right| show(left, right);
            left.outer_join(&right, join, windows, joined)
        }
    }
}

struct App(TopologyTestDriver);

impl App {
    fn new(draw: impl FnOnce(&StreamsBuilder) -> KStream<String, String>) -> Self {
        let builder = StreamsBuilder::new();
        draw(&builder).to("out", Produced::with(serdes::string(), serdes::string()));
        Self(TopologyTestDriver::new(builder.build().unwrap()).unwrap())
    }

    fn of(kind: Kind, windows: JoinWindows) -> Self {
        Self::new(|builder| joined(builder, kind, windows, StreamJoined::as_name("joined")))
    }

    fn pipe(&mut self, topic: &str, key: &str, value: &str, time: i64) {
        let input = self
            .0
            .input_topic(topic, serdes::string(), serdes::string());
        let record = Record::new(key.to_owned(), value.to_owned(), time);
        input.pipe_record(&mut self.0, &record).unwrap();
    }

    /// What came out since the last look, as `key:left+right@time`.
    fn take(&mut self) -> Vec<String> {
        let output = self
            .0
            .output_topic("out", serdes::string(), serdes::string());
        let records = output.read_records(&mut self.0).unwrap();
        let show = |record: Record<String, String>| {
            format!("{}:{}@{}", record.key, record.value, record.timestamp)
        };
        records.into_iter().map(show).collect()
    }

    fn dropped(&self) -> u64 {
        let metrics = self.0.metrics();
        let line = metrics
            .lines()
            .find(|line| line.starts_with("millstream_records_dropped_total"));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }
}

#[test]
fn a_record_without_a_partner_has_its_result_once_its_window_and_grace_have_passed() {
    let windows = JoinWindows::of_time_difference_and_grace(ms(10), ms(5));
    let mut app = App::of(Kind::Outer, windows);
    app.pipe("left", "a", "1", 100);
    app.pipe("right", "b", "2", 101);
    app.pipe("right", "c", "3", 115);
    assert!(
        app.take().is_empty(),
        "the window and grace have not passed"
    );
    app.pipe("right", "c", "4", 116);
    assert_eq!(app.take(), ["a:1+-@100"]);
    // The search saw the record of 116: the next one begins when that can have closed.
    app.pipe("left", "c", "5", 117);
    assert_eq!(app.take(), ["c:5+3@117", "c:5+4@117"]);
    app.pipe("right", "d", "6", 132);
    assert_eq!(app.take(), ["b:-+2@101"]);
}

#[test]
fn a_record_out_of_order_waits_for_the_grace_period_too() {
    let windows = JoinWindows::of_time_difference_and_grace(ms(10), ms(50));
    let mut app = App::of(Kind::Left, windows);
    app.pipe("left", "b", "1", 100);
    app.pipe("left", "a", "2", 80);
    assert!(
        app.take().is_empty(),
        "its window has passed, the grace period has not"
    );
    app.pipe("right", "a", "3", 82);
    assert_eq!(app.take(), ["a:2+3@82"]);
    app.pipe("left", "b", "4", 1000);
    assert_eq!(
        app.take(),
        ["b:1+-@100"],
        "what has found a partner has no other result"
    );
}

#[test]
fn a_record_that_comes_after_its_window_and_grace_has_its_result_at_once() {
    let windows = JoinWindows::of_time_difference_with_no_grace(ms(10));
    let mut app = App::of(Kind::Left, windows);
    app.pipe("left", "b", "1", 100);
    app.pipe("left", "a", "2", 89);
    assert_eq!(app.take(), ["a:2+-@89"]);
}

#[test]
fn a_record_that_the_store_would_have_forgotten_is_dropped_and_counted() {
    let windows = JoinWindows::of_time_difference_with_no_grace(ms(10));
    let mut app = App::of(Kind::Inner, windows);
    app.pipe("left", "a", "1", 100);
    app.pipe("left", "a", "2", 80);
    assert_eq!(app.dropped(), 1);
    app.pipe("right", "a", "3", 80);
    assert!(app.take().is_empty());
}

#[test]
fn duplicates_of_one_key_and_time_are_all_joined_in_their_order_after_a_restart_too() {
    for keep_state in [true, false] {
        let windows = JoinWindows::of_time_difference_with_no_grace(ms(10));
        let mut app = App::of(Kind::Inner, windows);
        app.pipe("left", "a", "1", 5);
        app.pipe("left", "a", "2", 5);
        app.0.restart(keep_state).unwrap();
        app.pipe("left", "a", "3", 5);
        app.pipe("right", "a", "x", 6);
        let expected = ["a:1+x@6", "a:2+x@6", "a:3+x@6"];
        assert_eq!(app.take(), expected, "state kept: {keep_state}");
    }
}

#[test]
fn a_skipped_record_leaves_nothing_behind() {
    let windows = JoinWindows::of_time_difference_with_no_grace(ms(10));
    let mut app = App::new(|builder| {
        let name = StreamJoined::as_name("joined");
        joined(builder, Kind::Outer, windows, name).try_map_values(|value| {
            if value.contains('!') {
                return Err("refused".into());
            }
            Ok(value)
        })
    });
    app.pipe("left", "a", "1", 100);
    app.pipe("right", "a", "!", 101);
    app.pipe("left", "a", "2", 102);
    app.pipe("left", "end", "3", 200);
    assert_eq!(app.take(), ["a:1+-@100", "a:2+-@102"]);
}

#[test]
fn a_stream_joined_with_itself_meets_itself_once() {
    let windows = JoinWindows::of_time_difference_with_no_grace(ms(10));
    let mut app = App::new(|builder| {
        let stream = builder.stream("in", texts());
        let join = |_: &String, left: String, right: String| format!("{left}+{right}");
        stream.join(&stream, join, windows, StreamJoined::as_name("self"))
    });
    app.pipe("in", "a", "1", 5);
    assert_eq!(app.take(), ["a:1+1@5"]);
    app.pipe("in", "a", "2", 6);
    assert_eq!(app.take(), ["a:2+1@6", "a:1+2@6", "a:2+2@6"]);
}

fn mistakes(draw: impl FnOnce(&StreamsBuilder)) -> Vec<String> {
    let builder = StreamsBuilder::new();
    draw(&builder);
    let errors = builder.build().unwrap_err();
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn a_join_without_serdes_or_with_windows_that_cannot_be_is_a_mistake() {
    let windows = JoinWindows::of_time_difference_with_no_grace(ms(10));
    let found = mistakes(|builder| {
        let left = builder
            .stream("left", texts())
            .map_values(|value| value.len());
        let right = builder.stream("right", texts());
        let join = |_: &String, left: usize, right: String| format!("{left}+{right}");
        let joined = left.join(&right, join, windows, StreamJoined::as_name("joined"));
        joined.to("out", Produced::with(serdes::string(), serdes::string()));
    });
    assert!(
        found.contains(
            &"join `joined` does not know the value serde, since the value was changed upstream; \
              give it with `StreamJoined::with` or `Joined::with`"
                .to_owned()
        ),
        "{found:?}"
    );
    let found = mistakes(|builder| {
        let windows = windows.at_least_after(ms(11));
        joined(
            builder,
            Kind::Inner,
            windows,
            StreamJoined::as_name("joined"),
        )
        .to("out", Produced::with(serdes::string(), serdes::string()));
    });
    assert_eq!(
        found,
        ["the windows of store `joined-this-join-store` are illegal: they end before they start"]
    );
}

#[test]
fn the_stores_are_called_what_kafka_streams_calls_them() {
    let names = |kind| {
        let builder = StreamsBuilder::new();
        let windows = JoinWindows::of_time_difference_and_grace(ms(10), ms(5));
        joined(
            &builder,
            kind,
            windows,
            StreamJoined::as_name("j").store_name("s"),
        )
        .to("out", Produced::with(serdes::string(), serdes::string()));
        let topology = builder.build().unwrap();
        let stores = topology.sub_topologies().iter().flat_map(|sub| &sub.stores);
        stores.map(|store| store.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(
        names(Kind::Inner),
        ["s-this-join-store", "s-other-join-store"]
    );
    assert_eq!(
        names(Kind::Left),
        [
            "s-this-join-store",
            "s-outer-other-join-store",
            "s-left-shared-join-store"
        ]
    );
    assert_eq!(
        names(Kind::Outer),
        [
            "s-outer-this-join-store",
            "s-outer-other-join-store",
            "s-outer-shared-join-store"
        ]
    );
}

/// A record of a random run.
#[derive(Debug, Clone, Copy)]
struct Input {
    left: bool,
    key: char,
    time: i64,
}

/// Every pair that is close enough, and the records without one that the join has results for.
fn brute_force(inputs: &[Input], kind: Kind, windows: JoinWindows) -> Vec<String> {
    let partners = |one: &Input, other: &Input| {
        let (left, right) = if one.left { (one, other) } else { (other, one) };
        let distance = right.time - left.time;
        one.left != other.left
            && one.key == other.key
            && (-windows.before_ms()..=windows.after_ms()).contains(&distance)
    };
    let mut results = Vec::new();
    for (index, input) in inputs.iter().enumerate() {
        let mut alone = true;
        for (other_index, other) in inputs.iter().enumerate() {
            if partners(input, other) {
                alone = false;
                if input.left {
                    let time = input.time.max(other.time);
                    results.push(format!("{}:{index}+{other_index}@{time}", input.key));
                }
            }
        }
        let Input { key, time, .. } = input;
        if alone && input.left && kind != Kind::Inner {
            results.push(format!("{key}:{index}+-@{time}"));
        }
        if alone && !input.left && kind == Kind::Outer {
            results.push(format!("{key}:-+{index}@{time}"));
        }
    }
    results.sort();
    results
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn where_grace_covers_the_disorder_joins_are_those_of_a_brute_force_model(
        kind in prop_oneof![Just(Kind::Inner), Just(Kind::Left), Just(Kind::Outer)],
        before in 0i64..25,
        after in 0i64..25,
        grace in 1i64..40,
        steps in proptest::collection::vec(
            (any::<bool>(), prop_oneof![Just('a'), Just('b')], 0i64..12, 0i64..40),
            1..60,
        ),
        restart_at in 0usize..60,
        keep_state: bool,
    ) {
        let windows = JoinWindows::of_time_difference_and_grace(ms(after), ms(grace))
            .before(ms(before));
        let mut now = 0;
        let inputs: Vec<Input> = steps
            .into_iter()
            .map(|(left, key, step, behind)| {
                now += step;
                // Less late than the grace period, so that every pair is in time.
                let time = (now - behind % grace).max(0);
                Input { left, key, time }
            })
            .collect();
        let mut app = App::of(kind, windows);
        for (index, input) in inputs.iter().enumerate() {
            if index == restart_at {
                app.0.restart(keep_state).unwrap();
            }
            let topic = if input.left { "left" } else { "right" };
            app.pipe(topic, &input.key.to_string(), &index.to_string(), input.time);
        }
        // Closes everything; a search may begin a window later than it could.
        for time in [10_000, 20_000, 30_000] {
            app.pipe("left", "end", "end", time);
        }
        let mut found = app.take();
        found.retain(|result| !result.starts_with("end"));
        found.sort();
        prop_assert_eq!(found, brute_force(&inputs, kind, windows));
    }
}
