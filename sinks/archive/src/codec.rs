//! A file: lines of JSON, compressed with zstd. The first says what it is, each of the others is a
//! record. `zstdcat FILE | jq` shows it.
//!
//! Keys, values and headers are bytes: where they are UTF-8 they are JSON strings, otherwise base64 in
//! a field of its own. A value is a string that holds its JSON, not JSON in JSON: it comes back byte
//! for byte.

use millstream::format::record_line::Bytes;
use millstream::log::{Headers, Offset};
use millstream::sink::SinkRecord;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::manifest::FileEntry;

/// What a file calls itself.
const FORMAT: &str = "millstream-archive";
/// The version that is written; no other is read.
const VERSION: u32 = 1;
/// The most that a file may hold, so that a damaged size asks for no memory.
const CONTENT_MAX: u64 = 4 << 30;

/// What the first line says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Heading {
    format: String,
    version: u32,
    pub(crate) topic: String,
    pub(crate) topic_id: String,
    pub(crate) partition: i32,
    pub(crate) first_offset: Offset,
    pub(crate) end_offset: Offset,
    pub(crate) records: u64,
}

#[derive(Serialize, Deserialize)]
struct Line {
    offset: Offset,
    timestamp: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<Bytes>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Bytes>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, Option<Bytes>)>,
}

/// Where records come from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub(crate) topic: &'a str,
    pub(crate) topic_id: &'a str,
    pub(crate) partition: i32,
}

/// A file to be written, and what the manifest says of it.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) entry: FileEntry,
    pub(crate) compressed: Vec<u8>,
}

/// Returns the name of the file that begins at an offset. Its end is not in it: of two processes that
/// archive from one offset to different ends only one can create the file.
pub(crate) fn file_name(first: Offset) -> String {
    format!("{first:020}.ndjson.zst")
}

/// Makes the file of a range; the same records always make the same content.
pub(crate) fn encode(
    origin: Origin<'_>,
    (first_offset, end_offset): (Offset, Offset),
    records: &[SinkRecord],
    level: i32,
) -> Result<Encoded, String> {
    let heading = Heading {
        format: FORMAT.to_owned(),
        version: VERSION,
        topic: origin.topic.to_owned(),
        topic_id: origin.topic_id.to_owned(),
        partition: origin.partition,
        first_offset,
        end_offset,
        records: u64::try_from(records.len()).unwrap_or(u64::MAX),
    };
    let mut content = Vec::new();
    push_line(&mut content, &heading)?;
    for record in records {
        let headers = record.headers.iter();
        let line = Line {
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.as_deref().map(Bytes::of),
            value: record.value.as_deref().map(Bytes::of),
            headers: headers
                .map(|(key, value)| (key.to_owned(), value.map(Bytes::of)))
                .collect(),
        };
        push_line(&mut content, &line)?;
    }
    let mut compressed = vec![0; zstd_safe::compress_bound(content.len())];
    let written =
        zstd_safe::compress(compressed.as_mut_slice(), &content, level).map_err(zstd_error)?;
    compressed.truncate(written);
    let entry = entry_of(&heading, records, &content, compressed.len())?;
    Ok(Encoded { entry, compressed })
}

fn push_line(content: &mut Vec<u8>, line: &impl Serialize) -> Result<(), String> {
    serde_json::to_writer(&mut *content, line).map_err(|error| error.to_string())?;
    content.push(b'\n');
    Ok(())
}

fn entry_of(
    heading: &Heading,
    records: &[SinkRecord],
    content: &[u8],
    compressed: usize,
) -> Result<FileEntry, String> {
    let timestamps = || records.iter().map(|record| record.timestamp);
    let (Some(min_timestamp), Some(max_timestamp)) = (timestamps().min(), timestamps().max())
    else {
        return Err("has no records".to_owned());
    };
    let digest = Sha256::digest(content);
    Ok(FileEntry {
        name: file_name(heading.first_offset),
        first_offset: heading.first_offset,
        end_offset: heading.end_offset,
        records: heading.records,
        min_timestamp,
        max_timestamp,
        compressed_bytes: u64::try_from(compressed).unwrap_or(u64::MAX),
        bytes: u64::try_from(content.len()).unwrap_or(u64::MAX),
        sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
    })
}

/// Reads a file and checks it against itself; returns also what a manifest is to say of it.
pub(crate) fn decode(compressed: &[u8]) -> Result<(Heading, Vec<SinkRecord>, FileEntry), String> {
    let content = decompress(compressed)?;
    let mut lines = content.split_inclusive(|byte| *byte == b'\n');
    let first = lines.next().ok_or("is empty")?;
    let heading: Heading =
        serde_json::from_slice(first).map_err(|error| format!("heading: {error}"))?;
    if heading.format != FORMAT || heading.version != VERSION {
        return Err(format!(
            "is `{}` version {}, and this program reads `{FORMAT}` version {VERSION}",
            heading.format, heading.version
        ));
    }
    let mut records = Vec::new();
    let mut at = heading.first_offset;
    for (line, number) in lines.zip(2_u64..) {
        let record = parse_line(line).map_err(|error| format!("line {number}: {error}"))?;
        if record.offset < at || record.offset >= heading.end_offset {
            return Err(format!(
                "line {number}: offset {} is out of place",
                record.offset
            ));
        }
        at = record.offset + 1;
        records.push(record);
    }
    let found = u64::try_from(records.len()).unwrap_or(u64::MAX);
    if found != heading.records {
        return Err(format!("has {found} records of {}", heading.records));
    }
    let entry = entry_of(&heading, &records, &content, compressed.len())?;
    Ok((heading, records, entry))
}

fn parse_line(line: &[u8]) -> Result<SinkRecord, String> {
    let line: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let mut headers = Headers::new();
    for (key, value) in line.headers {
        headers.push(key, value.map(Bytes::into_bytes).transpose()?);
    }
    Ok(SinkRecord {
        offset: line.offset,
        timestamp: line.timestamp,
        key: line.key.map(Bytes::into_bytes).transpose()?,
        value: line.value.map(Bytes::into_bytes).transpose()?,
        headers,
    })
}

fn decompress(compressed: &[u8]) -> Result<Vec<u8>, String> {
    let size = zstd_safe::get_frame_content_size(compressed).ok().flatten();
    let size = size.filter(|size| *size <= CONTENT_MAX);
    let size = size.and_then(|size| usize::try_from(size).ok());
    let size = size.ok_or("is no whole zstd frame of a known size")?;
    let mut content = vec![0; size];
    let written = zstd_safe::decompress(content.as_mut_slice(), compressed).map_err(zstd_error)?;
    content.truncate(written);
    Ok(content)
}

fn zstd_error(code: usize) -> String {
    format!("zstd: {}", zstd_safe::get_error_name(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Origin<'static> = Origin {
        topic: "events",
        topic_id: "0a",
        partition: 2,
    };

    fn records() -> Vec<SinkRecord> {
        let record = |offset, key: Option<&[u8]>, value: Option<&[u8]>| SinkRecord {
            offset,
            timestamp: 1_000 - offset,
            key: key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
            headers: Headers::new(),
        };
        let mut records = vec![
            record(10, Some(b"a"), Some(b"{\"x\": 1.50,\n \"y\":\"\\u00e9\"}")),
            record(12, Some(b"a"), None),
            record(15, None, Some(&[0xff, 0x00, 0xfe])),
            record(16, Some(b""), Some(b"")),
        ];
        records[0]
            .headers
            .push("eventType", Some(b"Created".to_vec()));
        records[0].headers.push("trace", None);
        records[0].headers.push("raw", Some(vec![0x80]));
        records
    }

    #[test]
    fn records_come_back_byte_for_byte() {
        let encoded = encode(ORIGIN, (10, 17), &records(), 3).unwrap();
        let (heading, found, entry) = decode(&encoded.compressed).unwrap();
        assert_eq!(found, records());
        assert_eq!(entry, encoded.entry);
        assert_eq!((heading.topic.as_str(), heading.partition), ("events", 2));
        assert_eq!((entry.min_timestamp, entry.max_timestamp), (984, 990));
        assert_eq!(entry.name, "00000000000000000010.ndjson.zst");
        let again = encode(ORIGIN, (10, 17), &records(), 9).unwrap();
        assert_eq!(
            again.entry.sha256, entry.sha256,
            "of the content, at any level"
        );
    }

    #[test]
    fn any_flipped_byte_is_found() {
        let encoded = encode(ORIGIN, (10, 17), &records(), 3).unwrap();
        for at in 0..encoded.compressed.len() {
            let mut damaged = encoded.compressed.clone();
            damaged[at] ^= 0x41;
            let found = decode(&damaged).map(|(_, _, entry)| entry.sha256);
            assert_ne!(found.ok(), Some(encoded.entry.sha256.clone()), "byte {at}");
        }
        let cut = &encoded.compressed[..encoded.compressed.len() - 3];
        assert!(decode(cut).is_err());
    }

    #[test]
    fn a_file_that_contradicts_itself_is_refused() {
        for (range, problem) in [((11, 17), "out of place"), ((10, 16), "out of place")] {
            let encoded = encode(ORIGIN, range, &records(), 3).unwrap();
            let refused = decode(&encoded.compressed).unwrap_err();
            assert!(refused.contains(problem), "{refused}");
        }
    }
}
