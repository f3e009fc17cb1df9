//! Rows of an aggregate that have names: a day of an account, a board of a flight leg.

use serde_json::{Value, json};

use crate::processor::BoxError;
use crate::serde::{Serde, TextCodec};

/// The key of a row that an aggregate has several of, by their names.
///
/// ```text
/// aggregate id (UTF-8, no U+0000) ‖ 0x00 ‖ name (UTF-8)
/// ```
/// In text, for queries, the last `@` parts the two: `account-1@2025-12-09`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartKey {
    /// The aggregate.
    pub aggregate_id: String,
    /// The name, unique per aggregate.
    pub part: String,
}

impl PartKey {
    /// Creates a key.
    #[must_use]
    pub fn new(aggregate_id: impl Into<String>, part: impl Into<String>) -> Self {
        Self {
            aggregate_id: aggregate_id.into(),
            part: part.into(),
        }
    }
}

/// The serde of [`PartKey`].
#[derive(Debug, Clone, Copy, Default)]
pub struct PartKeySerde;

impl Serde<PartKey> for PartKeySerde {
    fn serialize(&self, key: &PartKey, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        out.extend_from_slice(key.aggregate_id.as_bytes());
        out.push(0);
        out.extend_from_slice(key.part.as_bytes());
        Ok(true)
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<PartKey, BoxError> {
        let text = std::str::from_utf8(bytes.ok_or("a row's key is null")?)?;
        let (aggregate_id, part) = text
            .split_once('\0')
            .ok_or("a row's key has no separator")?;
        Ok(PartKey::new(aggregate_id, part))
    }

    fn base_key<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        aggregate_id(key)
    }
}

impl TextCodec for PartKeySerde {
    fn parse_text(&self, text: &str) -> Result<Vec<u8>, BoxError> {
        let (aggregate_id, part) = text
            .rsplit_once('@')
            .filter(|(id, _)| !id.is_empty() && !id.contains('\0'))
            .ok_or_else(|| format!("`{text}` has no form `<aggregate id>@<name>`"))?;
        let mut bytes = Vec::new();
        self.serialize(&PartKey::new(aggregate_id, part), &mut bytes)?;
        Ok(bytes)
    }

    fn to_json(&self, bytes: &[u8]) -> Result<Value, BoxError> {
        let PartKey { aggregate_id, part } = self.deserialize(Some(bytes))?;
        Ok(json!(format!("{aggregate_id}@{part}")))
    }

    fn partition_key<'a>(&self, key: &'a [u8]) -> &'a [u8] {
        aggregate_id(key)
    }
}

fn aggregate_id(key: &[u8]) -> &[u8] {
    key.split(|byte| *byte == 0).next().unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_an_aggregate_lie_together_and_have_a_text_form() {
        let bytes = |id: &str, part: &str| {
            let mut bytes = Vec::new();
            PartKeySerde
                .serialize(&PartKey::new(id, part), &mut bytes)
                .unwrap();
            bytes
        };
        assert_eq!(
            PartKeySerde.parse_text("a@b@2025-12-09").unwrap(),
            bytes("a@b", "2025-12-09")
        );
        assert_eq!(
            PartKeySerde.to_json(&bytes("a", "x")).unwrap(),
            json!("a@x")
        );
        assert_eq!(PartKeySerde.partition_key(&bytes("a", "x")), b"a");
        let mut keys = [bytes("ab", ""), bytes("a", "z"), bytes("a", "b")];
        keys.sort();
        assert_eq!(keys, [bytes("a", "b"), bytes("a", "z"), bytes("ab", "")]);
        assert!(PartKeySerde.parse_text("a").is_err());
    }
}
