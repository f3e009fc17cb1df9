// expect: a stream with keys of type `String` cannot be joined with `KStream<i64, i64>`
// expect: both streams of a join have keys of one type: bring one to the other's with `select_key` or `map`
use std::time::Duration;

use millstream::prelude::*;

fn main() {
    let builder = StreamsBuilder::new();
    let orders = builder.stream("orders", Consumed::with(serdes::string(), serdes::i64()));
    let payments = builder.stream("payments", Consumed::with(serdes::i64(), serdes::i64()));
    let _paid = orders.join(
        &payments,
        |_, order, payment| order - payment,
        JoinWindows::of_time_difference_with_no_grace(Duration::from_secs(60)),
        StreamJoined::as_name("paid"),
    );
}
