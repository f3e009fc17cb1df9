//! `millstream projections` and `rebuild-projection`: how far read models are, and building one anew.

use serde_json::Value;

use super::ask::{Daemon, columns, shown, text_of};
use super::inspect::list;
use super::outcome::{Exit, complain, print};
use super::{Projections, RebuildProjection};

pub(super) fn projections(arguments: &Projections) -> Result<(), Exit> {
    let daemon = Daemon::of(&arguments.asked)?;
    let answer = daemon.get(&["projections"], &[])?;
    if arguments.asked.json {
        print(&answer);
        return Ok(());
    }
    let head = [
        "PROJECTION",
        "OF",
        "PARTITION",
        "GENERATION",
        "EVENTS",
        "LAG",
        "PHASE",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    for projection in list(&answer, "projections") {
        rows.extend(partitions(projection));
    }
    for line in columns(&rows) {
        print(line);
    }
    for projection in list(&answer, "projections") {
        warn_of_missing(projection);
    }
    Ok(())
}

pub(super) fn rebuild(arguments: &RebuildProjection) -> Result<(), Exit> {
    let daemon = Daemon::of(&arguments.asked)?;
    let answer = daemon.post(&["projections", &arguments.projection, "rebuild"])?;
    if arguments.asked.json {
        print(&answer);
        return Ok(());
    }
    let begun = list(&answer, "partitions").len();
    print(format_args!(
        "{}: built anew in {begun} partitions, beside the rows that serve; `millstream projections` \
         shows how far",
        arguments.projection
    ));
    warn_of_missing(&answer);
    Ok(())
}

fn partitions(projection: &Value) -> Vec<[String; 7]> {
    let of_aggregates = list(projection, "partitions").iter();
    let of_aggregates = of_aggregates.map(|partition| (partition, ""));
    let groups = projection.get("groups").into_iter();
    let groups = groups.flat_map(|groups| list(groups, "partitions"));
    of_aggregates
        .chain(groups.map(|partition| (partition, " of groups")))
        .map(|(partition, what)| {
            let phase = partition.get("phase").map(|phase| text_of(phase, "name"));
            [
                text_of(projection, "name"),
                text_of(projection, "aggregateType"),
                text_of(partition, "partition") + what,
                text_of(partition, "generation"),
                text_of(partition, "events"),
                text_of(partition, "lagEvents"),
                phase.unwrap_or_default(),
            ]
        })
        .collect()
}

fn warn_of_missing(projection: &Value) {
    let missing: Vec<String> = list(projection, "partitionsMissing")
        .iter()
        .map(shown)
        .collect();
    if !missing.is_empty() {
        complain(format_args!(
            "warning: {} of partitions {} is not served here; ask the processes that do with `--url`",
            text_of(projection, "name"),
            missing.join(", ")
        ));
    }
}
