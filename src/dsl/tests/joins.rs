//! Joins against a model that joins whole tables: what the updates add up to must be what it says.

use std::collections::BTreeMap;

use proptest::prelude::{Just, Strategy, prop_oneof};
use proptest::{collection, option, proptest};

use super::harness::{TestApp, consumed, store};
use crate::prelude::*;

/// A write to one of two tables; `None` deletes.
type Write = (&'static str, u8, Option<u8>);

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let topic = prop_oneof![Just("left"), Just("right")];
    collection::vec((topic, 0..4_u8, option::weighted(0.8, 0..6_u8)), 0..60)
}

type Table = BTreeMap<String, String>;

/// The last value of every key that has one.
fn fold(table: &mut Table, key: String, value: Option<String>) {
    match value {
        Some(value) => drop(table.insert(key, value)),
        None => drop(table.remove(&key)),
    }
}

struct Joined {
    /// What the outputs add up to.
    found: Table,
    left: Table,
    right: Table,
}

/// Draws a topology of the tables `left` and `right`, writes to them, adds up its outputs.
fn run(
    writes: &[Write],
    draw: impl Fn(KTable<String, String>, KTable<String, String>) -> KTable<String, String>,
) -> Joined {
    let builder = StreamsBuilder::new();
    let table = |name: &str| builder.table(name, consumed(), store(name));
    draw(table("left"), table("right")).to_stream().to(
        "out",
        Produced::with(serdes::string(), serdes::optional(serdes::string())),
    );
    let mut app = TestApp::new(builder);
    let (mut left, mut right, mut found) = (Table::new(), Table::new(), Table::new());
    for (time, (topic, key, value)) in writes.iter().enumerate() {
        let key = key.to_string();
        // The first digit is a key of the other table.
        let value = value.map(|value| format!("{value}{time}"));
        let time = i64::try_from(time).unwrap();
        app.pipe(topic, key.as_str(), value.as_deref(), time)
            .unwrap();
        let table = if *topic == "left" {
            &mut left
        } else {
            &mut right
        };
        fold(table, key, value);
        for output in app.take_raw() {
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            fold(
                &mut found,
                text(output.key.unwrap()),
                output.value.map(text),
            );
        }
    }
    Joined { found, left, right }
}

fn keys(left: &Table, right: &Table) -> Vec<String> {
    let mut keys: Vec<String> = left.keys().chain(right.keys()).cloned().collect();
    keys.dedup();
    keys
}

fn text(side: Option<&String>) -> &str {
    side.map_or("none", String::as_str)
}

proptest! {
    #[test]
    fn an_inner_join_of_tables_has_the_keys_of_both(writes in writes()) {
        let joined = run(&writes, |left, right| {
            left.join(&right, |_, left, right| format!("{left}+{right}"))
        });
        let expected: Table = joined.left.iter()
            .filter_map(|(key, left)| {
                let right = joined.right.get(key)?;
                Some((key.clone(), format!("{left}+{right}")))
            })
            .collect();
        assert_eq!(joined.found, expected);
    }

    #[test]
    fn a_left_join_of_tables_has_the_keys_of_the_left_one(writes in writes()) {
        let joined = run(&writes, |left, right| {
            left.left_join(&right, |_, left, right| format!("{left}+{}", text(right.as_ref())))
        });
        let expected: Table = joined.left.iter()
            .map(|(key, left)| (key.clone(), format!("{left}+{}", text(joined.right.get(key)))))
            .collect();
        assert_eq!(joined.found, expected);
    }

    #[test]
    fn an_outer_join_of_tables_has_the_keys_of_either(writes in writes()) {
        let joined = run(&writes, |left, right| {
            left.outer_join(&right, |_, left, right| {
                format!("{}+{}", text(left.as_ref()), text(right.as_ref()))
            })
        });
        let expected: Table = keys(&joined.left, &joined.right).into_iter()
            .map(|key| {
                let (left, right) = (joined.left.get(&key), joined.right.get(&key));
                let value = format!("{}+{}", text(left), text(right));
                (key, value)
            })
            .collect();
        assert_eq!(joined.found, expected);
    }

    #[test]
    fn a_foreign_key_join_finds_the_right_value_of_every_left_entry(writes in writes()) {
        let joined = run(&writes, |left, right| {
            left.join_foreign_key(
                &right,
                |_, value| value.get(..1).map(str::to_owned),
                |_, left, right| format!("{left}+{right}"),
                TableJoined::as_name("fk"),
                store("joined"),
            )
        });
        let expected: Table = joined.left.iter()
            .filter_map(|(key, left)| {
                let right = joined.right.get(left.get(..1)?)?;
                Some((key.clone(), format!("{left}+{right}")))
            })
            .collect();
        assert_eq!(joined.found, expected);
    }

    #[test]
    fn a_left_foreign_key_join_has_every_left_entry(writes in writes()) {
        // A value that starts with 0 has no foreign key.
        let foreign_key = |value: &str| value.get(..1).filter(|key| *key != "0").map(str::to_owned);
        let joined = run(&writes, move |left, right| {
            left.left_join_foreign_key(
                &right,
                move |_, value| foreign_key(value),
                |_, left, right| format!("{left}+{}", text(right.as_ref())),
                TableJoined::as_name("fk"),
                store("joined"),
            )
        });
        let expected: Table = joined.left.iter()
            .map(|(key, left)| {
                let right = foreign_key(left).and_then(|key| joined.right.get(&key));
                (key.clone(), format!("{left}+{}", text(right)))
            })
            .collect();
        assert_eq!(joined.found, expected);
    }
}
