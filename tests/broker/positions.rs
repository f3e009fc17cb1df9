//! Positions and the order of partitions, as a broker's fetches bring them: the runtime on real Kafka.

use crate::refusals::place;
use crate::running::{idling, positions};

#[test]
fn an_idle_partition_whose_records_were_deleted_is_taken_up_again() {
    if let Some(place) = place("deleted_idle_partition") {
        positions::an_idle_partition_whose_records_were_deleted_is_taken_up_again(&place);
    }
}

#[test]
fn a_backlog_of_two_topics_is_worked_off_by_timestamp() {
    if let Some(place) = place("backlog_by_timestamp") {
        idling::a_backlog_of_two_topics_is_worked_off_by_timestamp(&place);
    }
}
