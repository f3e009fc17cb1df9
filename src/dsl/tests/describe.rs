use super::harness::{consumed, produced, store};
use crate::prelude::*;

/// Two sub-topologies, a shared store, a merge, a split, a repartition.
fn topology() -> Topology {
    let builder = StreamsBuilder::new();
    builder.declare_topic("totals", [("cleanup.policy", "compact")]);
    let seen = builder.add_state_store(store("seen").record());
    let orders = builder.stream("orders", consumed().rewindable(false));
    let returns = builder.stream("returns", consumed());
    let once = orders
        .merge(&returns)
        .process("deduplicate", (&seen,), |_, _| super::describe::Pass);
    let mut split = once.split();
    split
        .branch(|_, value: &String| value.is_empty())
        .to("empty", produced());
    split
        .default_branch()
        .group_by(
            |_, value| value.clone(),
            Grouped::with("by-value", serdes::string(), serdes::string()),
        )
        .count(Materialized::as_store(
            "counts",
            serdes::string(),
            serdes::i64(),
        ))
        .to_stream()
        .named("totals-as-stream")
        .to(
            "totals",
            Produced::with(serdes::string(), serdes::optional(serdes::i64())),
        );
    builder.build().unwrap()
}

pub(super) struct Pass;

impl Processor<String, String, String, String> for Pass {
    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, String, String>,
        record: Record<String, String>,
    ) -> Result<(), BoxError> {
        Ok(context.forward(record)?)
    }
}

#[track_caller]
fn assert_golden(actual: &str, golden: &str, file: &str) {
    if std::env::var_os("MILLSTREAM_BLESS").is_some() {
        let path = format!("{}/src/dsl/tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
        std::fs::write(path, actual).unwrap();
    } else {
        assert_eq!(
            actual, golden,
            "MILLSTREAM_BLESS=1 rewrites src/dsl/tests/golden/{file}"
        );
    }
}

#[test]
fn text_is_kafka_streams() {
    let text = topology().describe().to_string();
    assert_golden(&text, include_str!("golden/describe.txt"), "describe.txt");
}

#[test]
fn mermaid_shows_topics_nodes_and_stores() {
    let chart = topology().describe().to_mermaid();
    assert_golden(&chart, include_str!("golden/describe.mmd"), "describe.mmd");
}

#[test]
fn json_carries_a_format_version() {
    let json = topology().describe().to_json();
    assert_golden(&json, include_str!("golden/describe.json"), "describe.json");
}
