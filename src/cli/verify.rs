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
    let mut found = Found::default();
    for aggregate_type in types {
        let (path, json) = (["verify", &aggregate_type], arguments.asked.json);
        verify_one(&daemon, &path, &aggregate_type, json, &mut found)?;
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
            verify_one(&daemon, &path, &name, json, &mut found)?;
        }
    }
    let Found {
        different,
        not_compared,
    } = found;
    if !different.is_empty() {
        return Err(Exit::new(ExitCode::Failure, different.join("\n")));
    }
    let not_compared = not_compared.join("\n");
    match (not_compared.is_empty(), arguments.partial) {
        (true, _) => Ok(()),
        (false, true) => {
            complain(format_args!(
                "warning: a part was compared only:\n{not_compared}"
            ));
            Ok(())
        }
        (false, false) => Err(Exit::new(
            ExitCode::Partial,
            format!("a part was compared only (`--partial` is content with it):\n{not_compared}"),
        )),
    }
}

/// What a comparison has found, in words.
#[derive(Debug, Default)]
struct Found {
    different: Vec<String>,
    /// What nothing is known of.
    not_compared: Vec<String>,
}

/// Compares the aggregates of a type with their events, or the rows of a projection, page by page, up to
/// the first difference.
fn verify_one(
    daemon: &Daemon,
    path: &[&str],
    of: &str,
    json: bool,
    found: &mut Found,
) -> Result<(), Exit> {
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
            found.different.push(told(of, difference));
            return Ok(());
        }
        match answer.get("cursor") {
            Some(next) => cursor = Some(shown(next)),
            None => {
                found.not_compared.extend(not_compared(of, &answer));
                break;
            }
        }
    }
    if !json {
        print(format_args!(
            "{of}: {aggregates} aggregates are what their {events} events add up to"
        ));
    }
    Ok(())
}

/// Says what the last page of a comparison has not looked at.
fn not_compared(of: &str, answer: &Value) -> Vec<String> {
    let mut said = Vec::new();
    let missing: Vec<String> = list(answer, "partitionsMissing")
        .iter()
        .map(shown)
        .collect();
    if !missing.is_empty() {
        said.push(format!(
            "{of} of partitions {}: other processes serve them; ask those with `--url`",
            missing.join(", ")
        ));
    }
    let other: Vec<String> = list(answer, "otherVersion").iter().map(shown).collect();
    if !other.is_empty() {
        said.push(format!(
            "{of} of partitions {}: another version of its rules made the rows; they are being built anew",
            other.join(", ")
        ));
    }
    let Some(groups) = answer.get("groups") else {
        return said;
    };
    if let Some(why) = groups.get("notCompared") {
        said.push(format!("groups of {of}: {}", shown(why)));
    }
    let unsettled = groups.get("unsettled").and_then(Value::as_u64).unwrap_or(0);
    if unsettled > 0 {
        said.push(format!(
            "{unsettled} groups of {of}: they changed at every look; ask again"
        ));
    }
    said
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
