// expect: expected `StreamJoined<String, i64, i64>`, found `StreamJoined<String, i64, String>`
use std::time::Duration;

use millstream::prelude::*;

fn main() {
    let builder = StreamsBuilder::new();
    let orders = builder.stream("orders", Consumed::with(serdes::string(), serdes::i64()));
    let payments = builder.stream("payments", Consumed::with(serdes::string(), serdes::i64()));
    let joined: StreamJoined<String, i64, String> = StreamJoined::as_name("paid");
    let _paid = orders.join(
        &payments,
        |_, order, payment| order - payment,
        JoinWindows::of_time_difference_with_no_grace(Duration::from_secs(60)),
        joined,
    );
}
