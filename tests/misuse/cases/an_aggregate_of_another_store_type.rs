// expect: expected `Materialized<String, i64>`, found `Materialized<String, String>`
use millstream::prelude::*;

fn main() {
    let builder = StreamsBuilder::new();
    let amounts = builder.stream("amounts", Consumed::with(serdes::string(), serdes::i64()));
    let store: Materialized<String, String> =
        Materialized::as_store("counts", serdes::string(), serdes::string());
    amounts.group_by_key(Grouped::as_name("by-key")).count(store);
}
