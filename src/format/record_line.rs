//! A record as a line of JSON: what `archive --events` shows and `replay` writes to a file and reads.
//!
//! ```text
//! {"partition":0,"offset":7,"timestamp":1735689600000,"key":"a","value":"{…}","headers":[["h","v"]]}
//! ```
//! Keys, values and headers are bytes: a JSON string where they are UTF-8, `{"base64":"…"}` otherwise. A
//! value is a string that holds its JSON, not JSON in JSON: it comes back byte for byte. Absent is null.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::log::{Headers, Offset};
use crate::sink::SinkRecord;

/// Bytes in JSON: text, or base64 of what is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Bytes {
    /// UTF-8.
    Text(String),
    /// Anything else.
    Other {
        /// In the standard alphabet, padded.
        base64: String,
    },
}

impl Bytes {
    /// Shows bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Other {
                base64: STANDARD.encode(bytes),
            },
        }
    }

    /// Returns the bytes.
    ///
    /// # Errors
    /// In words, when what calls itself base64 is none.
    pub fn into_bytes(self) -> Result<Vec<u8>, String> {
        match self {
            Self::Text(text) => Ok(text.into_bytes()),
            Self::Other { base64 } => STANDARD.decode(base64).map_err(|error| error.to_string()),
        }
    }
}

/// A record and the partition that it was in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordLine {
    /// The partition.
    pub partition: i32,
    offset: Offset,
    timestamp: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<Bytes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Bytes>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, Option<Bytes>)>,
}

impl RecordLine {
    /// Makes the line of a record.
    #[must_use]
    pub fn of(partition: i32, record: &SinkRecord) -> Self {
        let headers = record.headers.iter();
        Self {
            partition,
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.as_deref().map(Bytes::of),
            value: record.value.as_deref().map(Bytes::of),
            headers: headers
                .map(|(name, value)| (name.to_owned(), value.map(Bytes::of)))
                .collect(),
        }
    }

    /// Returns the record.
    ///
    /// # Errors
    /// In words, when what calls itself base64 is none.
    pub fn into_record(self) -> Result<SinkRecord, String> {
        let mut headers = Headers::new();
        for (name, value) in self.headers {
            headers.push(name, value.map(Bytes::into_bytes).transpose()?);
        }
        Ok(SinkRecord {
            offset: self.offset,
            timestamp: self.timestamp,
            key: self.key.map(Bytes::into_bytes).transpose()?,
            value: self.value.map(Bytes::into_bytes).transpose()?,
            headers,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_byte_for_byte() {
        let mut headers = Headers::new().with("text", "é");
        headers.push("bytes", Some(vec![0xff, 0]));
        headers.push("none", None);
        for (key, value) in [
            (Some(b"k".to_vec()), Some(b"{\"a\": 1}".to_vec())),
            (None, Some(vec![0xff])),
            (Some(Vec::new()), None),
        ] {
            let record = SinkRecord {
                offset: 7,
                timestamp: 1_000,
                key,
                value,
                headers: headers.clone(),
            };
            let line = serde_json::to_string(&RecordLine::of(3, &record)).unwrap();
            let back: RecordLine = serde_json::from_str(&line).unwrap();
            assert_eq!(back.partition, 3);
            assert_eq!(back.into_record(), Ok(record), "{line}");
        }
    }

    #[test]
    fn what_is_no_line_of_ours_is_refused() {
        for line in [
            r#"{"offset":1,"timestamp":2}"#,
            r#"{"partition":0,"offset":1,"timestamp":2,"colour":"red"}"#,
        ] {
            assert!(serde_json::from_str::<RecordLine>(line).is_err(), "{line}");
        }
        let line = r#"{"partition":0,"offset":1,"timestamp":2,"key":{"base64":"!"}}"#;
        let line: RecordLine = serde_json::from_str(line).unwrap();
        assert!(line.into_record().is_err());
    }
}
