//! The index by time of a store whose entries have not expired before.

use std::path::Path;

use rocksdb::{DB, WriteBatch, WriteOptions};

use crate::format::value;
use crate::state::rocks::{self, state_error};
use crate::state::{StateError, TimeToLive};

/// The entry that says that the index is complete: before all others.
const COMPLETE: &[u8] = &[];

/// How much goes into one write.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Adds the entries of a store that was given a time-to-live. An index that has all says so, in a
/// write that comes after the others: one that a crash has cut short is begun again, to the same end.
pub(super) fn complete(
    db: &DB,
    dir: &Path,
    data: &str,
    index: &str,
    ttl: &TimeToLive,
) -> Result<(), StateError> {
    let failed = |error| state_error(error, "opened", dir);
    let (data, index) = (
        rocks::handle(db, dir, data)?,
        rocks::handle(db, dir, index)?,
    );
    if db.get_cf(index, COMPLETE).map_err(failed)?.is_some() {
        return Ok(());
    }
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    let mut batch = WriteBatch::default();
    let mut index_key = Vec::new();
    for entry in rocks::range(db, data, &[], None, false) {
        let (key, bytes) = entry.map_err(failed)?;
        let Some((time, _)) = value::decode(&bytes) else {
            continue;
        };
        index_key.clear();
        ttl.put_index(&key, time, &mut index_key);
        batch.put_cf(index, &index_key, []);
        if batch.size_in_bytes() >= BATCH_BYTES {
            let full = std::mem::take(&mut batch);
            db.write_opt(full, &options).map_err(failed)?;
        }
    }
    batch.put_cf(index, COMPLETE, []);
    db.write_opt(batch, &options).map_err(failed)
}
