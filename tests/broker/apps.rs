//! Whole processes on a real broker.

use crate::refusals::place;
use crate::running::apps;

#[test]
fn a_process_that_starts_again_restores_the_tail_of_a_global_table() {
    if let Some(place) = place("global_table_tail") {
        apps::a_process_that_starts_again_restores_the_tail_of_a_global_table(&place);
    }
}

#[test]
fn a_topic_that_appears_under_a_pattern_is_read_by_a_running_process() {
    if let Some(place) = place("pattern_appears") {
        apps::a_topic_that_appears_under_a_pattern_is_read_by_a_running_process(&place);
    }
}
