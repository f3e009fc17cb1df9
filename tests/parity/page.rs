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
pub(crate) const MISSING: &[&str] = &[];

/// Why a case differs on purpose.
pub(crate) fn difference(case: &str) -> Option<&'static str> {
    DIFFERENCES
        .iter()
        .find(|(name, _)| *name == case)
        .map(|(_, reason)| *reason)
}

/// Differences that no case can show: one record at a time goes through a test driver, on one partition,
/// and nothing restarts.
const BEYOND: &str = "
## Differences that no case shows

One record at a time goes through a test driver, on one partition, without a crash or a restart. Decided
beyond that, each with its reason:

| Where | Kafka Streams | millstream | Why |
| --- | --- | --- | --- |
| stream time of windows, joins and `suppress` | is forgotten when a task moves or restarts, so that late records are taken again | is kept with the committed offsets | a result does not depend on a restart |
| record cache | deduplicates updates downstream, by its size and the commit interval | sends every update; `emit_per_commit` deduplicates, by the commit alone | a result does not depend on a cache's size |
| emission on window close | looks once a second of wall-clock time | with the record that closes a window; sliding windows and sessions in steps of a 64th of the time they live | a result does not depend on the clock |
| `suppress` | holds its buffer in memory | in a store, on disk beyond its cache | bounds of memory are no bounds of what may be held back |
| `suppress` bounded by bytes | an estimate of the heap: topic and headers of each update as well | key, time and update as they are stored | what is bounded is what is held |
| foreign-key join, inner | a right value's delete may pass a change of a left value that refers to it: the old result stays | such a change is answered, and ends the result | at rest the result is the join of both tables |
| `to` with a topic extractor | takes any name, and expects the topic to exist | the topics are listed; another name is an error of the production stage | topics are created, checked and described |
| failed timestamp extractor | ends the thread | meets the source's policy for bytes that cannot be read | one bad record need not stop a task |
| a record that fails and is passed over | what it did before it failed stays | what it did is undone, whether it is skipped or dead-lettered | a record is atomic |
| `max.task.idle.ms` with an end that no reader reaches (compaction) | waits for ever | ten seconds at most | a task must not hang |
| versioned stores | drop old versions and deletes with their segments | look through the store in rounds | one RocksDB per task, which is flushed as a whole |
| null keys and values | at any place; operators drop what they cannot use | in types that have null (`serdes::optional`), dropped likewise; another type's source cannot read one | the compiler knows |
| wall-clock extractor | - | the same; no case, since the test driver of Kafka Streams takes the machine's clock | - |
";

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
    page.push_str(BEYOND);
    page
}
