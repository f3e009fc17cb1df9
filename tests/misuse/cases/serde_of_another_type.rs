// expect: does not turn `i64` into bytes
// expect: take a matching serde, such as `serdes::string()` for `String`
use millstream::prelude::*;

fn main() {
    let builder = StreamsBuilder::new();
    let consumed = Consumed::<String, i64>::with(serdes::string(), serdes::string());
    let _amounts = builder.stream("amounts", consumed);
}
