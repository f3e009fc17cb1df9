// expect: expected `Produced<String, i64>`, found `Produced<String, String>`
use millstream::prelude::*;

fn main() {
    let builder = StreamsBuilder::new();
    let amounts = builder.stream("amounts", Consumed::with(serdes::string(), serdes::i64()));
    let produced: Produced<String, String> = Produced::with(serdes::string(), serdes::string());
    amounts.to("copies", produced);
}
