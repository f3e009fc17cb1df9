//! Headers kept in state (KIP-1271): values with the headers of the record that brought them.
//!
//! In the changelog the value is plain and the headers are the record's, as in Kafka Streams.

use std::sync::Arc;

use super::config::{Materialized, SharedSerde};
use super::stream::KStream;
use crate::format::with_headers::{put_headers, split};
use crate::log::Headers;
use crate::processor::{BoxError, Record};
use crate::serde::{Serde, TextCodec, ValueVersions};

/// A value with the headers of the record that brought it. Kafka Streams' `ValueTimestampHeaders`; the
/// timestamp is the store's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WithHeaders<V> {
    /// The value.
    pub value: V,
    /// The headers.
    pub headers: Headers,
}

impl<V> WithHeaders<V> {
    /// Puts both together.
    #[must_use]
    pub const fn new(value: V, headers: Headers) -> Self {
        Self { value, headers }
    }
}

/// For tables of a stream with null values: a null deletes, whatever its headers.
impl<V> From<WithHeaders<Option<V>>> for Option<WithHeaders<V>> {
    fn from(nullable: WithHeaders<Option<V>>) -> Self {
        let WithHeaders { value, headers } = nullable;
        value.map(|value| WithHeaders { value, headers })
    }
}

impl<K: Clone + 'static, V: Clone + 'static> KStream<K, V> {
    /// Puts each record's headers beside its value, so that tables and aggregates can keep them. The
    /// record goes on with its headers as well.
    ///
    /// ```
    /// use millstream::prelude::*;
    /// use millstream::testing::TopologyTestDriver;
    ///
    /// let builder = StreamsBuilder::new();
    /// let text = || serdes::string();
    /// builder
    ///     .stream("users", Consumed::with(text(), text()))
    ///     .with_headers()
    ///     .to_table::<WithHeaders<String>>(Materialized::with_headers("users", text(), text()));
    ///
    /// let mut driver = TopologyTestDriver::new(builder.build()?)?;
    /// let users = driver.input_topic("users", text(), text());
    /// let mut record = Record::new("1".to_owned(), "Ann".to_owned(), 0);
    /// record.headers = Headers::new().with("source", "crm");
    /// users.pipe_record(&mut driver, &record)?;
    /// let stored = driver.store_value("users", "1")?.unwrap_or_default();
    /// assert_eq!(stored["value"], "Ann");
    /// assert_eq!(stored["headers"][0]["name"], "source");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use = "mapping has no effect of its own"]
    pub fn with_headers(&self) -> KStream<K, WithHeaders<V>> {
        self.operator(
            "KSTREAM-WITH-HEADERS-",
            self.keeps_key(),
            move |scope, record| {
                let Record {
                    key,
                    value,
                    timestamp,
                    headers,
                } = record;
                let value = WithHeaders::new(value, headers.clone());
                scope.forward(Record {
                    key,
                    value,
                    timestamp,
                    headers,
                })
            },
        )
    }
}

impl<K, V: 'static> Materialized<K, WithHeaders<V>> {
    /// Names a store whose values keep headers, as [`as_store`](Self::as_store) does others. Kafka Streams'
    /// `persistentTimestampedKeyValueStoreWithHeaders`, for windows and sessions as well; versioned and
    /// custom stores keep none.
    ///
    /// Queries answer `{"headers": [{"name", "value"}], "value"}`, a header's value as text where it is
    /// UTF-8, and otherwise as an array of bytes.
    ///
    /// ```
    /// # use millstream::prelude::*;
    /// struct Latest(StoreRef<String, WithHeaders<String>>);
    ///
    /// impl Processor<String, String, String, String> for Latest {
    ///     fn process(
    ///         &mut self,
    ///         context: &mut ProcessorContext<'_, String, String>,
    ///         record: Record<String, String>,
    ///     ) -> Result<(), BoxError> {
    ///         let kept = WithHeaders::new(record.value.clone(), record.headers.clone());
    ///         self.0.put(record.key.clone(), kept)?;
    ///         Ok(context.forward(record)?)
    ///     }
    /// }
    ///
    /// let builder = StreamsBuilder::new();
    /// let latest = builder.add_state_store(StoreBuilder::with_headers(
    ///     "latest",
    ///     serdes::string(),
    ///     serdes::string(),
    /// ));
    /// builder
    ///     .stream("words", Consumed::with(serdes::string(), serdes::string()))
    ///     .process("latest", (&latest,), |_setup, (latest,)| Latest(latest))
    ///     .to("out", Produced::with(serdes::string(), serdes::string()));
    /// # builder.build()?;
    /// # Ok::<(), TopologyErrors>(())
    /// ```
    pub fn with_headers(
        name: impl Into<String>,
        key_serde: impl Serde<K> + TextCodec,
        value_serde: impl Serde<V> + TextCodec,
    ) -> Self {
        let value = Arc::new(value_serde);
        let value_serde = HeadersSerde {
            codec: Arc::clone(&value) as Arc<dyn TextCodec>,
            serde: value,
        };
        let mut store = Self::as_store(name, key_serde, value_serde);
        store.keeps_headers = true;
        store
    }
}

/// The local form. Not public: in a topic it would be mistaken for the value.
struct HeadersSerde<V> {
    serde: SharedSerde<V>,
    codec: Arc<dyn TextCodec>,
}

impl<V> std::fmt::Debug for HeadersSerde<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HeadersSerde").field(&self.codec).finish()
    }
}

impl<V: 'static> Serde<WithHeaders<V>> for HeadersSerde<V> {
    fn serialize(&self, data: &WithHeaders<V>, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        put_headers(out, &data.headers);
        self.serde.serialize(&data.value, out)
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<WithHeaders<V>, BoxError> {
        let bytes = bytes.ok_or("a value with headers is null")?;
        let (headers, plain) = split(bytes)?;
        let value = self.serde.deserialize(Some(plain))?;
        Ok(WithHeaders { value, headers })
    }

    fn is_null(&self, data: &WithHeaders<V>) -> bool {
        self.serde.is_null(&data.value)
    }
}

impl<V: 'static> TextCodec for HeadersSerde<V> {
    fn parse_text(&self, _text: &str) -> Result<Vec<u8>, BoxError> {
        Err("a value with headers is no key".into())
    }

    fn to_json(&self, bytes: &[u8]) -> Result<serde_json::Value, BoxError> {
        let (headers, plain) = split(bytes)?;
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| {
                let value = value.map(|bytes| match std::str::from_utf8(bytes) {
                    Ok(text) => serde_json::Value::from(text),
                    Err(_) => serde_json::Value::from(bytes),
                });
                serde_json::json!({"name": name, "value": value})
            })
            .collect();
        Ok(serde_json::json!({"headers": headers, "value": self.codec.to_json(plain)?}))
    }

    fn versions(&self) -> Option<ValueVersions> {
        self.codec.versions()
    }
}
