// expect: is not a processor from
// expect: implement `Processor<
use millstream::prelude::*;

struct Pass;

impl Processor<String, String, String, String> for Pass {
    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, String, String>,
        record: Record<String, String>,
    ) -> Result<(), BoxError> {
        Ok(context.forward(record)?)
    }
}

fn main() {
    let builder = StreamsBuilder::new();
    let amounts = builder.stream("amounts", Consumed::with(serdes::string(), serdes::i64()));
    let _passed: KStream<String, String> = amounts.process("pass", (), |_, ()| Pass);
}
