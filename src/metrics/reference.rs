//! `docs/metrics.md`, written from the table of metrics.

use std::fmt::Write as _;

use super::labels::{CommandOutcome, MemoryUser, SetAsideReason, TaskState};
use super::names::{Label, Metric, TOPOLOGY_COUNTERS_MAX, Type};

const INTRODUCTION: &str = "\
# Metrics

<!-- Generated from src/metrics/names.rs by the test `the_reference_page_is_current`. -->

`GET /metrics` answers in Prometheus' text format. Names are
`millstream_<area>_<noun>_<unit>[_total]`. Counters start at 0 with the process, or with the task
they belong to: a task's series appear when it is assigned and go when it leaves, so use `rate()`
and `increase()`, which know restarts. Histograms have `_bucket`, `_sum` and `_count`.

| Metric | Type | Labels | Meaning |
| --- | --- | --- | --- |
";

/// Returns the text of `docs/metrics.md`.
#[must_use]
pub fn reference_page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for metric in Metric::ALL {
        let spec = metric.spec();
        let kind = match spec.kind {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram(_) => "histogram",
        };
        let labels: Vec<String> = spec
            .labels
            .iter()
            .map(|label| format!("`{}`", label.name()))
            .collect();
        let labels = labels.join(", ");
        push(
            &mut page,
            format_args!("| `{}` | {kind} | {labels} | {} |\n", spec.name, spec.help),
        );
    }
    page.push_str("\n## Labels\n\n");
    for (label, meaning) in label_meanings() {
        push(&mut page, format_args!("- `{}`: {meaning}\n", label.name()));
    }
    page
}

fn label_meanings() -> Vec<(Label, String)> {
    let list = |values: Vec<&str>| values.join("`, `");
    let one_of = |values: Vec<&str>| format!("`{}`", list(values));
    vec![
        (
            Label::Thread,
            "index of the stream thread in the process, from 0".to_owned(),
        ),
        (
            Label::Task,
            "task id, `<sub-topology>_<partition>`".to_owned(),
        ),
        (Label::Topic, "topic by its name in the cluster".to_owned()),
        (Label::Partition, "partition of the topic".to_owned()),
        (Label::Store, "store by its name in the topology".to_owned()),
        (
            Label::State,
            one_of(TaskState::ALL.iter().map(|value| value.label()).collect()),
        ),
        (
            Label::Reason,
            one_of(
                SetAsideReason::ALL
                    .iter()
                    .map(|value| value.label())
                    .collect(),
            ),
        ),
        (
            Label::Component,
            one_of(MemoryUser::ALL.iter().map(|value| value.label()).collect()),
        ),
        (Label::Kind, one_of(vec!["stream_time", "wall_clock"])),
        (
            Label::AggregateType,
            "aggregate type as in the envelope, such as `Account`".to_owned(),
        ),
        (
            Label::Outcome,
            one_of(
                CommandOutcome::ALL
                    .iter()
                    .map(|value| value.label())
                    .collect(),
            ),
        ),
        (
            Label::Counter,
            format!(
                "name that the topology gives; at most {TOPOLOGY_COUNTERS_MAX}, beyond them `other`"
            ),
        ),
        (
            Label::Route,
            "pattern of the route, such as `/stores/{name}/{key}`".to_owned(),
        ),
        (Label::Status, "HTTP status code".to_owned()),
        (
            Label::Projection,
            "projection by its name in the topology".to_owned(),
        ),
        (
            Label::Sink,
            "sink by its name in the configuration".to_owned(),
        ),
        (Label::Version, "version of the program".to_owned()),
    ]
}

fn push(page: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a `String` cannot fail.
    page.write_fmt(text).unwrap_or_default();
}
