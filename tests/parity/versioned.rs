//! Versioned stores and tables.

use std::time::Duration;

use millstream::prelude::*;

use crate::aggregations::{store, writes_counts, writes_texts};
use crate::cases;
use crate::joins::foreign_key;
use crate::stateless::{Text, java, nullable, writes};

cases![
    versioned_store,
    versioned_table,
    versioned_table_filter,
    versioned_to_table,
    versioned_stream_table_join,
    versioned_stream_table_left_join,
    versioned_table_table_join,
    versioned_table_table_left_join,
    versioned_foreign_key_join,
    versioned_foreign_key_left_join,
    versioned_foreign_key_join_left,
    versioned_table_group_count,
    versioned_stream_table_join_grace,
    versioned_stream_table_left_join_grace,
];

const HISTORY: Duration = Duration::from_millis(3000);

fn kept(name: &str) -> Materialized<Text, String> {
    store(name, serdes::string()).versioned(HISTORY)
}

fn versioned(builder: &StreamsBuilder, topic: &str) -> KTable<Text, String> {
    let consumed = Consumed::with(serdes::optional(serdes::string()), serdes::string());
    builder.table(topic, consumed, kept(&format!("{topic}-store")))
}

/// Writes each record and says what the store then knows of now, of before, and of long ago.
struct Versions(VersionedStore<Text, String>);

/// Without the end of its time, which Kafka Streams' typed store loses.
fn show(version: Option<VersionedRecord<String>>) -> String {
    version.map_or_else(
        || "none".to_owned(),
        |version| format!("{}@{}", version.value, version.timestamp),
    )
}

impl Processor<Text, Text, Text, Text> for Versions {
    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, Text, Text>,
        record: Record<Text, Text>,
    ) -> Result<(), BoxError> {
        let (key, time) = (&record.key, record.timestamp);
        let mut known = match record.value.as_deref() {
            Some("9") => format!("deleted {}", show(self.0.delete(key, time)?)),
            value => {
                let value = value.map(str::to_owned);
                outcome(self.0.put_or_delete(key.clone(), value, time)?)
            }
        };
        known += &format!(" now {}", show(self.0.get(key)?));
        for ago in [0, 300, 1500, 2900, 6000] {
            let version = self.0.get_as_of(key, time - ago)?;
            known += &format!(" -{ago} {}", show(version));
        }
        Ok(context.forward(record.with_value(Some(known)))?)
    }
}

fn outcome(put: VersionedPut) -> String {
    match put {
        VersionedPut::Latest => "latest".to_owned(),
        VersionedPut::SupersededAt(time) => format!("until {time}"),
        VersionedPut::Expired => "expired".to_owned(),
    }
}

fn versioned_store(builder: &StreamsBuilder) {
    let versions = builder.add_versioned_store(store("versions", serdes::string()), HISTORY);
    nullable(builder)
        .process("versions", (&versions,), |_, (versions,)| {
            Versions(versions)
        })
        .to("out", writes());
}

fn versioned_table(builder: &StreamsBuilder) {
    versioned(builder, "in")
        .to_stream()
        .to("out", writes_texts());
}

fn versioned_table_filter(builder: &StreamsBuilder) {
    versioned(builder, "in")
        .filter(|_, value| value.as_str() < "5")
        .map_values(|_, value| value + "!")
        .to_stream()
        .to("out", writes_texts());
}

fn versioned_to_table(builder: &StreamsBuilder) {
    nullable(builder)
        .to_table(kept("latest"))
        .to_stream()
        .to("out", writes_texts());
}

fn versioned_stream_table_join(builder: &StreamsBuilder) {
    nullable(builder)
        .join_table(
            &versioned(builder, "table"),
            |_, value, found| Some(java(&value).to_owned() + &found),
            Joined::as_name("joined"),
        )
        .to("out", writes());
}

fn versioned_stream_table_left_join(builder: &StreamsBuilder) {
    let table = versioned(builder, "table")
        .filter(|_, value| value.as_str() < "7")
        .map_values(|_, value| value + "!");
    nullable(builder)
        .left_join_table(
            &table,
            |_, value, found| Some(java(&value).to_owned() + java(&found)),
            Joined::as_name("joined"),
        )
        .to("out", writes());
}

fn versioned_table_table_join(builder: &StreamsBuilder) {
    versioned(builder, "in")
        .join(&versioned(builder, "table"), |_, left, right| left + &right)
        .to_stream()
        .to("out", writes_texts());
}

fn versioned_table_table_left_join(builder: &StreamsBuilder) {
    let consumed = Consumed::with(serdes::optional(serdes::string()), serdes::string());
    let table = builder.table("table", consumed, store("unversioned", serdes::string()));
    versioned(builder, "in")
        .left_join(&table, |_, left, right| left + java(&right))
        .to_stream()
        .to("out", writes_texts());
}

fn foreign_joined(left: &KTable<Text, String>, right: &KTable<Text, String>) {
    left.join_foreign_key(
        right,
        |_, value| foreign_key(value),
        |_, left, right| format!("{left}:{right}"),
        TableJoined::as_name("fk"),
        store("joined", serdes::string()),
    )
    .to_stream()
    .to("out", writes_texts());
}

fn versioned_foreign_key_join(builder: &StreamsBuilder) {
    foreign_joined(&versioned(builder, "in"), &versioned(builder, "table"));
}

fn versioned_foreign_key_left_join(builder: &StreamsBuilder) {
    versioned(builder, "in")
        .left_join_foreign_key(
            &versioned(builder, "table"),
            |_, value| foreign_key(value),
            |_, left, right| format!("{left}:{}", java(&right)),
            TableJoined::as_name("fk"),
            store("joined", serdes::string()),
        )
        .to_stream()
        .to("out", writes_texts());
}

fn versioned_foreign_key_join_left(builder: &StreamsBuilder) {
    let consumed = Consumed::with(serdes::optional(serdes::string()), serdes::string());
    let table = builder.table("table", consumed, store("unversioned", serdes::string()));
    foreign_joined(&versioned(builder, "in"), &table);
}

fn versioned_table_group_count(builder: &StreamsBuilder) {
    let text = || serdes::optional(serdes::string());
    versioned(builder, "in")
        .group_by(
            |key, value| (Some(value), key.clone()),
            Grouped::with("by-value", text(), text()),
        )
        .count(store("counts", serdes::i64()))
        .to_stream()
        .to("out", writes_counts());
}

fn grace() -> Joined<Text, Text> {
    Joined::as_name("joined").with_grace_period(Duration::from_millis(1200))
}

fn versioned_stream_table_join_grace(builder: &StreamsBuilder) {
    nullable(builder)
        .join_table(
            &versioned(builder, "table"),
            |key, value, found| Some(format!("{}:{}{found}", java(key), java(&value))),
            grace(),
        )
        .to("out", writes());
}

fn versioned_stream_table_left_join_grace(builder: &StreamsBuilder) {
    nullable(builder)
        .left_join_table(
            &versioned(builder, "table"),
            |key, value, found| Some(format!("{}:{}{}", java(key), java(&value), java(&found))),
            grace(),
        )
        .to("out", writes());
}
