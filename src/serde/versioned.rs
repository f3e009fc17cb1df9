//! Values that say of which version their type is, and are upgraded when they are read.
//!
//! # Format
//! `0xFE ‖ 0x56 ‖ version ‖ value`, the version as a varint of seven bits per byte, least first. The
//! byte `0xFE` is in no UTF-8, so that text and JSON without a version are told apart from it. Version
//! 0 has no header: it is what was written before there were versions.
//! # Invariants
//! - What is written has the newest version; what is read may have any that there is a way from.
//! - A version that is newer than the program is an error, never a guess.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ::serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Serde, TextCodec, present};
use crate::processor::BoxError;

const MARKER: [u8; 2] = [0xFE, 0x56];

/// The versions of a value that a serde deals with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ValueVersions {
    /// The one it writes.
    pub current: u32,
    /// The oldest that it reads.
    pub oldest: u32,
}

/// Reads bytes of one version, and upgrades what is in them.
type ReadOld<V> = Arc<dyn Fn(&[u8]) -> Result<V, BoxError> + Send + Sync>;

/// A serde whose values carry a version, with a way from each older version to the newest.
///
/// For state whose type changes: a store written by an older program is opened by a newer one as it
/// is, and each value is upgraded when it is read; it is written anew when it is next changed. The same
/// holds for changelogs, restores and queries. [`then`](Self::then) adds a version, and stays in the
/// program as long as values of older ones may be in stores.
///
/// Programs that read the changelog, or took the store for plain values, see the header.
///
/// ```
/// use millstream::prelude::*;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Serialize, Deserialize)]
/// struct UserV0 {
///     name: String,
/// }
///
/// #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
/// struct User {
///     name: String,
///     visits: u32,
/// }
///
/// // The store holds JSON of `UserV0`, written before anybody thought of versions.
/// let users = VersionedValue::unversioned(serdes::json::<UserV0>())
///     .then(serdes::json(), |old| User { name: old.name, visits: 0 });
/// let read = users.deserialize(Some(br#"{"name":"ann"}"#))?;
/// assert_eq!(read, User { name: "ann".to_owned(), visits: 0 });
/// # let builder = StreamsBuilder::new();
/// let store = builder.add_state_store(StoreBuilder::as_store("users", serdes::string(), users));
/// # drop(store);
/// # Ok::<(), BoxError>(())
/// ```
pub struct VersionedValue<V> {
    current: u32,
    serde: Arc<dyn Serde<V>>,
    codec: Arc<dyn TextCodec>,
    older: BTreeMap<u32, ReadOld<V>>,
}

impl<V> Clone for VersionedValue<V> {
    fn clone(&self) -> Self {
        Self {
            current: self.current,
            serde: Arc::clone(&self.serde),
            codec: Arc::clone(&self.codec),
            older: self.older.clone(),
        }
    }
}

impl<V> fmt::Debug for VersionedValue<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VersionedValue")
            .field("versions", &self.value_versions())
            .finish_non_exhaustive()
    }
}

impl<V: 'static> VersionedValue<V> {
    /// Begins with version 0: bytes without a header, as a store without versions has them.
    ///
    /// Bytes that begin with `0xFE 0x56` are taken for a header: no text does, and of numbers only
    /// very large ones.
    pub fn unversioned(serde: impl Serde<V> + TextCodec) -> Self {
        Self::starting_at(0, serde)
    }

    /// Begins with version 1, for a store that is new.
    pub fn first(serde: impl Serde<V> + TextCodec) -> Self {
        Self::starting_at(1, serde)
    }

    /// Begins with `version`: values of older ones are not read any more.
    pub fn starting_at(version: u32, serde: impl Serde<V> + TextCodec) -> Self {
        let serde = Arc::new(serde);
        Self {
            current: version,
            codec: Arc::clone(&serde) as Arc<dyn TextCodec>,
            serde,
            older: BTreeMap::new(),
        }
    }

    /// Adds the next version: how it is written, and how a value of the version before becomes one.
    pub fn then<V2: 'static>(
        self,
        serde: impl Serde<V2> + TextCodec,
        upgrade: impl Fn(V) -> V2 + Send + Sync + 'static,
    ) -> VersionedValue<V2> {
        self.try_then(serde, move |old| Ok(upgrade(old)))
    }

    /// As [`then`](Self::then), for an upgrade that may fail: the value cannot be read then.
    pub fn try_then<V2: 'static>(
        self,
        serde: impl Serde<V2> + TextCodec,
        upgrade: impl Fn(V) -> Result<V2, BoxError> + Send + Sync + 'static,
    ) -> VersionedValue<V2> {
        let upgrade = Arc::new(upgrade);
        let through = |read: ReadOld<V>| -> ReadOld<V2> {
            let upgrade = Arc::clone(&upgrade);
            Arc::new(move |bytes| upgrade(read(bytes)?))
        };
        let before = Arc::clone(&self.serde);
        let read: ReadOld<V> = Arc::new(move |bytes| before.deserialize(Some(bytes)));
        let mut older: BTreeMap<u32, ReadOld<V2>> = self
            .older
            .into_iter()
            .map(|(version, read)| (version, through(read)))
            .collect();
        older.insert(self.current, through(read));
        VersionedValue {
            older,
            ..VersionedValue::starting_at(self.current.saturating_add(1), serde)
        }
    }
}

impl<V> VersionedValue<V> {
    fn value_versions(&self) -> ValueVersions {
        let oldest = self.older.keys().next().copied();
        ValueVersions {
            current: self.current,
            oldest: oldest.unwrap_or(self.current),
        }
    }
}

impl<V: 'static> VersionedValue<V> {
    fn read(&self, bytes: &[u8]) -> Result<V, BoxError> {
        let (version, value) = split(bytes)?;
        if version == self.current {
            return self.serde.deserialize(Some(value));
        }
        if let Some(read) = self.older.get(&version) {
            return read(value).map_err(|error| {
                format!("a value of version {version} cannot be upgraded: {error}").into()
            });
        }
        let ValueVersions { current, oldest } = self.value_versions();
        Err(match version {
            0 => format!(
                "the value carries no version, and versions {oldest} to {current} are read here; \
                 `VersionedValue::unversioned` takes it for version 0"
            ),
            newer if newer > current => format!(
                "the value has version {newer}, and {current} is the newest known here: a newer \
                 program has written it"
            ),
            older => format!(
                "the value has version {older}, and versions {oldest} to {current} are read here"
            ),
        }
        .into())
    }

    /// Appends the header of what is written.
    fn put_header(&self, out: &mut Vec<u8>) {
        if self.current == 0 {
            return;
        }
        out.extend_from_slice(&MARKER);
        let mut rest = self.current;
        loop {
            let [low, ..] = rest.to_le_bytes();
            rest >>= 7;
            if rest == 0 {
                out.push(low & 0x7f);
                return;
            }
            out.push(low | 0x80);
        }
    }
}

/// Splits bytes into version and value; what has no header is version 0.
fn split(bytes: &[u8]) -> Result<(u32, &[u8]), BoxError> {
    let Some(rest) = bytes.strip_prefix(&MARKER) else {
        return Ok((0, bytes));
    };
    let mut version = 0_u32;
    for (index, byte) in (0_u32..).zip(rest.iter().take(5)) {
        let bits = u32::from(byte & 0x7f);
        let shifted = bits.checked_mul(1 << (7 * index));
        version |= shifted.ok_or("the version of a value is out of range")?;
        if byte & 0x80 == 0 {
            let value = rest.get(index as usize + 1..).unwrap_or_default();
            return Ok((version, value));
        }
    }
    Err("the version of a value is cut short".into())
}

impl<V: 'static> Serde<V> for VersionedValue<V> {
    fn serialize(&self, data: &V, out: &mut Vec<u8>) -> Result<bool, BoxError> {
        let start = out.len();
        self.put_header(out);
        let present = self.serde.serialize(data, out)?;
        if !present {
            out.truncate(start);
        }
        Ok(present)
    }

    fn deserialize(&self, bytes: Option<&[u8]>) -> Result<V, BoxError> {
        match bytes {
            Some(bytes) => self.read(bytes),
            None => self.serde.deserialize(None),
        }
    }

    fn is_null(&self, data: &V) -> bool {
        self.serde.is_null(data)
    }
}

impl<V: 'static> TextCodec for VersionedValue<V> {
    fn parse_text(&self, text: &str) -> Result<Vec<u8>, BoxError> {
        let mut bytes = Vec::new();
        self.put_header(&mut bytes);
        bytes.extend_from_slice(&self.codec.parse_text(text)?);
        Ok(bytes)
    }

    fn to_json(&self, bytes: &[u8]) -> Result<Value, BoxError> {
        let (version, value) = split(bytes)?;
        if version == self.current {
            return self.codec.to_json(value);
        }
        let upgraded = self.read(bytes)?;
        let mut written = Vec::new();
        let present_now = self.serde.serialize(&upgraded, &mut written)?;
        self.codec
            .to_json(present(present_now.then_some(&written), "upgraded value")?)
    }

    fn versions(&self) -> Option<ValueVersions> {
        Some(self.value_versions())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serde::{i64, string};

    fn three() -> VersionedValue<String> {
        VersionedValue::unversioned(i64())
            .then(string(), |number| number.to_string())
            .try_then(string(), |text: String| match text.as_str() {
                "13" => Err("unlucky".into()),
                _ => Ok(format!("<{text}>")),
            })
    }

    #[test]
    fn each_version_is_upgraded_through_those_behind_it() {
        let serde = three();
        let read = |bytes: &[u8]| serde.deserialize(Some(bytes)).unwrap();
        assert_eq!(read(&7_i64.to_be_bytes()), "<7>");
        assert_eq!(read(b"\xfe\x56\x01seven"), "<seven>");
        assert_eq!(read(b"\xfe\x56\x02seven"), "seven");
        let mut out = Vec::new();
        assert!(serde.serialize(&"x".to_owned(), &mut out).unwrap());
        assert_eq!(out, b"\xfe\x56\x02x");
        assert_eq!(serde.to_json(b"\xfe\x56\x01a").unwrap(), Value::from("<a>"));
        assert_eq!(serde.to_json(b"\xfe\x56\x02a").unwrap(), Value::from("a"));
        let versions = ValueVersions {
            current: 2,
            oldest: 0,
        };
        assert_eq!(serde.versions(), Some(versions));
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let error = |serde: &VersionedValue<String>, bytes: &[u8]| {
            serde.deserialize(Some(bytes)).unwrap_err().to_string()
        };
        let newer = error(&three(), b"\xfe\x56\x83\x01?");
        assert!(
            newer.contains("version 131") && newer.contains("2 is the newest"),
            "{newer}"
        );
        let failed = error(&three(), &13_i64.to_be_bytes());
        assert!(
            failed.contains("version 0") && failed.contains("unlucky"),
            "{failed}"
        );
        let late = VersionedValue::starting_at(3, string());
        let plain = error(&late, b"plain");
        assert!(plain.contains("no version"), "{plain}");
        let older = error(&late, b"\xfe\x56\x02x");
        assert!(older.contains("version 2"), "{older}");
        assert!(error(&late, b"\xfe\x56\x80").contains("cut short"));
        assert!(error(&late, b"\xfe\x56\xff\xff\xff\xff\xff").contains("out of range"));
    }

    #[test]
    fn versions_of_any_size_round_trip() {
        for version in [1, 127, 128, 300, u32::MAX] {
            let serde = VersionedValue::starting_at(version, string());
            let mut out = Vec::new();
            assert!(serde.serialize(&"v".to_owned(), &mut out).unwrap());
            assert_eq!(split(&out).unwrap(), (version, &b"v"[..]));
        }
    }
}
