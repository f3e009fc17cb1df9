//! Operators of [`KStream`] for their side effects.

use super::stream::KStream;
use crate::processor::BoxError;

impl<K: Clone + 'static, V: Clone + 'static> KStream<K, V> {
    /// Looks at every record and passes it on. What `action` does is not undone when the record is.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let words = builder.stream("words", Consumed::with(serdes::string(), serdes::string()));
    /// let watched = words.peek(|key, word| eprintln!("{key}: {word}"));
    /// # watched.to("out", Produced::with(serdes::string(), serdes::string()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    #[expect(
        clippy::return_self_not_must_use,
        reason = "the side effect is the point: the stream may end here"
    )]
    pub fn peek(&self, action: impl Fn(&K, &V) + Send + Sync + 'static) -> Self {
        self.operator("KSTREAM-PEEK-", self.keeps_all(), move |scope, record| {
            action(&record.key, &record.value);
            scope.forward(record)
        })
    }

    /// Ends the stream with an action per record. What `action` does is not undone when the record
    /// is.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// # let builder = StreamsBuilder::new();
    /// # let words = builder.stream("words", Consumed::with(serdes::string(), serdes::string()));
    /// words.for_each(|key, word| eprintln!("{key}: {word}"));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn for_each(&self, action: impl Fn(K, V) + Send + Sync + 'static) {
        self.try_for_each(move |key, value| {
            action(key, value);
            Ok(())
        });
    }

    /// As [`for_each`](Self::for_each); an error meets the source's policy.
    pub fn try_for_each(
        &self,
        action: impl Fn(K, V) -> Result<(), BoxError> + Send + Sync + 'static,
    ) {
        let _end: Self = self.operator(
            "KSTREAM-FOREACH-",
            self.keeps_all(),
            move |scope, record| {
                action(record.key, record.value).map_err(|error| scope.failure(error))
            },
        );
    }
}
