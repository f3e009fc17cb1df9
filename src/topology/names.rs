//! Which names Kafka and the state directory can bear.

/// Kafka's limit for a topic name.
const TOPIC_NAME_MAX: usize = 249;

/// What `-changelog` / `-repartition` and an application id may add to an internal name.
const INTERNAL_NAME_MAX: usize = 150;

/// Column families that are not stores.
const RESERVED_STORES: [&str; 2] = ["default", "offsets"];

/// Returns why Kafka refuses `name` as a topic; `None` when it does not.
pub(crate) fn illegal_topic_name(name: &str) -> Option<String> {
    if name == "." || name == ".." {
        return Some("Kafka refuses `.` and `..`".to_owned());
    }
    illegal(name, TOPIC_NAME_MAX)
}

/// Returns why `name` cannot be part of an internal topic's name.
pub(crate) fn illegal_internal_name(name: &str) -> Option<String> {
    illegal(name, INTERNAL_NAME_MAX)
}

/// Returns why `name` cannot be a store.
pub(crate) fn illegal_store_name(name: &str) -> Option<String> {
    if RESERVED_STORES.contains(&name) {
        return Some("the name is reserved in the state directory".to_owned());
    }
    illegal_internal_name(name)
}

/// Returns why `name` cannot be a node: it only has to be readable in logs and metrics.
pub(crate) fn illegal_node_name(name: &str) -> Option<String> {
    illegal(name, INTERNAL_NAME_MAX)
}

fn illegal(name: &str, max: usize) -> Option<String> {
    if name.is_empty() {
        return Some("it is empty".to_owned());
    }
    if name.len() > max {
        return Some(format!("it is longer than {max} characters"));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    name.chars()
        .find(|&c| !allowed(c))
        .map(|c| format!("it contains {c:?}; Kafka allows letters, digits, `.`, `_` and `-`"))
}
