use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::harness::{Output, TestApp, TestTask, consumed, produced, store};
use crate::prelude::*;
use crate::processor::ProcessError;

/// Forwards how often a key was seen; a value of `fail` fails after the write.
struct Counter {
    counts: StoreRef<String, i64>,
}

impl Processor<String, String, String, String> for Counter {
    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, String, String>,
        record: Record<String, String>,
    ) -> Result<(), BoxError> {
        let count = self.counts.get(&record.key)?.unwrap_or(0) + 1;
        self.counts.put(record.key.clone(), count)?;
        context.forward(Record::new(record.key, count.to_string(), record.timestamp))?;
        if record.value == "fail" {
            Err("as told".into())
        } else {
            Ok(())
        }
    }
}

fn counts(name: &str) -> StoreBuilder<String, i64> {
    StoreBuilder::as_store(name, serdes::string(), serdes::i64())
}

#[test]
fn a_merge_feeds_one_instance_per_task() {
    let made = Arc::new(AtomicUsize::new(0));
    let builder = StreamsBuilder::new();
    let counts = builder.add_state_store(counts("counts"));
    let made_by_supplier = Arc::clone(&made);
    let (left, right) = (
        builder.stream("left", consumed()),
        builder.stream("right", consumed()),
    );
    left.merge(&right)
        .process("counter", (&counts,), move |setup, (counts,)| {
            assert_eq!(
                (setup.task(), setup.partition()),
                (
                    TaskId {
                        sub_topology: 0,
                        partition: 0
                    },
                    0
                )
            );
            made_by_supplier.fetch_add(1, Ordering::SeqCst);
            Counter { counts }
        })
        .to("out", produced());
    let mut app = TestApp::new(builder);
    assert_eq!(made.load(Ordering::SeqCst), 1);
    assert_eq!(app.tasks[0].chain.processors.len(), 1);
    app.pipe("left", "a", "", 1).unwrap();
    app.pipe("right", "a", "", 2).unwrap();
    assert_eq!(app.take(), ["out a=1@1", "out a=2@2"]);
}

#[test]
fn a_failed_record_leaves_neither_writes_nor_outputs() {
    let builder = StreamsBuilder::new();
    let counts = builder.add_state_store(counts("counts"));
    builder
        .stream("in", consumed())
        .process("counter", (&counts,), |_, (counts,)| Counter { counts })
        .to("out", produced());
    let mut app = TestApp::new(builder);
    app.pipe("in", "a", "", 1).unwrap();
    let error = app.pipe("in", "a", "fail", 2).unwrap_err();
    assert_eq!(error.stage(), Some(Stage::Processing));
    assert_eq!(error.to_string(), "processor `counter` failed");
    app.pipe("in", "a", "", 3).unwrap();
    assert_eq!(app.take(), ["out a=1@1", "out a=2@3"]);
}

#[test]
fn tasks_of_one_topology_share_nothing() {
    let builder = StreamsBuilder::new();
    let counts = builder.add_state_store(counts("counts"));
    builder
        .stream("in", consumed())
        .process("counter", (&counts,), |_, (counts,)| Counter { counts })
        .to("out", produced());
    let topology = builder.build().unwrap();
    let sub_topology = &topology.sub_topologies()[0];
    for _task in 0..2 {
        let mut task = TestTask::new(sub_topology);
        let input = Output {
            topic: "in".to_owned(),
            partition: Some(0),
            key: Some(b"a".to_vec()),
            value: Some(Vec::new()),
            timestamp: 1,
            headers: Headers::new(),
        };
        let outputs = task.process(0, &input).unwrap();
        assert_eq!(outputs[0].value.as_deref(), Some(b"1".as_slice()));
    }
}

/// Forwards the record and swallows what downstream says.
struct Careless;

impl Processor<String, String, String, String> for Careless {
    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, String, String>,
        record: Record<String, String>,
    ) -> Result<(), BoxError> {
        let refused = context.forward(record.clone());
        let again = context.forward(record);
        assert_eq!(refused, again, "after a failure nothing more is forwarded");
        Ok(())
    }
}

#[test]
fn a_downstream_error_outranks_what_the_processor_makes_of_it() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let builder = StreamsBuilder::new();
    let counted = Arc::clone(&attempts);
    builder
        .stream("in", consumed())
        .process("careless", (), |_, ()| Careless)
        .try_map_values(move |value: String| {
            counted.fetch_add(1, Ordering::SeqCst);
            if value == "bad" {
                Err("bad value".into())
            } else {
                Ok(value)
            }
        })
        .named("check")
        .to("out", produced());
    let mut app = TestApp::new(builder);
    let error = app.pipe("in", "a", "bad", 1).unwrap_err();
    assert_eq!(error.to_string(), "processor `check` failed");
    assert_eq!(attempts.load(Ordering::SeqCst), 1);
    assert!(app.take().is_empty());
}

/// Returns a store's error as its own, wrapped.
struct Broken;

#[derive(Debug, thiserror::Error)]
#[error("wrapped")]
struct Wrapped(#[source] StateError);

impl Processor<String, String, String, String> for Broken {
    fn process(
        &mut self,
        _context: &mut ProcessorContext<'_, String, String>,
        record: Record<String, String>,
    ) -> Result<(), BoxError> {
        let error = StateError::UnknownStore {
            store: "gone".to_owned(),
        };
        if record.value == "wrapped" {
            Err(Wrapped(error).into())
        } else {
            Err(error.into())
        }
    }
}

#[test]
fn no_policy_decides_over_a_failed_store() {
    let builder = StreamsBuilder::new();
    builder
        .stream("in", consumed())
        .process("broken", (), |_, ()| Broken)
        .to("out", produced());
    let mut app = TestApp::new(builder);
    let plain = app.pipe("in", "a", "plain", 1).unwrap_err();
    assert!(matches!(plain, ProcessError::State(_)));
    let wrapped = app.pipe("in", "a", "wrapped", 2).unwrap_err();
    assert_eq!(wrapped.stage(), None);
    assert!(matches!(
        wrapped.state_error(),
        Some(StateError::UnknownStore { .. })
    ));
}

/// Writes down what the task asks of it.
struct Diary {
    name: &'static str,
    entries: Arc<Mutex<Vec<String>>>,
}

impl Diary {
    fn note(&self, entry: &str) {
        self.entries
            .lock()
            .unwrap()
            .push(format!("{} {entry}", self.name));
    }
}

impl Processor<String, String, String, String> for Diary {
    fn init(
        &mut self,
        context: &mut ProcessorContext<'_, String, String>,
    ) -> Result<Init, BoxError> {
        self.note("init");
        context.schedule(Duration::from_millis(10), PunctuationType::WallClockTime);
        Ok(Init::Ready)
    }

    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, String, String>,
        record: Record<String, String>,
    ) -> Result<(), BoxError> {
        self.note("process");
        Ok(context.forward(record)?)
    }

    fn punctuate(
        &mut self,
        context: &mut ProcessorContext<'_, String, String>,
        punctuation: Punctuation,
    ) -> Result<(), BoxError> {
        self.note("punctuate");
        let now = punctuation.timestamp;
        Ok(context.forward(Record::new("tick".to_owned(), self.name.to_owned(), now))?)
    }

    fn close(&mut self) {
        self.note("close");
    }
}

#[test]
fn processors_are_registered_in_topological_order_for_init_punctuate_and_close() {
    let entries = Arc::new(Mutex::new(Vec::new()));
    let diary = |name| {
        let entries = Arc::clone(&entries);
        move |_: &ProcessorSetup, ()| Diary {
            name,
            entries: Arc::clone(&entries),
        }
    };
    let builder = StreamsBuilder::new();
    let left = builder
        .stream("left", consumed())
        .process("left-diary", (), diary("left"));
    let right = builder
        .stream("right", consumed())
        .process("right-diary", (), diary("right"));
    left.merge(&right)
        .process("last-diary", (), diary("last"))
        .to("out", produced());
    let mut app = TestApp::new(builder);
    let task = &mut app.tasks[0];
    let names: Vec<_> = task
        .chain
        .processors
        .iter()
        .map(|node| node.borrow().name().to_owned())
        .collect();
    assert_eq!(names, ["left-diary", "right-diary", "last-diary"]);

    task.atomically(|chain, cx| {
        chain
            .processors
            .iter()
            .try_for_each(|node| node.borrow_mut().init(cx).map(drop))
    })
    .unwrap();
    let mut outputs = Vec::new();
    while let Some((node, punctuation)) = task
        .cx
        .schedules
        .next_due(PunctuationType::WallClockTime, 10)
    {
        let fired = task.atomically(|chain, cx| {
            cx.begin_other(punctuation.timestamp);
            chain.processors[node]
                .borrow_mut()
                .punctuate(cx, punctuation)
        });
        outputs.extend(fired.unwrap());
    }
    assert_eq!(outputs.len(), 3);
    assert!(outputs.iter().all(|output| output.timestamp == 10));
    for node in &task.chain.processors {
        node.borrow_mut().close();
    }
    assert_eq!(
        *entries.lock().unwrap(),
        [
            "left init",
            "right init",
            "last init",
            "left punctuate",
            "last process",
            "right punctuate",
            "last process",
            "last punctuate",
            "left close",
            "right close",
            "last close",
        ]
    );
}

/// Copies between two stores, to see both.
struct Copier {
    from: StoreRef<String, String>,
    to: StoreRef<String, i64>,
}

impl Processor<String, String, String, String> for Copier {
    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, String, String>,
        record: Record<String, String>,
    ) -> Result<(), BoxError> {
        self.from.put(record.key.clone(), record.value.clone())?;
        let n = self.to.get(&record.key)?.unwrap_or(0) + 10;
        self.to.put(record.key.clone(), n)?;
        Ok(context.forward(record.with_value(n.to_string()))?)
    }
}

#[test]
fn parts_that_share_a_store_are_one_sub_topology_and_see_each_others_writes() {
    let builder = StreamsBuilder::new();
    let shared = builder.add_state_store(counts("shared"));
    let own = builder.add_state_store(store("own"));
    builder
        .stream("left", consumed())
        .process("counter", (&shared,), |_, (counts,)| Counter { counts })
        .to("out", produced());
    builder
        .stream("right", consumed())
        .process("copier", (own, shared.clone()), |_, (from, to)| Copier {
            from,
            to,
        })
        .to("out", produced());
    let mut app = TestApp::new(builder);
    assert_eq!(app.tasks.len(), 1);
    app.pipe("left", "a", "", 1).unwrap();
    app.pipe("right", "a", "x", 2).unwrap();
    app.pipe("left", "a", "", 3).unwrap();
    assert_eq!(app.take(), ["out a=1@1", "out a=11@2", "out a=12@3"]);
}
