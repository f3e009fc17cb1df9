// expect: expected `JoinWindows`, found `TimeWindows`
use std::time::Duration;

use millstream::prelude::*;

fn main() {
    let builder = StreamsBuilder::new();
    let orders = builder.stream("orders", Consumed::with(serdes::string(), serdes::i64()));
    let payments = builder.stream("payments", Consumed::with(serdes::string(), serdes::i64()));
    let _paid = orders.join(
        &payments,
        |_, order, payment| order - payment,
        TimeWindows::of_size_with_no_grace(Duration::from_secs(60)),
        StreamJoined::as_name("paid"),
    );
}
