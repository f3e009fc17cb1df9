//! Null keys and values: which records an operator has no use for.
//!
//! In Kafka Streams any key or value may be null, and operators that cannot use one drop the record and
//! count it (`dropped-records`). Here null is a value of the types that have one: what
//! [`serdes::optional`](crate::serde::optional) reads. A type without null never gets this far, since
//! its source cannot read one.

use super::config::SharedSerde;

/// Knows which keys and values are null. A field whose serde is unknown was made by an operator and
/// has none.
pub(crate) struct Nulls<K, V> {
    key_serde: Option<SharedSerde<K>>,
    value_serde: Option<SharedSerde<V>>,
}

impl<K, V> Clone for Nulls<K, V> {
    fn clone(&self) -> Self {
        Self {
            key_serde: self.key_serde.clone(),
            value_serde: self.value_serde.clone(),
        }
    }
}

impl<K: 'static, V: 'static> Nulls<K, V> {
    pub(crate) const fn new(
        key_serde: Option<SharedSerde<K>>,
        value_serde: Option<SharedSerde<V>>,
    ) -> Self {
        Self {
            key_serde,
            value_serde,
        }
    }

    #[inline]
    pub(crate) fn is_key(&self, key: &K) -> bool {
        self.key_serde
            .as_ref()
            .is_some_and(|serde| serde.is_null(key))
    }

    #[inline]
    pub(crate) fn is_value(&self, value: &V) -> bool {
        self.value_serde
            .as_ref()
            .is_some_and(|serde| serde.is_null(value))
    }
}
