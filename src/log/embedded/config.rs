//! The topic configs that the embedded log acts upon; it stores and ignores all others.

use std::collections::BTreeMap;

/// What a topic's configuration asks for, parsed once.
///
/// There is no broker-wide default retention: what a topic does not configure is kept (Kafka
/// deletes after seven days), because tests and replays write old timestamps.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TopicConfig {
    /// `cleanup.policy` contains `compact`.
    pub(super) compact: bool,
    /// `cleanup.policy` contains `delete` (the default).
    pub(super) delete: bool,
    /// `retention.ms`; `None` is for ever.
    pub(super) retention_ms: Option<i64>,
    /// `retention.bytes` per partition; `None` is without limit.
    pub(super) retention_bytes: Option<usize>,
    /// `delete.retention.ms`: how long a tombstone outlives the first compaction that saw it.
    pub(super) delete_retention_ms: i64,
    /// `min.compaction.lag.ms`: younger records are not compacted.
    pub(super) min_compaction_lag_ms: i64,
    /// `min.cleanable.dirty.ratio`: the share of new records that starts a compaction.
    pub(super) min_cleanable_dirty_ratio: f64,
    /// `max.message.bytes`.
    pub(super) max_message_bytes: usize,
    /// `message.timestamp.type` is `LogAppendTime`.
    pub(super) log_append_time: bool,
    /// `message.timestamp.after.max.ms`; only when configured (Kafka defaults to an hour).
    pub(super) timestamp_after_max_ms: Option<i64>,
}

/// Kafka's default of `max.message.bytes`.
const MAX_MESSAGE_BYTES: usize = 1_048_588;
/// Kafka's default of `delete.retention.ms`: a day.
const DELETE_RETENTION_MS: i64 = 86_400_000;

impl TopicConfig {
    /// Parses a topic's configs.
    ///
    /// # Errors
    /// Names the key whose value does not parse.
    pub(super) fn parse(config: &BTreeMap<String, String>) -> Result<Self, String> {
        let policy = config
            .get("cleanup.policy")
            .map_or("delete", String::as_str);
        let (mut compact, mut delete) = (false, false);
        for word in policy
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
        {
            match word {
                "compact" => compact = true,
                "delete" => delete = true,
                other => return Err(format!("cleanup.policy: `{other}` is unknown")),
            }
        }
        Ok(Self {
            compact,
            delete,
            retention_ms: limit(config, "retention.ms")?,
            retention_bytes: limit(config, "retention.bytes")?
                .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
            delete_retention_ms: number(config, "delete.retention.ms", DELETE_RETENTION_MS)?,
            min_compaction_lag_ms: number(config, "min.compaction.lag.ms", 0)?,
            min_cleanable_dirty_ratio: number(config, "min.cleanable.dirty.ratio", 0.5)?,
            max_message_bytes: number(config, "max.message.bytes", MAX_MESSAGE_BYTES)?,
            log_append_time: config
                .get("message.timestamp.type")
                .is_some_and(|kind| kind == "LogAppendTime"),
            timestamp_after_max_ms: limit(config, "message.timestamp.after.max.ms")?,
        })
    }
}

fn number<T: std::str::FromStr>(
    config: &BTreeMap<String, String>,
    key: &str,
    default: T,
) -> Result<T, String> {
    match config.get(key) {
        None => Ok(default),
        Some(text) => text
            .parse()
            .map_err(|_| format!("{key}: `{text}` is not a number")),
    }
}

/// A number where -1 and absence mean that there is no limit.
fn limit(config: &BTreeMap<String, String>, key: &str) -> Result<Option<i64>, String> {
    Ok(Some(number(config, key, -1_i64)?).filter(|value| *value >= 0))
}
