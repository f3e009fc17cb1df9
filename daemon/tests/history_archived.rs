//! The real binary with a history store of recent events, on the embedded log.

mod archived;
mod support;

use std::sync::Arc;

use millstream::clock::SystemClock;
use millstream::log::embedded::EmbeddedLog;

#[test]
fn the_past_is_answered_alike_from_the_store_and_from_the_archive() {
    let site = archived::site("");
    archived::is_answered_alike(&site, &[&site.embedded()], || {
        let log = EmbeddedLog::open(site.path("log"), Arc::new(SystemClock)).unwrap();
        archived::cut(&log, "billing.account.events");
    });
}
