//! The stream thread on the embedded log: outputs that the log refuses, positions past control
//! records. `tests/broker` runs the same on Kafka.

mod running;

use std::sync::Arc;

use millstream::clock::{Clock, ManualClock, SystemClock};
use millstream::log::embedded::EmbeddedLog;
use running::{Place, apps, foreign_key, idling, positions, queries, refusals};

fn place() -> Place<EmbeddedLog> {
    let clock = ManualClock::at(1_700_000_000_000);
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    Place {
        log: EmbeddedLog::in_memory(Arc::clone(&shared)).with_virtual_time(),
        clock: shared,
        advance: Some(clock),
    }
}

#[test]
fn the_record_to_blame_is_dead_lettered_and_the_others_arrive_once() {
    refusals::the_record_to_blame_is_dead_lettered_and_the_others_arrive_once(&place());
}

#[test]
fn the_policy_fail_stops_the_thread_and_names_the_record() {
    refusals::the_policy_fail_stops_the_thread_and_names_the_record(&place());
}

#[test]
fn the_policies_retry_and_skip_are_followed() {
    refusals::the_policies_retry_and_skip_are_followed(&place());
}

#[test]
fn a_refused_dead_letter_stops_the_thread() {
    refusals::a_refused_dead_letter_stops_the_thread(&place());
}

#[test]
fn an_idle_partition_whose_records_were_deleted_is_taken_up_again() {
    positions::an_idle_partition_whose_records_were_deleted_is_taken_up_again(&place());
}

#[test]
fn a_backlog_of_two_topics_is_worked_off_by_timestamp() {
    idling::a_backlog_of_two_topics_is_worked_off_by_timestamp(&place());
}

#[test]
fn what_a_processor_prepares_is_seen_as_soon_as_its_task_is_queried() {
    queries::what_a_processor_prepares_is_seen_as_soon_as_its_task_is_queried(&place());
}

#[test]
fn a_punctuators_refused_output_is_blamed_on_no_record() {
    refusals::a_punctuators_refused_output_is_blamed_on_no_record(&place());
}

#[test]
fn a_result_ends_when_its_right_value_goes_while_the_left_one_changes() {
    foreign_key::a_result_ends_when_its_right_value_goes_while_the_left_one_changes(&place());
}

#[test]
fn a_result_ends_when_its_left_value_loses_the_key_and_changes_again() {
    foreign_key::a_result_ends_when_its_left_value_loses_the_key_and_changes_again(&place());
}

/// Time passes by itself: for processes with threads.
fn running_place() -> Place<EmbeddedLog> {
    Place {
        log: EmbeddedLog::in_memory(Arc::new(SystemClock)),
        clock: Arc::new(SystemClock),
        advance: None,
    }
}

#[test]
fn a_process_that_starts_again_restores_the_tail_of_a_global_table() {
    apps::a_process_that_starts_again_restores_the_tail_of_a_global_table(&running_place());
}

#[test]
fn a_topic_that_appears_under_a_pattern_is_read_by_a_running_process() {
    apps::a_topic_that_appears_under_a_pattern_is_read_by_a_running_process(&running_place());
}
