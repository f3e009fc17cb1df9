//! Configs of the topics that millstream creates for itself.
//!
//! Kafka Streams' (`InternalTopicManager`), with one addition: `max.message.bytes` is 16 MiB, since an
//! event may have 10 MiB and its changelog record must not be what refuses it.

use std::collections::BTreeMap;

/// `max.message.bytes` of every topic that millstream creates, and what its clients fetch at most.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// Kafka's default of `delete.retention.ms`: how long a tombstone outlives the compaction that
/// first met it.
pub const DEFAULT_DELETE_RETENTION_MS: i64 = 86_400_000;

/// `segment.bytes` of repartition topics: small, so that `DeleteRecords` frees space soon.
const REPARTITION_SEGMENT_BYTES: usize = 50 * 1024 * 1024;

fn with_overrides(
    defaults: &[(&str, String)],
    overrides: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut config: BTreeMap<_, _> = defaults
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect();
    config.extend(
        overrides
            .iter()
            .map(|(key, value)| (key.clone(), value.clone())),
    );
    config
}

/// Returns the configs of a key-value store's changelog; `overrides` win.
#[must_use]
pub fn key_value_changelog(overrides: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    with_overrides(
        &[
            ("cleanup.policy", "compact".to_owned()),
            ("message.timestamp.type", "CreateTime".to_owned()),
            ("max.message.bytes", MAX_MESSAGE_BYTES.to_string()),
        ],
        overrides,
    )
}

/// How much longer a changelog keeps windows than their store does, for clocks that differ: Kafka
/// Streams' default of `windowstore.changelog.additional.retention.ms`.
pub const ADDITIONAL_RETENTION_MS: i64 = 86_400_000;

/// Returns the configs of the changelog of windows or sessions that live for `retention` milliseconds:
/// compacted, and deleted when they have expired. `overrides` win.
#[must_use]
pub fn windowed_changelog(
    overrides: &BTreeMap<String, String>,
    retention: i64,
) -> BTreeMap<String, String> {
    let retention = retention.saturating_add(ADDITIONAL_RETENTION_MS);
    with_overrides(
        &[
            ("cleanup.policy", "compact,delete".to_owned()),
            ("retention.ms", retention.to_string()),
            ("message.timestamp.type", "CreateTime".to_owned()),
            ("max.message.bytes", MAX_MESSAGE_BYTES.to_string()),
        ],
        overrides,
    )
}

/// Returns the configs of the changelog of versions that are kept for `history` milliseconds: compacted,
/// but not before all of them have passed. `overrides` win.
#[must_use]
pub fn versioned_changelog(
    overrides: &BTreeMap<String, String>,
    history: i64,
) -> BTreeMap<String, String> {
    let lag = history.saturating_add(ADDITIONAL_RETENTION_MS);
    let mut config = BTreeMap::from([("min.compaction.lag.ms".to_owned(), lag.to_string())]);
    config.extend(overrides.clone());
    key_value_changelog(&config)
}

/// Returns the configs of a repartition topic: kept until it is purged after commits.
#[must_use]
pub fn repartition(overrides: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    with_overrides(
        &[
            ("cleanup.policy", "delete".to_owned()),
            ("retention.ms", "-1".to_owned()),
            ("segment.bytes", REPARTITION_SEGMENT_BYTES.to_string()),
            ("message.timestamp.type", "CreateTime".to_owned()),
            ("max.message.bytes", MAX_MESSAGE_BYTES.to_string()),
        ],
        overrides,
    )
}

/// Returns the configs of the topic that keeps the topology that runs: its last record counts.
#[must_use]
pub fn topology() -> BTreeMap<String, String> {
    key_value_changelog(&BTreeMap::new())
}

/// Returns how long a changelog with these configs keeps tombstones past compaction; `None` when it
/// is not compacted, so that nothing is ever missing between its start and its end.
#[must_use]
pub fn delete_retention_ms(config: &BTreeMap<String, String>) -> Option<i64> {
    if !config
        .get("cleanup.policy")
        .is_some_and(|policy| policy.contains("compact"))
    {
        return None;
    }
    let configured = config
        .get("delete.retention.ms")
        .and_then(|text| text.trim().parse().ok());
    Some(configured.unwrap_or(DEFAULT_DELETE_RETENTION_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(config: &BTreeMap<String, String>) -> String {
        config
            .iter()
            .map(|(key, value)| format!("{key}={value} "))
            .collect()
    }

    #[test]
    fn changelogs_are_compacted_and_hold_large_values() {
        assert_eq!(
            text(&key_value_changelog(&BTreeMap::new())),
            "cleanup.policy=compact max.message.bytes=16777216 message.timestamp.type=CreateTime "
        );
    }

    #[test]
    fn windows_leave_their_changelog_a_day_after_they_have_expired() {
        assert_eq!(
            text(&windowed_changelog(&BTreeMap::new(), 3_600_000)),
            "cleanup.policy=compact,delete max.message.bytes=16777216 \
             message.timestamp.type=CreateTime retention.ms=90000000 "
        );
        let unlimited = windowed_changelog(&BTreeMap::new(), i64::MAX);
        assert_eq!(unlimited["retention.ms"], i64::MAX.to_string());
        assert_eq!(
            delete_retention_ms(&unlimited),
            Some(DEFAULT_DELETE_RETENTION_MS)
        );
    }

    #[test]
    fn versions_are_not_compacted_while_they_are_kept_and_a_day_more() {
        assert_eq!(
            text(&versioned_changelog(&BTreeMap::new(), 3_600_000)),
            "cleanup.policy=compact max.message.bytes=16777216 message.timestamp.type=CreateTime \
             min.compaction.lag.ms=90000000 "
        );
    }

    #[test]
    fn repartition_topics_are_kept_until_purged() {
        assert_eq!(
            text(&repartition(&BTreeMap::new())),
            "cleanup.policy=delete max.message.bytes=16777216 message.timestamp.type=CreateTime \
             retention.ms=-1 segment.bytes=52428800 "
        );
    }

    #[test]
    fn the_authors_configs_win() {
        let overrides = BTreeMap::from([("delete.retention.ms".to_owned(), "60000".to_owned())]);
        let config = key_value_changelog(&overrides);
        assert_eq!(delete_retention_ms(&config), Some(60_000));
        assert_eq!(
            delete_retention_ms(&key_value_changelog(&BTreeMap::new())),
            Some(DEFAULT_DELETE_RETENTION_MS)
        );
        assert_eq!(delete_retention_ms(&repartition(&BTreeMap::new())), None);
    }
}
