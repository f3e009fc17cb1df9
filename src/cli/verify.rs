//! `millstream verify`: compares what is derived from events with what the events add up to.

use serde_json::Value;

use super::ask::{Daemon, PAGE_ENTRIES, shown, text_of};
use super::inspect::list;
use super::outcome::{Exit, complain, print};
use super::{ExitCode, Verify};

pub(super) fn verify(arguments: &Verify) -> Result<(), Exit> {
    let daemon = Daemon::of(&arguments.asked)?;
    let types = match arguments.wanted_type() {
        Some(of) => vec![of],
        None => {
            let types = daemon.get(&["aggregates"], &[])?;
            list(&types, "aggregateTypes").iter().map(shown).collect()
        }
    };
    let mut different = Vec::new();
    for aggregate_type in types {
        let (path, json) = (["verify", &aggregate_type], arguments.asked.json);
        different.extend(verify_one(&daemon, &path, &aggregate_type, json)?);
    }
    let projections = daemon.get(&["projections"], &[])?;
    for projection in list(&projections, "projections") {
        let (name, of) = (
            text_of(projection, "name"),
            text_of(projection, "aggregateType"),
        );
        if arguments
            .aggregate_type
            .as_ref()
            .is_none_or(|asked| *asked == of)
        {
            let (path, json) = (["projections", &name, "verify"], arguments.asked.json);
            different.extend(verify_one(&daemon, &path, &name, json)?);
        }
    }
    if different.is_empty() {
        return Ok(());
    }
    let message = different.join("\n");
    Err(Exit::new(ExitCode::Failure, message))
}

/// Compares the aggregates of a type with their events, or the rows of a projection, page by page; returns
/// the first difference in words.
fn verify_one(
    daemon: &Daemon,
    path: &[&str],
    of: &str,
    json: bool,
) -> Result<Option<String>, Exit> {
    let (mut aggregates, mut events) = (0, 0);
    let mut cursor: Option<String> = None;
    loop {
        let mut parameters = vec![("limit", PAGE_ENTRIES)];
        parameters.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let answer = daemon.get(path, &parameters)?;
        let count = |field: &str| answer.get(field).and_then(Value::as_u64).unwrap_or(0);
        aggregates += count("aggregates");
        events += count("events");
        if json {
            print(&answer);
        }
        if let Some(difference) = answer.get("difference") {
            return Ok(Some(told(of, difference)));
        }
        match answer.get("cursor") {
            Some(next) => cursor = Some(shown(next)),
            None => {
                let missing: Vec<String> = list(&answer, "partitionsMissing")
                    .iter()
                    .map(shown)
                    .collect();
                if !missing.is_empty() {
                    complain(format_args!(
                        "warning: {of} of partitions {} are not compared: other processes serve \
                         them; ask those with `--url`",
                        missing.join(", ")
                    ));
                }
                break;
            }
        }
    }
    if !json {
        print(format_args!(
            "{of}: {aggregates} aggregates are what their {events} events add up to"
        ));
    }
    Ok(None)
}

fn told(of: &str, difference: &Value) -> String {
    let [store, id, version, problem] =
        ["store", "aggregateId", "version", "problem"].map(|field| text_of(difference, field));
    let changes = list(difference, "changes").iter().map(|change| {
        let [field, before, after] = ["field", "before", "after"].map(|name| text_of(change, name));
        format!("\n  {field}: {before} by the events, {after} in the store")
    });
    let row = difference
        .get("row")
        .map(|row| format!(", row {}", shown(row)));
    format!(
        "{of} {id}, version {version}, store `{store}`{}: {problem}{}",
        row.unwrap_or_default(),
        changes.collect::<String>()
    )
}
