use millstream::prelude::*;

fn main() {
    let builder = StreamsBuilder::new();
    let amounts = builder.stream("amounts", Consumed::with(serdes::string(), serdes::i64()));
    amounts.to("copies", Produced::with(serdes::string(), serdes::i64()));
    assert!(builder.build().is_ok());
}
