//! How two streams are joined: Kafka Streams' `StreamJoined`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::dsl::config::{Materialized, SharedSerde};
use crate::serde::{BytesSerde, Serde};
use crate::topology::{Durability, Persistence};

/// How two streams are joined: the name of what that keeps, and the serdes it is kept with.
///
/// The join keeps each side's records in `<name>-this-join-store` and `<name>-other-join-store`; a left
/// join calls the second one `<name>-outer-other-join-store`, an outer join also the first one
/// `<name>-outer-this-join-store`. Records that have found no partner yet wait in
/// `<name>-left-shared-join-store` or, for an outer join, `<name>-outer-shared-join-store`. A stream
/// whose key may have changed goes through the topic `<name>-left` or `<name>-right`. These are the
/// names that Kafka Streams gives with `withName(name).withStoreName(name)`.
pub struct StreamJoined<K, V, W> {
    pub(super) name: String,
    pub(super) store_name: Option<String>,
    pub(super) key_serde: Option<SharedSerde<K>>,
    pub(super) value_serde: Option<SharedSerde<V>>,
    pub(super) other_value_serde: Option<SharedSerde<W>>,
    persistence: Persistence,
    changelog: Option<BTreeMap<String, String>>,
}

impl<K, V, W> StreamJoined<K, V, W> {
    /// Names the join. Serdes are those of the streams, as far as keys and values are unchanged since
    /// their sources.
    pub fn as_name(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            store_name: None,
            key_serde: None,
            value_serde: None,
            other_value_serde: None,
            persistence: Persistence::RocksDb,
            changelog: Some(BTreeMap::new()),
        }
    }

    /// Names the join and says how keys and both streams' values are kept.
    pub fn with(
        name: impl Into<String>,
        key_serde: impl Serde<K>,
        value_serde: impl Serde<V>,
        other_value_serde: impl Serde<W>,
    ) -> Self {
        Self {
            key_serde: Some(Arc::new(key_serde)),
            value_serde: Some(Arc::new(value_serde)),
            other_value_serde: Some(Arc::new(other_value_serde)),
            ..Self::as_name(name)
        }
    }

    /// Gives the stores another name than the join's, such as that of an application to be taken
    /// over.
    #[must_use]
    pub fn store_name(mut self, name: impl Into<String>) -> Self {
        self.store_name = Some(name.into());
        self
    }

    /// Keeps the records in memory: restored from the start of the changelogs at each start.
    #[must_use]
    pub fn in_memory(mut self) -> Self {
        self.persistence = Persistence::InMemory;
        self
    }

    /// Sets a config of the changelog topics, such as `segment.ms`.
    #[must_use]
    pub fn changelog_config(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.changelog
            .get_or_insert_default()
            .insert(key.into(), value.into());
        self
    }

    /// Keeps no changelogs: records that wait for a partner are lost with their machine.
    #[must_use]
    pub fn no_changelog(mut self) -> Self {
        self.changelog = None;
        self
    }

    /// Returns the name of a store of the join.
    pub(super) fn name_of_store(&self, suffix: &str) -> String {
        let base = self.store_name.as_deref().unwrap_or(&self.name);
        format!("{base}-{suffix}-store")
    }

    /// Describes a store of the join. Queries see bytes: the serdes have no text form.
    pub(super) fn store<K2, V2>(
        &self,
        name: String,
        key_serde: SharedSerde<K2>,
        value_serde: SharedSerde<V2>,
    ) -> Materialized<K2, V2> {
        Materialized {
            name,
            key_serde,
            value_serde,
            key_codec: Arc::new(BytesSerde),
            value_codec: Arc::new(BytesSerde),
            persistence: self.persistence,
            durability: Durability::Derived,
            changelog: self.changelog.clone(),
            retention: None,
            history: None,
            ttl: None,
            keeps_headers: false,
            reuses_source: false,
            source_changelog: None,
        }
    }
}

impl<K, V, W> fmt::Debug for StreamJoined<K, V, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamJoined")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
