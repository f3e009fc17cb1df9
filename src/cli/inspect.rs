//! `millstream inspect`: an aggregate as it is, as it was, and how it came about.

use serde_json::Value;

use super::ask::{Daemon, PAGE_ENTRIES, columns, shown, text_of};
use super::outcome::{Exit, print};
use super::{ExitCode, Inspect};
use crate::event_sourcing::format_timestamp;

pub(super) fn inspect(arguments: &Inspect) -> Result<(), Exit> {
    let daemon = Daemon::of(&arguments.asked)?;
    let json = arguments.asked.json;
    if arguments.timeline {
        return timeline(&daemon, arguments);
    }
    if let Some(points) = &arguments.diff {
        let [from, to] = points.as_slice() else {
            return Err(Exit::new(
                ExitCode::Usage,
                "error: `--diff` takes two points",
            ));
        };
        let segments = path(arguments, Some("diff"));
        let answer = daemon.get(&segments, &[("from", from), ("to", to)])?;
        return if json {
            print_json(&answer)
        } else {
            show_diff(&answer);
            Ok(())
        };
    }
    let version = arguments.version.map(|version| version.to_string());
    let mut parameters = Vec::new();
    parameters.extend(arguments.at.as_deref().map(|at| ("at", at)));
    parameters.extend(version.as_deref().map(|version| ("version", version)));
    let answer = daemon.get(&path(arguments, None), &parameters)?;
    if json {
        return print_json(&answer);
    }
    show_state(&answer);
    Ok(())
}

fn path<'a>(arguments: &'a Inspect, part: Option<&'a str>) -> Vec<&'a str> {
    let mut path = vec![
        "aggregates",
        &*arguments.aggregate_type,
        &*arguments.aggregate_id,
    ];
    path.extend(part);
    path
}

fn print_json(answer: &Value) -> Result<(), Exit> {
    let text = serde_json::to_string_pretty(answer);
    print(text.map_err(|error| Exit::because(ExitCode::Bug, &error))?);
    Ok(())
}

fn show_state(answer: &Value) {
    let updated_at = answer.get("updatedAt").and_then(Value::as_i64);
    let updated_at = updated_at.and_then(|millis| format_timestamp(millis).ok());
    print(format_args!(
        "{} {}, version {}, since {} ({})",
        text_of(answer, "aggregateType"),
        text_of(answer, "aggregateId"),
        text_of(answer, "version"),
        updated_at.unwrap_or_default(),
        text_of(answer, "origin"),
    ));
    let rows: Vec<[String; 2]> = match answer.get("state") {
        Some(Value::Object(fields)) => fields
            .iter()
            .map(|(name, value)| [format!("  {name}"), shown(value)])
            .collect(),
        Some(other) => vec![[String::new(), shown(other)]],
        None => Vec::new(),
    };
    for line in columns(&rows) {
        print(line);
    }
}

fn show_diff(answer: &Value) {
    let point = |name: &str| {
        let point = answer.get(name).unwrap_or(&Value::Null);
        let ended = match point.get("tombstoned") {
            Some(Value::Bool(true)) => ", tombstoned",
            _ => "",
        };
        match point.get("timestamp") {
            Some(time) => {
                let version = text_of(point, "version");
                format!("version {version} ({}{ended})", shown(time))
            }
            None => "before its first event".to_owned(),
        }
    };
    print(format_args!(
        "{} {}, from {} to {}",
        text_of(answer, "aggregateType"),
        text_of(answer, "aggregateId"),
        point("from"),
        point("to"),
    ));
    let changes = list(answer, "changes");
    if changes.is_empty() {
        print("  no difference");
    }
    let rows: Vec<[String; 2]> = changes
        .iter()
        .map(|change| {
            let what = format!(
                "{} → {}",
                text_of(change, "before"),
                text_of(change, "after")
            );
            [format!("  {}", text_of(change, "field")), what]
        })
        .collect();
    for line in columns(&rows) {
        print(line);
    }
}

pub(super) fn list<'a>(answer: &'a Value, field: &str) -> &'a [Value] {
    let list = answer.get(field).and_then(Value::as_array);
    list.map_or(&[], Vec::as_slice)
}

/// Shows the whole timeline, page by page.
fn timeline(daemon: &Daemon, arguments: &Inspect) -> Result<(), Exit> {
    let segments = path(arguments, Some("timeline"));
    let mut from = "1".to_owned();
    let mut all = Vec::new();
    loop {
        let parameters = [("from_version", &*from), ("limit", PAGE_ENTRIES)];
        let answer = daemon.get(&segments, &parameters)?;
        let entries = list(&answer, "entries");
        if arguments.asked.json {
            all.extend_from_slice(entries);
        } else {
            let rows: Vec<[String; 5]> = entries.iter().map(timeline_row).collect();
            for line in columns(&rows) {
                print(line);
            }
        }
        match answer.get("nextVersion") {
            Some(next) => from = next.to_string(),
            None => break,
        }
    }
    if arguments.asked.json {
        return print_json(&Value::Array(all));
    }
    Ok(())
}

/// Time, version, type, who, what changed.
fn timeline_row(entry: &Value) -> [String; 5] {
    let who = match (entry.get("actor"), entry.get("source")) {
        (Some(actor), Some(source)) => format!("{} ({})", shown(actor), shown(source)),
        (Some(who), None) | (None, Some(who)) => shown(who),
        (None, None) => "–".to_owned(),
    };
    let changes = list(entry, "changes").iter().map(|change| {
        let [field, before, after] = ["field", "before", "after"].map(|name| text_of(change, name));
        format!("{field}: {before} → {after}")
    });
    let mut what = match entry.get("tombstoned") {
        // What it took away is what the lines before have told.
        Some(Value::Bool(true)) => "tombstoned".to_owned(),
        _ => changes.collect::<Vec<_>>().join(", "),
    };
    if let Some(reason) = entry.get("reason") {
        let gap = if what.is_empty() { "" } else { "  " };
        what = format!("{what}{gap}[{}]", shown(reason));
    }
    [
        text_of(entry, "timestamp"),
        format!("v{}", text_of(entry, "version")),
        text_of(entry, "eventType"),
        who,
        what,
    ]
}
