//! What stores and tables promise beyond a single record, on the production stream thread and the
//! embedded log: emission per commit, expiry, value versions, restore.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by a panic, in helpers as well"
)]

mod emit_per_commit;
mod key_ranges;
mod offset_metadata;
mod source_changelog;
mod support;
mod time_index;
mod time_to_live;
mod value_versions;
mod with_headers;
