//! As in `transfers.rs`, on a real Kafka.

mod kafka;
mod money;
mod support;

use kafka::Deployment;
use support::Site;

#[test]
fn transfers_survive_kill_9_on_kafka() {
    let Some(deployment) = Deployment::new("transfers_kafka") else {
        return;
    };
    let config = deployment.config();
    let site = Site::new(&format!("state: {{flush_interval: 200ms}}\n{config}"));
    money::survive_kills(&site, &["--set", &deployment.application()]);
}
