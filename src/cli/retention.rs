//! Times that topics do not keep: brokers delete by record time, so that what is written with an old time
//! may be gone before it is read.

use crate::clock::Timestamp;
use crate::runtime::RuntimeConfig;
use crate::topology::Topology;

const RETENTION: &str = "retention.ms";

/// Returns the declared topics that delete records of `at`, by what they are created with. A topic that
/// was there before may be configured otherwise.
pub(super) fn outlived(
    topology: &Topology,
    config: &RuntimeConfig,
    at: Timestamp,
    now: Timestamp,
) -> Vec<String> {
    let age = now.saturating_sub(at);
    let declared = topology.declared_topics().iter();
    let outlived = declared.filter(|topic| {
        let overridden = config.topics.get(&topic.name);
        let overridden = overridden.and_then(|entry| entry.config.get(RETENTION));
        let kept = overridden.or_else(|| topic.config.get(RETENTION));
        let kept = kept.and_then(|text| text.parse::<i64>().ok());
        kept.is_some_and(|kept| kept >= 0 && kept < age)
    });
    outlived.map(|topic| topic.name.clone()).collect()
}

/// Says what to do about it.
pub(super) const ADVICE: &str =
    "brokers delete by record time: for a historic run set `retention.ms` of these topics to -1";
