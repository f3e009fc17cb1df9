//! What a group commits for a partition that only control records follow: the runtime on real Kafka.

use crate::refusals::place;
use crate::running::positions;

#[test]
fn an_idle_partition_whose_records_were_deleted_is_taken_up_again() {
    if let Some(place) = place("deleted_idle_partition") {
        positions::an_idle_partition_whose_records_were_deleted_is_taken_up_again(&place);
    }
}
