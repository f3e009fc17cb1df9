//! Stateless operators of [`KStream`] that turn a record into none, one or several.

use super::stream::KStream;
use crate::processor::{BoxError, Record};

impl<K: Clone + 'static, V: Clone + 'static> KStream<K, V> {
    /// Keeps the records for which the predicate holds.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let words = builder.stream("words", Consumed::with(serdes::string(), serdes::string()));
    /// let long = words.filter(|_, word| word.len() > 10);
    /// # long.to("out", Produced::with(serdes::string(), serdes::string()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "filtering a stream has no effect of its own"]
    pub fn filter(&self, predicate: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Self {
        self.try_filter(move |key, value| Ok(predicate(key, value)))
    }

    /// Drops the records for which the predicate holds.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let words = builder.stream("words", Consumed::with(serdes::string(), serdes::string()));
    /// let named = words.filter_not(|_, word| word.is_empty());
    /// # named.to("out", Produced::with(serdes::string(), serdes::string()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[must_use = "filtering a stream has no effect of its own"]
    pub fn filter_not(&self, predicate: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Self {
        self.try_filter(move |key, value| Ok(!predicate(key, value)))
    }

    /// As [`filter`](Self::filter); an error meets the source's policy.
    #[must_use = "filtering a stream has no effect of its own"]
    pub fn try_filter(
        &self,
        predicate: impl Fn(&K, &V) -> Result<bool, BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.operator("KSTREAM-FILTER-", self.keeps_all(), move |scope, record| {
            let keep = predicate(&record.key, &record.value);
            if keep.map_err(|error| scope.failure(error))? {
                scope.forward(record)
            } else {
                Ok(())
            }
        })
    }

    /// Maps and filters in one step: `None` drops the record. The key may change.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let words = builder.stream("words", Consumed::with(serdes::string(), serdes::string()));
    /// let numbers = words.filter_map(|key, word| Some((key, word.parse::<i64>().ok()?)));
    /// # numbers.to("out", Produced::with(serdes::string(), serdes::i64()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn filter_map<K2, V2>(
        &self,
        mapper: impl Fn(K, V) -> Option<(K2, V2)> + Send + Sync + 'static,
    ) -> KStream<K2, V2>
    where
        K2: Clone + 'static,
        V2: Clone + 'static,
    {
        self.flat_map(mapper)
    }

    /// As [`filter_map`](Self::filter_map); an error meets the source's policy.
    pub fn try_filter_map<K2, V2>(
        &self,
        mapper: impl Fn(K, V) -> Result<Option<(K2, V2)>, BoxError> + Send + Sync + 'static,
    ) -> KStream<K2, V2>
    where
        K2: Clone + 'static,
        V2: Clone + 'static,
    {
        self.try_flat_map(mapper)
    }

    /// Turns every record into none, one or several, forwarded in order.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let words = builder.stream("words", Consumed::with(serdes::string(), serdes::string()));
    /// let both = words.flat_map(|key, word| [(key.clone(), word.clone()), (word, key)]);
    /// # both.to("out", Produced::with(serdes::string(), serdes::string()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn flat_map<K2, V2, I>(
        &self,
        mapper: impl Fn(K, V) -> I + Send + Sync + 'static,
    ) -> KStream<K2, V2>
    where
        K2: Clone + 'static,
        V2: Clone + 'static,
        I: IntoIterator<Item = (K2, V2)>,
    {
        self.try_flat_map(move |key, value| Ok(mapper(key, value)))
    }

    /// As [`flat_map`](Self::flat_map); an error meets the source's policy.
    pub fn try_flat_map<K2, V2, I>(
        &self,
        mapper: impl Fn(K, V) -> Result<I, BoxError> + Send + Sync + 'static,
    ) -> KStream<K2, V2>
    where
        K2: Clone + 'static,
        V2: Clone + 'static,
        I: IntoIterator<Item = (K2, V2)>,
    {
        self.operator(
            "KSTREAM-FLATMAP-",
            Self::keeps_nothing(),
            move |scope, record| {
                let Record {
                    key,
                    value,
                    timestamp,
                    headers,
                } = record;
                let results = mapper(key, value).map_err(|error| scope.failure(error))?;
                for (key, value) in results {
                    scope.forward(Record {
                        key,
                        value,
                        timestamp,
                        headers: headers.clone(),
                    })?;
                }
                Ok(())
            },
        )
    }

    /// Turns every value into none, one or several under the same key, forwarded in order.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let words = builder.stream("words", Consumed::with(serdes::string(), serdes::string()));
    /// let letters = words.flat_map_values(|word| {
    ///     word.chars().map(String::from).collect::<Vec<_>>()
    /// });
    /// # letters.to("out", Produced::with(serdes::string(), serdes::string()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn flat_map_values<V2, I>(
        &self,
        mapper: impl Fn(V) -> I + Send + Sync + 'static,
    ) -> KStream<K, V2>
    where
        V2: Clone + 'static,
        I: IntoIterator<Item = V2>,
    {
        self.try_flat_map_values(move |value| Ok(mapper(value)))
    }

    /// As [`flat_map_values`](Self::flat_map_values); an error meets the source's policy.
    pub fn try_flat_map_values<V2, I>(
        &self,
        mapper: impl Fn(V) -> Result<I, BoxError> + Send + Sync + 'static,
    ) -> KStream<K, V2>
    where
        V2: Clone + 'static,
        I: IntoIterator<Item = V2>,
    {
        self.operator(
            "KSTREAM-FLATMAPVALUES-",
            self.keeps_key(),
            move |scope, record| {
                let Record {
                    key,
                    value,
                    timestamp,
                    headers,
                } = record;
                let results = mapper(value).map_err(|error| scope.failure(error))?;
                for value in results {
                    let (key, headers) = (key.clone(), headers.clone());
                    scope.forward(Record {
                        key,
                        value,
                        timestamp,
                        headers,
                    })?;
                }
                Ok(())
            },
        )
    }
}
