//! As in `history_archived.rs`, on a real Kafka.

mod archived;
mod kafka;
mod support;

use std::collections::BTreeMap;

use kafka::Deployment;
use millstream::log::kafka::KafkaLog;

#[test]
fn the_past_is_answered_alike_from_the_store_and_from_the_archive_on_kafka() {
    let Some(deployment) = Deployment::new("history_archived_kafka") else {
        return;
    };
    let site = archived::site(&deployment.config());
    let application = deployment.application();
    archived::is_answered_alike(&site, &["--set", &application], || {
        let log = KafkaLog::new(&deployment.servers, BTreeMap::new()).unwrap();
        archived::cut(&log, &deployment.topic("account.events"));
    });
}
