//! How an update of a table travels through a repartition topic.

use std::sync::Arc;

use super::config::SharedSerde;
use super::table::Change;
use crate::format::change::{self, Sides};
use crate::processor::BoxError;
use crate::serde::Serde;

/// The serde of a [`Change`], made of its values'.
pub(crate) struct ChangeSerde<V>(pub(crate) SharedSerde<V>);

impl<V: 'static> Serde<Change<V>> for ChangeSerde<V> {
    fn serialize(&self, data: &Change<V>, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        let bytes = |side: &Option<V>| -> Result<Option<Vec<u8>>, BoxError> {
            let mut bytes = Vec::new();
            let present = match side {
                Some(value) => self.0.serialize(value, &mut bytes)?,
                None => false,
            };
            Ok(present.then_some(bytes))
        };
        let (new, old) = (bytes(&data.new)?, bytes(&data.old)?);
        Ok(change::encode(new.as_deref(), old.as_deref(), out))
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<Change<V>, BoxError> {
        let Sides { new, old } = change::decode(bytes.ok_or("null is no change of a table")?)?;
        let value = |side: Option<&[u8]>| {
            side.map(|bytes| self.0.deserialize(Some(bytes)))
                .transpose()
        };
        Ok(Change {
            new: value(new)?,
            old: value(old)?,
        })
    }
}

/// Returns the serde of a table's updates.
pub(crate) fn change_serde<V: 'static>(value_serde: &SharedSerde<V>) -> SharedSerde<Change<V>> {
    Arc::new(ChangeSerde(Arc::clone(value_serde)))
}
