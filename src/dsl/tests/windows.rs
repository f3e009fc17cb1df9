//! Windowed aggregations and suppression, on the driver: the production thread, real commits.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use crate::prelude::*;
use crate::testing::TopologyTestDriver;

const fn ms(millis: i64) -> Duration {
    Duration::from_millis(millis.unsigned_abs())
}

fn store(name: &str) -> Materialized<String, String> {
    Materialized::as_store(name, serdes::string(), serdes::string())
}

fn words(builder: &StreamsBuilder) -> KGroupedStream<String, String> {
    builder
        .stream("in", Consumed::with(serdes::string(), serdes::string()))
        .group_by_key(Grouped::as_name("by-key"))
}

fn texts(stream: &TimeWindowedKStream<String, String>) -> KTable<Windowed<String>, String> {
    stream.aggregate(String::new, |_, value, text| text + &value, store("store"))
}

/// Writes `key@[start,end]` and the value.
fn write(table: &KTable<Windowed<String>, String>) {
    table
        .to_stream()
        .map(|window, text| (window.to_string(), text))
        .to(
            "out",
            Produced::with(serdes::string(), serdes::optional(serdes::string())),
        );
}

struct App {
    driver: TopologyTestDriver,
    failing: bool,
}

impl App {
    fn new(draw: impl FnOnce(&StreamsBuilder)) -> Self {
        let builder = StreamsBuilder::new();
        draw(&builder);
        let driver = TopologyTestDriver::new(builder.build().unwrap()).unwrap();
        Self {
            driver,
            failing: false,
        }
    }

    fn pipe(&mut self, key: &str, value: &str, time: i64) {
        let input = self
            .driver
            .input_topic("in", serdes::string(), serdes::string());
        let record = Record::new(key.to_owned(), value.to_owned(), time);
        self.failing |= input.pipe_record(&mut self.driver, &record).is_err();
    }

    /// What came out of `topic` since the last look, as `key=value@time`.
    fn take(&mut self, topic: &str) -> Vec<String> {
        let output =
            self.driver
                .output_topic(topic, serdes::string(), serdes::optional(serdes::string()));
        let records = output.read_records(&mut self.driver).unwrap();
        let show = |record: Record<String, Option<String>>| {
            let value = record.value.unwrap_or_else(|| "null".to_owned());
            format!("{}={value}@{}", record.key, record.timestamp)
        };
        records.into_iter().map(show).collect()
    }

    fn dropped(&self) -> u64 {
        let metrics = self.driver.metrics();
        let line = metrics
            .lines()
            .find(|line| line.starts_with("millstream_records_dropped_total"));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    }
}

#[test]
fn a_late_record_is_counted_for_each_closed_window_and_kept_when_no_window_takes_it() {
    let mut app = App::new(|builder| {
        let windows = TimeWindows::of_size_and_grace(ms(10), ms(5)).advance_by(ms(5));
        let stream = words(builder).windowed_by(windows).late_records(|late| {
            late.to("late", Produced::with(serdes::string(), serdes::string()));
        });
        write(&texts(&stream));
    });
    app.pipe("a", "x", 30);
    assert_eq!(app.take("out"), ["a@[25,35]=x@30", "a@[30,40]=x@30"]);
    // Windows up to [15,25) are closed at 30 - 5.
    app.pipe("a", "y", 23);
    assert_eq!(app.take("out"), ["a@[20,30]=y@23"]);
    assert_eq!(app.dropped(), 1);
    assert_eq!(app.take("late"), [] as [&str; 0], "a window took it");
    app.pipe("a", "z", 14);
    assert_eq!(app.take("out"), [] as [&str; 0]);
    assert_eq!(app.take("late"), ["a=z@14"]);
    assert_eq!(app.dropped(), 3);
}

#[test]
fn late_sessions_and_sliding_windows_go_to_the_late_stream_as_well() {
    let mut app = App::new(|builder| {
        let by_key = words(builder);
        let late = |late: KStream<String, String>| {
            late.to("late", Produced::with(serdes::string(), serdes::string()));
        };
        let sessions = SessionWindows::of_inactivity_gap_with_no_grace(ms(5));
        write(
            &by_key
                .windowed_by(sessions)
                .late_records(late)
                .reduce(|one, other| one + &other, store("sessions")),
        );
    });
    app.pipe("a", "x", 100);
    app.pipe("a", "y", 94);
    app.pipe("a", "z", 96);
    assert_eq!(app.take("late"), ["a=y@94"]);
    assert_eq!(
        app.take("out"),
        [
            "a@[100,100]=x@100",
            "a@[100,100]=null@100",
            "a@[96,100]=xz@100"
        ]
    );
    let mut app = App::new(|builder| {
        let sliding = SlidingWindows::of_time_difference_with_no_grace(ms(5));
        let stream = words(builder).windowed_by(sliding).late_records(|late| {
            late.to("late", Produced::with(serdes::string(), serdes::string()));
        });
        write(&texts(&stream));
    });
    app.pipe("a", "x", 100);
    app.pipe("a", "y", 94);
    assert_eq!(app.take("late"), ["a=y@94"]);
    assert_eq!(app.dropped(), 1);
}

#[test]
fn each_window_is_emitted_once_on_close_also_when_time_jumps_beyond_the_retention() {
    let on_close = |builder: &StreamsBuilder, windows: TimeWindows| {
        let stream = words(builder).windowed_by(windows);
        write(&texts(
            &stream.emit_strategy(EmitStrategy::on_window_close()),
        ));
    };
    let mut app = App::new(|builder| on_close(builder, TimeWindows::of_size_with_no_grace(ms(10))));
    app.pipe("b", "1", 3);
    app.pipe("a", "2", 9);
    app.pipe("a", "3", 4);
    assert_eq!(app.take("out"), [] as [&str; 0]);
    app.pipe("a", "4", 10);
    assert_eq!(app.take("out"), ["a@[0,10]=23@9", "b@[0,10]=1@3"]);
    // The window of 4 has expired by the time its successor is put.
    app.pipe("a", "5", 1_000_000);
    assert_eq!(app.take("out"), ["a@[10,20]=4@10"]);
    app.pipe("a", "6", 12);
    assert_eq!(app.take("out"), [] as [&str; 0], "late");
    assert_eq!(app.dropped(), 1);
}

#[test]
fn sessions_and_sliding_windows_are_emitted_once_on_close() {
    let mut app = App::new(|builder| {
        let windows = SessionWindows::of_inactivity_gap_with_no_grace(ms(5));
        let stream = words(builder)
            .windowed_by(windows)
            .emit_strategy(EmitStrategy::on_window_close());
        write(&stream.reduce(|one, other| one + &other, store("store")));
    });
    for (value, time) in [("1", 10), ("2", 14), ("3", 12)] {
        app.pipe("a", value, time);
    }
    app.pipe("b", "4", 19);
    assert_eq!(
        app.take("out"),
        [] as [&str; 0],
        "a record at 19 still joins"
    );
    app.pipe("b", "5", 20);
    assert_eq!(app.take("out"), ["a@[10,14]=123@14"]);
    app.pipe("a", "6", 500);
    assert_eq!(app.take("out"), ["b@[19,20]=45@20"]);

    let mut app = App::new(|builder| {
        let windows = SlidingWindows::of_time_difference_with_no_grace(ms(5));
        let stream = words(builder).windowed_by(windows);
        write(&texts(
            &stream.emit_strategy(EmitStrategy::on_window_close()),
        ));
    });
    app.pipe("a", "1", 10);
    app.pipe("a", "2", 13);
    assert_eq!(app.take("out"), ["a@[5,10]=1@10"]);
    app.pipe("a", "3", 500);
    assert_eq!(app.take("out"), ["a@[8,13]=12@13", "a@[11,16]=2@13"]);
}

#[test]
fn a_failed_record_leaves_neither_windows_nor_time_nor_drops_behind() {
    let mut app = App::new(|builder| {
        let stream = builder
            .stream(
                "in",
                Consumed::with(serdes::string(), serdes::string()).on_error(ErrorPolicy::Skip),
            )
            .group_by_key(Grouped::as_name("by-key"))
            .windowed_by(TimeWindows::of_size_with_no_grace(ms(10)));
        let table = stream.try_aggregate(
            String::new,
            |_, value: String, text| match value.as_str() {
                "bad" => Err("bad".into()),
                _ => Ok(Some(text + &value)),
            },
            store("store"),
        );
        write(&table.suppress(Suppressed::until_window_closes(
            "final",
            BufferConfig::unbounded(),
        )));
    });
    app.pipe("a", "1", 3);
    app.pipe("a", "bad", 1000);
    app.pipe("a", "2", 4);
    assert_eq!(app.take("out"), [] as [&str; 0]);
    assert_eq!(app.dropped(), 0);
    app.pipe("a", "3", 10);
    assert_eq!(app.take("out"), ["a@[0,10]=12@4"]);
    assert!(!app.failing);
}

#[test]
fn a_late_record_is_late_after_a_restart_too() {
    for keep_state in [true, false] {
        let mut app = App::new(|builder| {
            write(&texts(
                &words(builder).windowed_by(TimeWindows::of_size_with_no_grace(ms(10))),
            ));
        });
        app.pipe("a", "1", 3);
        app.pipe("b", "2", 10);
        app.driver.restart(keep_state).unwrap();
        app.pipe("a", "3", 4);
        app.pipe("b", "4", 11);
        assert_eq!(
            app.take("out"),
            ["a@[0,10]=1@3", "b@[10,20]=2@10", "b@[10,20]=24@11"],
            "state kept: {keep_state}"
        );
        assert_eq!(app.dropped(), 1);
    }
}

#[test]
fn a_full_strict_buffer_stops_the_task_and_an_eager_one_forwards_early() {
    let count = |builder: &StreamsBuilder, suppressed| {
        let stream = words(builder).windowed_by(TimeWindows::of_size_with_no_grace(ms(10)));
        write(&texts(&stream).suppress(suppressed));
    };
    let strict = || BufferConfig::max_records(2).shut_down_when_full();
    let mut app = App::new(|builder| {
        count(builder, Suppressed::until_window_closes("final", strict()));
    });
    app.pipe("a", "1", 1);
    app.pipe("b", "1", 1);
    app.pipe("a", "2", 2);
    assert!(!app.failing);
    app.pipe("c", "1", 3);
    assert!(app.failing, "a third window");

    let eager = BufferConfig::max_bytes(90);
    let mut app = App::new(|builder| {
        count(
            builder,
            Suppressed::until_time_limit("calm", ms(1000), eager),
        );
    });
    app.pipe("a", "1", 1);
    app.pipe("b", "1", 2);
    assert_eq!(app.take("out"), [] as [&str; 0]);
    app.pipe("c", "1", 3);
    assert_eq!(app.take("out"), ["a@[0,10]=1@1"]);
}

#[test]
fn readers_of_old_values_get_what_they_knew() {
    let mut app = App::new(|builder| {
        let table = builder
            .table(
                "in",
                Consumed::with(serdes::string(), serdes::string()),
                store("table"),
            )
            .suppress(Suppressed::until_time_limit(
                "calm",
                ms(10),
                BufferConfig::unbounded(),
            ));
        table.enable_sending_old_values();
        table
            .updates()
            .map_values(|change| Some(format!("{:?} -> {:?}", change.old, change.new)))
            .to(
                "out",
                Produced::with(serdes::string(), serdes::optional(serdes::string())),
            );
    });
    app.pipe("a", "1", 0);
    app.pipe("a", "2", 5);
    app.pipe("a", "3", 10);
    app.pipe("a", "4", 12);
    app.pipe("a", "5", 22);
    assert_eq!(
        app.take("out"),
        [
            "a=None -> Some(\"3\")@10",
            "a=Some(\"3\") -> Some(\"5\")@22"
        ]
    );
}

#[test]
fn window_stores_answer_queries_by_key_and_start() {
    let mut app = App::new(|builder| {
        write(&texts(
            &words(builder).windowed_by(TimeWindows::of_size_with_no_grace(ms(10))),
        ));
    });
    app.pipe("a", "x", 12);
    let found = app.driver.store_value("store", "a@10").unwrap();
    assert_eq!(found, Some("x".into()));
    assert_eq!(app.driver.store_value("store", "a@20").unwrap(), None);
}

#[test]
fn impossible_windows_are_mistakes() {
    let mistakes = |draw: &dyn Fn(&StreamsBuilder)| {
        let builder = StreamsBuilder::new();
        draw(&builder);
        builder.build().unwrap_err().to_string()
    };
    let by_time = |builder: &StreamsBuilder, windows: TimeWindows, store| {
        let stream = words(builder).windowed_by(windows);
        write(&stream.aggregate(String::new, |_, value, text| text + &value, store));
    };
    let found = mistakes(&|builder| {
        by_time(
            builder,
            TimeWindows::of_size_with_no_grace(ms(0)),
            store("store"),
        );
    });
    assert!(
        found.contains("the windows of store `store` are illegal: the size"),
        "{found}"
    );
    let found = mistakes(&|builder| {
        let short = store("store").with_retention(ms(14));
        by_time(
            builder,
            TimeWindows::of_size_and_grace(ms(10), ms(5)),
            short,
        );
    });
    assert!(
        found.contains("for 14 ms, but they take records for 15 ms"),
        "{found}"
    );
    let found = mistakes(&|builder| {
        let stream = words(builder).windowed_by(UnlimitedWindows::of());
        write(&texts(
            &stream.emit_strategy(EmitStrategy::on_window_close()),
        ));
    });
    assert!(found.contains("never closes"), "{found}");
    let found = mistakes(&|builder| {
        let table = texts(&words(builder).windowed_by(UnlimitedWindows::of()))
            .map_values(|_, text| text)
            .suppress(Suppressed::until_window_closes(
                "final",
                BufferConfig::unbounded(),
            ));
        write(&table);
    });
    assert!(
        found.contains("suppression `final` is illegal: the value serde"),
        "{found}"
    );
}

/// The final text of each window, as brute force has it: records in order, those for closed windows
/// left out.
fn final_texts(records: &[(u8, i64)], windows: TimeWindows) -> BTreeMap<String, String> {
    let mut stream_time = 0;
    let mut texts = BTreeMap::<String, String>::new();
    for (index, (key, time)) in records.iter().enumerate() {
        stream_time = stream_time.max(*time);
        for window in windows.windows_for(*time) {
            if window.end() + windows.grace_ms() > stream_time {
                let text = texts.entry(format!("{key}@{window}")).or_default();
                text.push_str(&format!("{index};"));
            }
        }
    }
    texts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn suppress_and_emission_on_close_send_each_window_exactly_once_over_a_crash(
        records in proptest::collection::vec((0u8..3, 0i64..30), 1..40),
        steps in proptest::collection::vec(0i64..6, 40),
        size in 1i64..20,
        advance in 1i64..20,
        grace in 0i64..15,
        on_close: bool,
        killed_at in 0usize..80,
        keep_state: bool,
    ) {
        let windows = TimeWindows::of_size_and_grace(ms(size), ms(grace))
            .advance_by(ms(advance.min(size)));
        let mut app = App::new(|builder| {
            let stream = words(builder).windowed_by(windows);
            if on_close {
                write(&texts(&stream.emit_strategy(EmitStrategy::on_window_close())));
            } else {
                let last = Suppressed::until_window_closes("final", BufferConfig::unbounded());
                write(&texts(&stream).suppress(last));
            }
        });
        // Time goes on, each record up to 30 ms behind it.
        let mut now = 0;
        let mut input: Vec<(u8, i64)> = Vec::new();
        for ((key, behind), step) in records.into_iter().zip(steps) {
            now += step;
            input.push((key, (now - behind).max(0)));
        }
        let expected = final_texts(&input, windows);
        for (index, (key, time)) in input.iter().enumerate() {
            if index == killed_at {
                app.driver.restart(keep_state).unwrap();
            }
            app.pipe(&key.to_string(), &format!("{index};"), *time);
        }
        app.pipe("end", "", 1_000_000);
        let mut found = BTreeMap::new();
        for line in app.take("out") {
            let (window, rest) = line.split_once('=').unwrap();
            let text = rest.split_once('@').unwrap().0.to_owned();
            prop_assert!(!window.starts_with("end"), "the last record closes no window of its own");
            prop_assert!(found.insert(window.to_owned(), text).is_none(), "{} twice", window);
        }
        prop_assert_eq!(found, expected);
    }
}
