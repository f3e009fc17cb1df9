//! Time-to-live: against a model, over restarts, and in bounds.

use std::collections::BTreeMap;
use std::time::Duration;

use millstream::log::embedded::{Fault, FaultPoint};
use millstream::prelude::*;
use millstream::testing::TopologyTestDriver;
use proptest::prelude::*;

use super::support::{FaultNext, compacted, consumed, messages, text_store};

const TTL: i64 = 1000;

/// Does to the store what a record's value says, and tells what came of it.
struct Operator(StoreRef<String, String>);

impl Processor<String, String, String, String> for Operator {
    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, String, String>,
        record: Record<String, String>,
    ) -> Result<(), BoxError> {
        let Self(store) = self;
        let key = &record.key;
        let (verb, argument) = record.value.split_once(' ').unwrap_or((&record.value, ""));
        let argument = argument.to_owned();
        let answer = match verb {
            "put" => store.put(key.clone(), argument).map(|()| String::new())?,
            "try" => format!("{:?}", store.put_if_absent(key.clone(), argument)?),
            "delete" => format!("{:?}", store.delete(key)?),
            "get" => format!("{:?}", store.get_with_timestamp(key)?),
            "fail" => {
                store.put(key.clone(), argument)?;
                return Err("undone".into());
            }
            "all" => {
                let mut entries = store.all().collect::<Result<Vec<_>, _>>()?;
                let mut back = store.reverse_range(..)?.collect::<Result<Vec<_>, _>>()?;
                back.reverse();
                if back != entries {
                    entries.clear();
                }
                format!("{entries:?}")
            }
            _ => return Err("unknown verb".into()),
        };
        Ok(context.forward(record.with_value(answer))?)
    }
}

fn topology(in_memory: bool) -> Topology {
    let builder = StreamsBuilder::new();
    let store = text_store("entries").ttl(Duration::from_millis(TTL.unsigned_abs()));
    let store = if in_memory { store.in_memory() } else { store };
    let store = builder.add_state_store(store);
    builder
        .stream("in", consumed().on_error(ErrorPolicy::Skip))
        .process("operator", (&store,), |_, (store,)| Operator(store))
        .to("out", Produced::with(serdes::string(), serdes::string()));
    builder.build().unwrap()
}

fn driver(in_memory: bool, records: usize) -> TopologyTestDriver {
    TopologyTestDriver::builder()
        .records_per_transaction(records)
        .build(topology(in_memory))
        .unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    /// Records that are piped together.
    Pipe(Vec<(u8, &'static str, i64)>),
    Restart {
        keep_state: bool,
    },
    Abort,
}

fn step() -> impl Strategy<Value = Step> {
    let verb = prop_oneof![
        4 => Just("put"),
        1 => Just("try"),
        1 => Just("delete"),
        2 => Just("get"),
        1 => Just("fail"),
        1 => Just("all"),
    ];
    // Mostly on, sometimes back, now and then far.
    let advance = prop_oneof![6 => 0_i64..60, 3 => -1500_i64..0, 1 => 500_i64..4000];
    let records = prop::collection::vec((0_u8..12, verb, advance), 1..12);
    prop_oneof![
        10 => records.prop_map(Step::Pipe),
        1 => any::<bool>().prop_map(|keep_state| Step::Restart { keep_state }),
        1 => Just(Step::Abort),
    ]
}

/// What the store has to answer.
#[derive(Default)]
struct Model {
    entries: BTreeMap<String, (String, i64)>,
    stream_time: i64,
}

impl Model {
    fn live(&self, key: &str) -> Option<(String, i64)> {
        let entry = self.entries.get(key).cloned();
        entry.filter(|(_, time)| *time > self.stream_time - TTL)
    }

    fn answer(&mut self, key: &str, verb: &str, argument: &str, time: i64) -> Option<String> {
        self.stream_time = self.stream_time.max(time);
        let live = self.live(key);
        let put = |model: &mut Self| {
            let entry = (argument.to_owned(), time);
            model.entries.insert(key.to_owned(), entry);
        };
        Some(match verb {
            "put" => {
                put(self);
                String::new()
            }
            "try" => {
                if live.is_none() {
                    put(self);
                }
                format!("{:?}", live.map(|(value, _)| value))
            }
            "delete" => {
                self.entries.remove(key);
                format!("{:?}", live.map(|(value, _)| value))
            }
            "get" => format!("{live:?}"),
            "fail" => return None,
            "all" => {
                let keys = self.entries.keys();
                let all = keys.filter_map(|key| Some((key.clone(), self.live(key)?.0)));
                format!("{:?}", all.collect::<Vec<_>>())
            }
            other => panic!("{other}"),
        })
    }
}

fn check(in_memory: bool, records: usize, steps: Vec<Step>) {
    let mut driver = driver(in_memory, records);
    let input = driver.input_topic("in", serdes::string(), serdes::string());
    let output = driver.output_topic("out", serdes::string(), serdes::string());
    let (mut model, mut now, mut number) = (Model::default(), 10_000, 0);
    for step in steps {
        match step {
            Step::Restart { keep_state } => driver.restart(keep_state).unwrap(),
            Step::Abort => {
                let plan = FaultNext::new(FaultPoint::Commit, Fault::AbortRequired, 1);
                driver.log().set_faults(Some(plan));
            }
            Step::Pipe(batch) => {
                let mut expected = Vec::new();
                let mut piped = Vec::new();
                for (key, verb, advance) in batch {
                    let time = now + advance;
                    now = now.max(time);
                    number += 1;
                    let (key, argument) = (format!("k{key:02}"), number.to_string());
                    expected.extend(model.answer(&key, verb, &argument, time));
                    piped.push(Record::new(key, format!("{verb} {argument}"), time));
                }
                input.pipe_all(&mut driver, &piped).unwrap();
                assert_eq!(output.read_values(&mut driver).unwrap(), expected);
            }
        }
        // Queries see what processors see, also right after a restore.
        for key in (0..12).map(|key| format!("k{key:02}")) {
            let found = driver.store_value("entries", &key).unwrap();
            let live = model.live(&key).map(|(value, _)| value.into());
            assert_eq!(found, live, "{key} at {}", model.stream_time);
        }
    }
    // Everything ends; nothing is left, here or in the changelog.
    let last = Record::new("k99".to_owned(), "get ".to_owned(), now + 2 * TTL);
    input.pipe_record(&mut driver, &last).unwrap();
    let left = compacted(driver.log(), "test-entries-changelog");
    assert!(left.is_empty(), "{} entries are left", left.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_store_answers_as_the_model_over_restarts_and_aborts(
        in_memory: bool,
        records in 1_usize..20,
        steps in prop::collection::vec(step(), 1..25),
    ) {
        check(in_memory, records, steps);
    }
}

#[test]
fn a_store_that_only_receives_new_keys_stays_bounded() {
    let mut driver = driver(false, 500);
    let input = driver.input_topic("in", serdes::string(), serdes::string());
    let record = |number: i64| Record::new(format!("{number}"), "put x".to_owned(), number);
    for batch in 0..20_i64 {
        let records: Vec<_> = (batch * 500..(batch + 1) * 500).map(record).collect();
        input.pipe_all(&mut driver, &records).unwrap();
        let held = compacted(driver.log(), "test-entries-changelog").len();
        // What lives, a bucket, and what one transaction has written since it looked.
        assert!(held <= 1000 + 1000 / 64 + 1 + 500, "{held} after {batch}");
    }
    let entries = driver
        .store_entries("entries", &serdes::string(), &serdes::string())
        .unwrap();
    assert_eq!(entries.len(), 1000);
    let expired: f64 = driver
        .metrics()
        .lines()
        .filter(|line| line.starts_with("millstream_state_expired_entries_total{"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    let deleted = messages(driver.log(), "test-entries-changelog")
        .iter()
        .filter(|message| millstream::log::LogMessage::value(*message).is_none())
        .count();
    assert!(deleted >= 8500, "{deleted}");
    assert!(
        (expired - deleted as f64).abs() < 0.5,
        "{expired}, {deleted}"
    );
}

#[test]
fn a_leap_in_time_hides_at_once_and_deletes_in_bounded_steps() {
    let mut driver = driver(false, 10_000);
    let input = driver.input_topic("in", serdes::string(), serdes::string());
    let record = |number: i64| Record::new(format!("{number}"), "put x".to_owned(), 1);
    let records: Vec<_> = (0..5000).map(record).collect();
    input.pipe_all(&mut driver, &records).unwrap();
    let mut left = Vec::new();
    for time in 1..=5 {
        let late = Record::new("late".to_owned(), "put x".to_owned(), 1_000_000 + time);
        input.pipe_record(&mut driver, &late).unwrap();
        left.push(compacted(driver.log(), "test-entries-changelog").len());
        let entries = driver
            .store_entries("entries", &serdes::string(), &serdes::string())
            .unwrap();
        assert_eq!(entries.len(), 1, "the others are hidden");
    }
    assert_eq!(left, [3977, 2953, 1929, 905, 1]);
}
