//! `docs/parity.md`.

use std::collections::BTreeMap;

use crate::golden::{Golden, Of};

/// Cases in which millstream differs on purpose, and why.
pub(crate) const DIFFERENCES: &[(&str, &str)] = &[
    (
        "window_close_jump",
        "Kafka Streams loses windows that expire with the very record that closes them; millstream \
         emits each once",
    ),
    (
        "stream_stream_left_join_late_in_grace",
        "for a record out of order Kafka Streams does not wait for the grace period, and so sends a \
         result without the partner that then comes; millstream sends the one with it alone",
    ),
    (
        "window_close_sliding_steps",
        "when, not what: millstream looks for closed sliding windows and sessions each time stream time has \
         moved by a 64th of the time they live, so that a result may leave with a later record; Kafka \
         Streams looks once a second of wall-clock time, which this suite switches off",
    ),
    (
        "window_close_session_retained",
        "Kafka Streams merges a session that it has sent as closed with a later one, as long as the store's \
         retention still has it, and sends its records a second time; a result on close is final in \
         millstream",
    ),
    (
        "suppress_sliding_closes_at_end",
        "both ends belong to a sliding window, which is open while stream time is at its end and grace \
         period; Kafka Streams' `suppress` sends it then, and once more when another record comes; \
         millstream waits the millisecond longer, and sends each window once",
    ),
];

/// Cases in which millstream does not yet give what Kafka Streams gives.
pub(crate) const MISSING: &[&str] = &[
    // A right value that is out of order must not be answered.
    "versioned_foreign_key_join",
    "versioned_foreign_key_left_join",
];

/// Why a case differs on purpose.
pub(crate) fn difference(case: &str) -> Option<&'static str> {
    DIFFERENCES
        .iter()
        .find(|(name, _)| *name == case)
        .map(|(_, reason)| *reason)
}

const HEAD: &str = "\
# Parity with Kafka Streams

Written by the parity suite (`tests/parity`): do not edit. Each case is one topology, drawn in Java for
Kafka Streams 4.3.1 and in Rust for millstream. Both get the same input, seeded: out of order, late,
at equal timestamps, duplicated, with tombstones and null keys where the operator can meet them. Outputs
are compared record by record: topic, key bytes, value bytes, timestamp, headers, and which input made
them.

`scripts/parity` runs the Java side again and writes the golden files. A case that differs does so on
purpose and in exactly one way: `tests/parity/golden` has Kafka Streams' output, `tests/parity/decided`
ours, and the suite holds millstream to it.

| Operator | Cases | Result |
| --- | --- | --- |
";

/// Renders the page of these cases.
pub(crate) fn render(cases: &[&str]) -> String {
    let mut operators = BTreeMap::<String, Vec<&str>>::new();
    for case in cases {
        let operator = Golden::read(Of::KafkaStreams, case).operator;
        operators.entry(operator).or_default().push(case);
    }
    let mut page = HEAD.to_owned();
    for (operator, cases) in operators {
        let names: Vec<String> = cases
            .iter()
            .map(|case| format!("`{}`", case.replace('_', "-")))
            .collect();
        let differences: Vec<String> = cases
            .iter()
            .filter_map(|case| {
                let name = case.replace('_', "-");
                if MISSING.contains(case) {
                    return Some(format!("`{name}` is not there yet"));
                }
                Some(format!("`{name}` differs: {}", difference(case)?))
            })
            .collect();
        let result = if differences.is_empty() {
            "equal".to_owned()
        } else if differences.len() < cases.len() {
            format!("equal; {}", differences.join("; "))
        } else {
            differences.join("; ")
        };
        page.push_str(&format!(
            "| `{operator}` | {} | {result} |\n",
            names.join(", ")
        ));
    }
    page
}
