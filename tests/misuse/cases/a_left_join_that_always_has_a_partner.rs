// expect: type mismatch in closure arguments
// expect: expected closure signature `for<'a> fn(&'a String, _, Option<i64>) -> _`
use std::time::Duration;

use millstream::prelude::*;

fn main() {
    let builder = StreamsBuilder::new();
    let orders = builder.stream("orders", Consumed::with(serdes::string(), serdes::i64()));
    let payments = builder.stream("payments", Consumed::with(serdes::string(), serdes::i64()));
    let _paid = orders.left_join(
        &payments,
        |_: &String, order: i64, payment: i64| order - payment,
        JoinWindows::of_time_difference_with_no_grace(Duration::from_secs(60)),
        StreamJoined::as_name("paid"),
    );
}
