//! Archive of millstream: records leave the log's retention into files of an object store, and are read
//! across both.
//!
//! # Position
//! A topology offers it as a sink for its event topics ([`ArchiveSink::declare`]); a configuration
//! turns it on with a directory or a URL. It reads behind the stream threads like any sink, and reads
//! back through [`PastRecords`](millstream::sink::PastRecords).
//!
//! ```text
//! <topic>/<partition>/00000000000000052311.ndjson.zst       records from this offset on
//! <topic>/<partition>/manifest-00000000000000000007.json    all ranges, the latest
//! ```
//! # Invariants
//! - **Each offset is in one file.** A file is created once, under the name of its first offset, and
//!   never changed; the store refuses a second one, whatever its end. The manifest that lists it is
//!   created the same way, under the next number. Of two processes one wins, the other asks where it
//!   stands.
//! - A file that no manifest lists (a process was killed in between) begins where the manifest ends:
//!   it is checked and adopted before anything else is written.
//! - Ranges follow each other without a gap. What the manifest says of a file (range, count, times,
//!   checksum) is what is in it, or the file is named as damaged.
//! - A topic that was deleted and created again is another one: its records do not join the archive.
//! # Failure
//! A store that is away is waited for. Damage, a gap or another topic stop the sink and name the file.

mod codec;
mod config;
mod manifest;
mod reader;
mod session;
mod sink;
mod store;

pub use config::ArchiveParameters;
pub use manifest::{FileEntry, Manifest};
pub use sink::ArchiveSink;
