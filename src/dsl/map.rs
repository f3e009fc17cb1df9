//! Stateless operators of [`KStream`] that change records: `map`, `select_key` and their kind.

use super::stream::{KStream, Keeps};
use crate::processor::{BoxError, Record};

impl<K: Clone + 'static, V: Clone + 'static> KStream<K, V> {
    /// Gives every record another key and value. The stream is repartitioned before the next
    /// grouping; prefer [`map_values`](Self::map_values) where the key stays.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let words = builder.stream("words", Consumed::with(serdes::string(), serdes::string()));
    /// let by_length = words.map(|_, word| (word.len() as i64, word));
    /// # by_length.to("out", Produced::with(serdes::i64(), serdes::string()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn map<K2, V2>(
        &self,
        mapper: impl Fn(K, V) -> (K2, V2) + Send + Sync + 'static,
    ) -> KStream<K2, V2>
    where
        K2: Clone + 'static,
        V2: Clone + 'static,
    {
        self.try_map(move |key, value| Ok(mapper(key, value)))
    }

    /// As [`map`](Self::map); an error meets the source's policy.
    pub fn try_map<K2, V2>(
        &self,
        mapper: impl Fn(K, V) -> Result<(K2, V2), BoxError> + Send + Sync + 'static,
    ) -> KStream<K2, V2>
    where
        K2: Clone + 'static,
        V2: Clone + 'static,
    {
        self.operator(
            "KSTREAM-MAP-",
            Self::keeps_nothing(),
            move |scope, record| {
                let Record {
                    key,
                    value,
                    timestamp,
                    headers,
                } = record;
                let (key, value) = mapper(key, value).map_err(|error| scope.failure(error))?;
                scope.forward(Record {
                    key,
                    value,
                    timestamp,
                    headers,
                })
            },
        )
    }

    /// Gives every record another value.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let words = builder.stream("words", Consumed::with(serdes::string(), serdes::string()));
    /// let lengths = words.map_values(|word| word.len() as i64);
    /// # lengths.to("out", Produced::with(serdes::string(), serdes::i64()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn map_values<V2: Clone + 'static>(
        &self,
        mapper: impl Fn(V) -> V2 + Send + Sync + 'static,
    ) -> KStream<K, V2> {
        self.try_map_values(move |value| Ok(mapper(value)))
    }

    /// As [`map_values`](Self::map_values); the mapper sees the key.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let words = builder.stream("words", Consumed::with(serdes::string(), serdes::string()));
    /// let both = words.map_values_with_key(|key, word| format!("{key}: {word}"));
    /// # both.to("out", Produced::with(serdes::string(), serdes::string()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn map_values_with_key<V2: Clone + 'static>(
        &self,
        mapper: impl Fn(&K, V) -> V2 + Send + Sync + 'static,
    ) -> KStream<K, V2> {
        self.try_map_values_with_key(move |key, value| Ok(mapper(key, value)))
    }

    /// As [`map_values`](Self::map_values); an error meets the source's policy.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let words = builder.stream("words", Consumed::with(serdes::string(), serdes::string()));
    /// let numbers = words.try_map_values(|word| Ok(word.parse::<i64>()?));
    /// # numbers.to("out", Produced::with(serdes::string(), serdes::i64()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn try_map_values<V2: Clone + 'static>(
        &self,
        mapper: impl Fn(V) -> Result<V2, BoxError> + Send + Sync + 'static,
    ) -> KStream<K, V2> {
        self.try_map_values_with_key(move |_, value| mapper(value))
    }

    /// As [`map_values_with_key`](Self::map_values_with_key); an error meets the source's policy.
    pub fn try_map_values_with_key<V2: Clone + 'static>(
        &self,
        mapper: impl Fn(&K, V) -> Result<V2, BoxError> + Send + Sync + 'static,
    ) -> KStream<K, V2> {
        self.operator(
            "KSTREAM-MAPVALUES-",
            self.keeps_key(),
            move |scope, record| {
                let Record {
                    key,
                    value,
                    timestamp,
                    headers,
                } = record;
                let value = mapper(&key, value).map_err(|error| scope.failure(error))?;
                scope.forward(Record {
                    key,
                    value,
                    timestamp,
                    headers,
                })
            },
        )
    }

    /// Rewrites whole records: key, value, timestamp and headers. Stores downstream write with the
    /// new timestamp. Counts as a change of the key.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let words = builder.stream("words", Consumed::with(serdes::string(), serdes::string()));
    /// let marked = words.map_records(|mut record| {
    ///     record.headers.push("seen", None);
    ///     record
    /// });
    /// # marked.to("out", Produced::with(serdes::string(), serdes::string()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn map_records<K2, V2>(
        &self,
        mapper: impl Fn(Record<K, V>) -> Record<K2, V2> + Send + Sync + 'static,
    ) -> KStream<K2, V2>
    where
        K2: Clone + 'static,
        V2: Clone + 'static,
    {
        self.try_map_records(move |record| Ok(mapper(record)))
    }

    /// As [`map_records`](Self::map_records); an error meets the source's policy.
    pub fn try_map_records<K2, V2>(
        &self,
        mapper: impl Fn(Record<K, V>) -> Result<Record<K2, V2>, BoxError> + Send + Sync + 'static,
    ) -> KStream<K2, V2>
    where
        K2: Clone + 'static,
        V2: Clone + 'static,
    {
        self.operator(
            "KSTREAM-MAP-",
            Self::keeps_nothing(),
            move |scope, record| {
                let record = mapper(record).map_err(|error| scope.failure(error))?;
                scope.forward_at(record)
            },
        )
    }

    /// Gives every record another key, made from key and value.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let words = builder.stream("words", Consumed::with(serdes::string(), serdes::string()));
    /// let by_word = words.select_key(|_, word| word.clone());
    /// # by_word.to("out", Produced::with(serdes::string(), serdes::string()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn select_key<K2: Clone + 'static>(
        &self,
        selector: impl Fn(&K, &V) -> K2 + Send + Sync + 'static,
    ) -> KStream<K2, V> {
        self.try_select_key(move |key, value| Ok(selector(key, value)))
    }

    /// As [`select_key`](Self::select_key); an error meets the source's policy.
    pub fn try_select_key<K2: Clone + 'static>(
        &self,
        selector: impl Fn(&K, &V) -> Result<K2, BoxError> + Send + Sync + 'static,
    ) -> KStream<K2, V> {
        let keeps = Keeps {
            value_serde: self.parts.value_serde.clone(),
            ..Self::keeps_nothing()
        };
        self.operator("KSTREAM-KEY-SELECT-", keeps, move |scope, record| {
            let key = selector(&record.key, &record.value);
            let key = key.map_err(|error| scope.failure(error))?;
            scope.forward(record.with_key(key))
        })
    }
}
