//! Names derived from the application id, and the names of files and headers.
//!
//! Topic names are Kafka Streams' (`docs/formats.md`), so
//! that a Java application can be taken over and handed back.

use std::path::{Path, PathBuf};

use crate::clock::Timestamp;
use crate::topology::TaskId;

/// Returns `<application_id>-<store>-changelog`.
#[must_use]
pub fn changelog_topic(application_id: &str, store: &str) -> String {
    format!("{application_id}-{store}-changelog")
}

/// Returns `<application_id>-<name>-repartition`. A name that already ends so keeps one suffix, as
/// in Kafka Streams.
#[must_use]
pub fn repartition_topic(application_id: &str, name: &str) -> String {
    format!("{application_id}-{}", repartition_suffix(name))
}

/// Returns what follows the application id in a repartition topic's name.
#[must_use]
pub fn repartition_suffix(name: &str) -> String {
    if name.ends_with("-repartition") {
        name.to_owned()
    } else {
        format!("{name}-repartition")
    }
}

/// Returns `<application_id>-<source>-millstream-driver`: the topic without records whose partitions stand for the
/// tasks of a part that reads topics by pattern.
#[must_use]
pub fn driver_topic(application_id: &str, source: &str) -> String {
    format!("{application_id}-{source}-millstream-driver")
}

/// Returns whether a topic belongs to the application itself: no pattern matches such.
#[must_use]
pub fn is_internal_topic(application_id: &str, topic: &str) -> bool {
    let suffixes = ["-changelog", "-repartition", "-millstream-driver"];
    topic == topology_topic(application_id)
        || topic.strip_prefix(application_id).is_some_and(|rest| {
            rest.starts_with('-') && suffixes.iter().any(|end| rest.ends_with(end))
        })
}

/// Returns `<application_id>-millstream-topology`: the compacted topic whose last record is the
/// topology that runs (`plan`).
#[must_use]
pub fn topology_topic(application_id: &str) -> String {
    format!("{application_id}-millstream-topology")
}

/// Returns `<application_id>-<process id>-<thread>`: the `transactional.id` and the
/// `group.instance.id` of a stream thread. Stable across restarts, so that a process that was
/// killed resumes as itself.
#[must_use]
pub fn thread_identity(application_id: &str, process_id: &str, thread: usize) -> String {
    format!("{}{thread}", process_identity(application_id, process_id))
}

/// Returns `<application_id>-<process id>-`: what the identities of all threads of a process begin
/// with.
#[must_use]
pub fn process_identity(application_id: &str, process_id: &str) -> String {
    format!("{application_id}-{process_id}-")
}

/// Returns the `client.id` of a stream thread: its identity, then `@` and the HTTP address under
/// which other processes reach this one, when it has one. Group members see each other's
/// `client.id`, so a query for a key that another process owns can be redirected.
#[must_use]
pub fn client_id(identity: &str, advertised: Option<&str>) -> String {
    advertised.map_or_else(
        || identity.to_owned(),
        |address| format!("{identity}@{address}"),
    )
}

/// Returns `<application_id>-<sink>`: the group of a sink, and the name of its offsets in the target.
#[must_use]
pub fn sink_group(application_id: &str, sink: &str) -> String {
    format!("{application_id}-{sink}")
}

/// Returns `<application_id>-<sink>-<process id>`: who a process is in a sink's group.
#[must_use]
pub fn sink_identity(application_id: &str, sink: &str, process_id: &str) -> String {
    format!("{}-{process_id}", sink_group(application_id, sink))
}

/// Returns the HTTP address that a member's `client.id` carries.
#[must_use]
pub fn advertised_address(client_id: &str) -> Option<&str> {
    let (_, address) = client_id.rsplit_once('@')?;
    (!address.is_empty()).then_some(address)
}

/// The file that a process locks to own its state directory; holds its pid.
pub const LOCK_FILE: &str = ".lock";

/// The file that holds the process id: a UUID, created once per state directory.
pub const PROCESS_ID_FILE: &str = "process-id";

/// What marks a task directory that is no longer trusted.
const SET_ASIDE_MARK: &str = ".set-aside-";

/// Returns `<state_dir>/<task>`: the directory of a task's RocksDB.
#[must_use]
pub fn task_directory(state_dir: &Path, task: TaskId) -> PathBuf {
    state_dir.join(task.to_string())
}

/// Returns `<state_dir>/global`: the directory of the RocksDB with the global stores.
#[must_use]
pub fn global_directory(state_dir: &Path) -> PathBuf {
    state_dir.join("global")
}

/// Returns `<task>.set-aside-<milliseconds>`, the file name under which a task's directory waits for
/// people after it could not be trusted.
#[must_use]
pub fn set_aside_name(task_dir_name: &str, now: Timestamp) -> String {
    format!("{task_dir_name}{SET_ASIDE_MARK}{now:013}")
}

/// Returns when the directory `name` was set aside, if it was one of task directory `task_dir_name`.
#[must_use]
pub fn set_aside_time(task_dir_name: &str, name: &str) -> Option<Timestamp> {
    name.strip_prefix(task_dir_name)?
        .strip_prefix(SET_ASIDE_MARK)?
        .parse()
        .ok()
}

/// The column family of checkpoints in a task's RocksDB.
pub const OFFSETS_COLUMN_FAMILY: &str = "offsets";

/// Returns the column family of a store: prefixed, so that a store may be called `offsets`.
#[must_use]
pub fn store_column_family(store: &str) -> String {
    format!("store.{store}")
}

/// Returns the column family of a store whose local keys begin with segments of `interval`
/// milliseconds. With another interval it is another family: keys of one layout are never taken for
/// those of another.
#[must_use]
pub fn segmented_column_family(store: &str, interval: i64) -> String {
    format!("segments.{interval}.{store}")
}

/// What the name of the node begins with that subscribes a foreign-key join's left table to the right one.
pub const FOREIGN_KEY_SUBSCRIBE: &str = "KTABLE-FK-SUBSCRIBE-";

/// Returns the column family of a store of versions.
#[must_use]
pub fn versioned_column_family(store: &str) -> String {
    format!("versions.{store}")
}

/// Returns the column family of a store whose values keep headers. Without them it is another family:
/// values of one form are never taken for those of the other.
#[must_use]
pub fn headers_column_family(store: &str) -> String {
    format!("headers.{store}")
}

/// Returns the column family of a store of windows or sessions whose values keep headers.
#[must_use]
pub fn segmented_headers_column_family(store: &str, interval: i64) -> String {
    format!("segments-headers.{interval}.{store}")
}

/// Returns the column family of the index by time of a store whose entries expire.
#[must_use]
pub fn expiry_column_family(store: &str) -> String {
    format!("expiry.{store}")
}

/// Returns whether a column family is one of `store`, of whatever layout.
#[must_use]
pub fn is_column_family_of(family: &str, store: &str) -> bool {
    let whole = [
        store_column_family,
        headers_column_family,
        versioned_column_family,
    ];
    if whole.iter().any(|name_of| family == name_of(store)) {
        return true;
    }
    let segmented = ["segments.", "segments-headers."]
        .iter()
        .find_map(|prefix| family.strip_prefix(prefix))
        .and_then(|rest| rest.split_once('.'));
    segmented.is_some_and(|(interval, name)| name == store && interval.parse::<i64>().is_ok())
}

/// The headers of dead-letter records (KIP-1034): UTF-8 text, beside the record's own headers.
pub mod dead_letter {
    /// The reason code, or the error's type.
    pub const EXCEPTION: &str = "__streams.errors.exception";
    /// What was wrong, for people.
    pub const MESSAGE: &str = "__streams.errors.message";
    /// The chain of causes.
    pub const STACKTRACE: &str = "__streams.errors.stacktrace";
    /// The topic the record was read from.
    pub const TOPIC: &str = "__streams.errors.topic";
    /// The partition, in decimal digits.
    pub const PARTITION: &str = "__streams.errors.partition";
    /// The offset, in decimal digits.
    pub const OFFSET: &str = "__streams.errors.offset";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internal_topics_are_named_as_kafka_streams_names_them() {
        assert_eq!(
            changelog_topic("billing", "accounts"),
            "billing-accounts-changelog"
        );
        assert_eq!(
            repartition_topic("billing", "by-owner"),
            "billing-by-owner-repartition"
        );
        assert_eq!(
            repartition_topic("billing", "by-owner-repartition"),
            "billing-by-owner-repartition"
        );
        assert_eq!(topology_topic("billing"), "billing-millstream-topology");
    }

    #[test]
    fn a_thread_keeps_its_identity_and_carries_its_address_in_client_id() {
        let identity = thread_identity("billing", "0b5e", 2);
        assert_eq!(identity, "billing-0b5e-2");
        let client = client_id(&identity, Some("10.0.0.1:8080"));
        assert_eq!(client, "billing-0b5e-2@10.0.0.1:8080");
        assert_eq!(advertised_address(&client), Some("10.0.0.1:8080"));
        assert_eq!(client_id(&identity, None), identity);
        assert_eq!(advertised_address(&identity), None);
        assert_eq!(advertised_address("x@"), None);
        assert_eq!(
            advertised_address("a@b@http://[::1]:1"),
            Some("http://[::1]:1")
        );
    }

    #[test]
    fn set_aside_directories_are_recognised_by_task() {
        let name = set_aside_name("0_1", 1_700_000_000_123);
        assert_eq!(name, "0_1.set-aside-1700000000123");
        assert_eq!(set_aside_time("0_1", &name), Some(1_700_000_000_123));
        assert_eq!(set_aside_time("0_11", &name), None);
        assert_eq!(set_aside_time("0_1", "0_1"), None);
        assert_eq!(set_aside_time("0_1", "0_1.set-aside-x"), None);
    }

    #[test]
    fn a_task_directory_lies_in_the_state_directory() {
        let task = TaskId {
            sub_topology: 3,
            partition: 7,
        };
        assert_eq!(
            task_directory(Path::new("/state"), task),
            Path::new("/state/3_7")
        );
        assert_eq!(store_column_family("offsets"), "store.offsets");
        assert_eq!(segmented_column_family("a.b", 60), "segments.60.a.b");
        assert!(is_column_family_of("store.a.b", "a.b"));
        assert!(is_column_family_of("segments.60.a.b", "a.b"));
        assert!(is_column_family_of(&headers_column_family("a.b"), "a.b"));
        assert!(is_column_family_of(
            &segmented_headers_column_family("a.b", 60),
            "a.b"
        ));
        assert!(!is_column_family_of("segments.60.a.b", "b"));
        assert!(!is_column_family_of("store.b", "a.b"));
    }
}
