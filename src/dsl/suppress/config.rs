//! Until when updates are held back, and how many of them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::window::{Windowed, millis};

/// What happens when a buffer is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    EmitEarly,
    ShutDown,
}

/// How much a buffer may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferBounds {
    records: Option<usize>,
    bytes: Option<usize>,
    pub(super) full: Full,
}

impl BufferBounds {
    pub(super) const fn is_unbounded(&self) -> bool {
        self.records.is_none() && self.bytes.is_none()
    }

    pub(super) const fn bounds_bytes(&self) -> bool {
        self.bytes.is_some()
    }

    pub(super) fn exceeded(&self, records: usize, bytes: usize) -> bool {
        self.records.is_some_and(|max| records > max) || self.bytes.is_some_and(|max| bytes > max)
    }
}

/// Makes bounds of a buffer. Kafka Streams' `BufferConfig`.
#[derive(Debug)]
pub struct BufferConfig;

impl BufferConfig {
    /// Bounds nothing but the disk.
    #[must_use]
    pub const fn unbounded() -> StrictBufferConfig {
        StrictBufferConfig(BufferBounds {
            records: None,
            bytes: None,
            full: Full::ShutDown,
        })
    }

    /// Holds up to `records` keys; the earliest leave early beyond that.
    #[must_use]
    pub const fn max_records(records: usize) -> EagerBufferConfig {
        EagerBufferConfig(BufferBounds {
            records: Some(records),
            bytes: None,
            full: Full::EmitEarly,
        })
    }

    /// Holds up to `bytes` of serialised keys and updates; the earliest leave early beyond that.
    #[must_use]
    pub const fn max_bytes(bytes: usize) -> EagerBufferConfig {
        EagerBufferConfig(BufferBounds {
            records: None,
            bytes: Some(bytes),
            full: Full::EmitEarly,
        })
    }
}

/// A buffer that never forwards before the time: what final results need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StrictBufferConfig(BufferBounds);

/// A buffer that forwards early rather than hold too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EagerBufferConfig(BufferBounds);

macro_rules! bounds {
    ($($type:ident),*) => {$(
        impl $type {
            /// Holds up to `records` keys.
            #[must_use]
            pub const fn with_max_records(mut self, records: usize) -> Self {
                self.0.records = Some(records);
                self
            }

            /// Holds up to `bytes` of serialised keys and updates.
            #[must_use]
            pub const fn with_max_bytes(mut self, bytes: usize) -> Self {
                self.0.bytes = Some(bytes);
                self
            }

            /// Fails a record that would make the buffer hold more: it meets its source's error policy,
            /// which stops the task unless said otherwise.
            #[must_use]
            pub const fn shut_down_when_full(mut self) -> StrictBufferConfig {
                self.0.full = Full::ShutDown;
                StrictBufferConfig(self.0)
            }

            /// Forwards the earliest updates early instead of holding more.
            #[must_use]
            pub const fn emit_early_when_full(mut self) -> EagerBufferConfig {
                self.0.full = Full::EmitEarly;
                EagerBufferConfig(self.0)
            }

            /// Takes the bounds away.
            #[must_use]
            pub const fn with_no_bound(self) -> StrictBufferConfig {
                BufferConfig::unbounded()
            }
        }

        impl From<$type> for BufferBounds {
            fn from(config: $type) -> Self {
                config.0
            }
        }
    )*};
}

bounds!(StrictBufferConfig, EagerBufferConfig);

/// The time that an update is buffered under, of its key and its timestamp.
pub(super) type TimeOf<K> = Arc<dyn Fn(&K, Timestamp) -> Timestamp + Send + Sync>;

/// When an update leaves.
pub(super) struct Until<K> {
    pub(super) time_of: TimeOf<K>,
    /// Whether updates of a key always have the same time.
    pub(super) time_in_key: bool,
    /// How far stream time passes that time first.
    pub(super) wait: i64,
    /// Whether nothing of a key was ever forwarded before, so that deletes need not be.
    pub(super) final_results: bool,
}

impl<K> Clone for Until<K> {
    fn clone(&self) -> Self {
        Self {
            time_of: Arc::clone(&self.time_of),
            ..*self
        }
    }
}

enum Rule<K> {
    TimeLimit(i64),
    WindowCloses(TimeOf<K>),
}

/// Until when a table's updates are held back, for [`suppress`](crate::dsl::KTable::suppress). Kafka
/// Streams' `Suppressed`; the name is required, since the buffer is durable.
pub struct Suppressed<K> {
    pub(super) name: String,
    pub(super) bounds: BufferBounds,
    pub(super) changelog: Option<BTreeMap<String, String>>,
    rule: Rule<K>,
}

impl<K> fmt::Debug for Suppressed<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suppressed")
            .field("name", &self.name)
            .field("bounds", &self.bounds)
            .finish_non_exhaustive()
    }
}

impl<K: 'static> Suppressed<Windowed<K>> {
    /// Forwards the final result of each window, once, when it has closed: its end and the grace
    /// period of the windows have passed. A bound can only make it fail, not forward early.
    #[must_use]
    pub fn until_window_closes(name: impl Into<String>, buffer: StrictBufferConfig) -> Self {
        let end: TimeOf<Windowed<K>> = Arc::new(|key, _| key.window.end());
        Self::new(name.into(), buffer.into(), Rule::WindowCloses(end))
    }
}

impl<K: 'static> Suppressed<K> {
    /// Forwards the latest update of each key once `wait` of stream time has passed since the first
    /// one that is held back.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let users = builder.table(
    /// #     "users",
    /// #     Consumed::with(serdes::string(), serdes::string()),
    /// #     Materialized::as_store("users", serdes::string(), serdes::string()),
    /// # );
    /// let calm = users.suppress(Suppressed::until_time_limit(
    ///     "calm-users",
    ///     Duration::from_secs(60),
    ///     BufferConfig::max_records(100_000),
    /// ));
    /// # drop(calm);
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use]
    pub fn until_time_limit(
        name: impl Into<String>,
        wait: Duration,
        buffer: impl Into<BufferBounds>,
    ) -> Self {
        Self::new(name.into(), buffer.into(), Rule::TimeLimit(millis(wait)))
    }

    fn new(name: String, bounds: BufferBounds, rule: Rule<K>) -> Self {
        Self {
            name,
            bounds,
            changelog: Some(BTreeMap::new()),
            rule,
        }
    }

    /// Sets a config of the buffer's changelog topic.
    #[must_use]
    pub fn changelog_config(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.changelog
            .get_or_insert_default()
            .insert(key.into(), value.into());
        self
    }

    /// Keeps no changelog: what is held back is lost with its machine.
    #[must_use]
    pub fn no_changelog(mut self) -> Self {
        self.changelog = None;
        self
    }

    /// Returns when updates leave; `None` for windows that nobody knows the grace period of.
    pub(super) fn until(&self, window_grace: Option<i64>) -> Option<Until<K>> {
        Some(match &self.rule {
            Rule::TimeLimit(wait) => Until {
                time_of: Arc::new(|_, timestamp| timestamp),
                time_in_key: false,
                wait: *wait,
                final_results: false,
            },
            Rule::WindowCloses(end) => Until {
                time_of: Arc::clone(end),
                time_in_key: true,
                wait: window_grace?,
                final_results: true,
            },
        })
    }
}
