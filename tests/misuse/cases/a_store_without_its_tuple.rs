// expect: are not stores that a processor can be connected to
// expect: pass a tuple of store handles, such as `(&balances, &history)`, `(&balances,)` or `()`
use millstream::prelude::*;

struct Pass;

impl Processor<String, i64, String, i64> for Pass {
    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, String, i64>,
        record: Record<String, i64>,
    ) -> Result<(), BoxError> {
        Ok(context.forward(record)?)
    }
}

fn main() {
    let builder = StreamsBuilder::new();
    let seen = builder.add_state_store(StoreBuilder::as_store("seen", serdes::string(), serdes::i64()));
    let amounts = builder.stream("amounts", Consumed::with(serdes::string(), serdes::i64()));
    let _passed: KStream<String, i64> = amounts.process("pass", &seen, |_, _| Pass);
}
