//! Outputs that a broker refuses: the runtime on real Kafka.

use std::sync::Arc;

use millstream::clock::SystemClock;
use millstream::log::kafka::KafkaLog;

use crate::running::{Place, refusals};
use crate::support::broker;

pub(crate) fn place(test: &str) -> Option<Place<KafkaLog>> {
    Some(Place {
        log: broker(test)?,
        clock: Arc::new(SystemClock),
        advance: None,
    })
}

#[test]
fn the_record_to_blame_is_dead_lettered_and_the_others_arrive_once() {
    if let Some(place) = place("refused_dead_letter") {
        refusals::the_record_to_blame_is_dead_lettered_and_the_others_arrive_once(&place);
    }
}

#[test]
fn the_policy_fail_stops_the_thread_and_names_the_record() {
    if let Some(place) = place("refused_fail") {
        refusals::the_policy_fail_stops_the_thread_and_names_the_record(&place);
    }
}

#[test]
fn the_policies_retry_and_skip_are_followed() {
    if let Some(place) = place("refused_retry") {
        refusals::the_policies_retry_and_skip_are_followed(&place);
    }
}

#[test]
fn a_refused_dead_letter_stops_the_thread() {
    if let Some(place) = place("refused_letter") {
        refusals::a_refused_dead_letter_stops_the_thread(&place);
    }
}

#[test]
fn a_punctuators_refused_output_is_blamed_on_no_record() {
    if let Some(place) = place("refused_punctuation") {
        refusals::a_punctuators_refused_output_is_blamed_on_no_record(&place);
    }
}
