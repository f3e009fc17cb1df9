//! What queries see of a task that has just begun.

use std::sync::Arc;

use millstream::log::Log;
use millstream::prelude::*;

use super::{Place, Running, config, unique};

/// Writes what is missing before the first record, as whatever is derived from other stores does.
struct Preparing(StoreRef<String, i64>);

impl Processor<String, i64, String, i64> for Preparing {
    fn init(&mut self, _: &mut ProcessorContext<'_, String, i64>) -> Result<Init, BoxError> {
        if self.0.get(&"prepared".to_owned())?.is_none() {
            self.0.put("prepared".to_owned(), 7)?;
        }
        Ok(Init::Ready)
    }

    fn process(
        &mut self,
        _: &mut ProcessorContext<'_, String, i64>,
        _: Record<String, i64>,
    ) -> Result<(), BoxError> {
        Ok(())
    }
}

pub(crate) fn what_a_processor_prepares_is_seen_as_soon_as_its_task_is_queried<L: Log>(
    place: &Place<L>,
) {
    let dir = tempfile::tempdir().unwrap();
    let application = unique("prepared");
    let builder = StreamsBuilder::new();
    let store = StoreBuilder::as_store("values", serdes::string(), serdes::i64());
    let values = builder.add_state_store(store);
    builder
        .stream(
            &format!("{application}.in"),
            Consumed::with(serdes::string(), serdes::i64()),
        )
        .process("preparing", (values,), |_, (values,)| Preparing(values))
        .to(
            &format!("{application}.out"),
            Produced::with(serdes::string(), serdes::i64()),
        );
    let topology = Arc::new(builder.build().unwrap());
    let mut running = Running::start(place, &topology, &config(&application, &dir));
    let mut first = None;
    running
        .run_until(place, "the task is queried", |running| {
            first = running.queries.get("values", "prepared").ok();
            first.is_some()
        })
        .unwrap();
    let value = first.flatten().map(|found| found.value);
    assert_eq!(value, Some(7.into()));
    running.stop(place);
}
