//! Foreign-key joins whose tables are not partitioned by murmur2 of their keys, whose right table is
//! versioned, and whose left values have no bytes of their own.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by a panic, in helpers as well"
)]

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::time::Duration;

use millstream::prelude::*;
use millstream::testing::TopologyTestDriver;
use serde::{Deserialize, Serialize};

const ORDERS: u32 = 12;
const PARTITIONS: i32 = 3;

fn texts() -> Consumed<String, String> {
    Consumed::with(serdes::string(), serdes::string())
}

fn store(name: &str) -> Materialized<String, String> {
    Materialized::as_store(name, serdes::string(), serdes::string())
}

/// The partition of a key that ends with a number, as writers choose it who count round.
#[expect(
    clippy::unnecessary_wraps,
    reason = "what partitioners of the DSL return"
)]
fn round_robin(key: &str, partitions: i32) -> Option<i32> {
    let number: i32 = key.rsplit('-').next().unwrap().parse().unwrap();
    Some(number % partitions)
}

/// A table of a topic that is written round robin.
fn counted_round(builder: &StreamsBuilder, name: &str) -> KTable<String, String> {
    let repartitioned = Repartitioned::with(name, serdes::string(), serdes::string())
        .partitioned_by(|key: &String, _, partitions| round_robin(key, partitions));
    builder
        .stream(name, texts())
        .repartition(repartitioned)
        .to_table(store(name))
}

fn joined(
    orders: &KTable<String, String>,
    products: &KTable<String, String>,
    how: TableJoined<String>,
) {
    orders
        .join_foreign_key(
            products,
            |_, product| Some(product.clone()),
            |_, _, name| name,
            how,
            store("named"),
        )
        .to_stream()
        .to(
            "out",
            Produced::with(serdes::string(), serdes::optional(serdes::string())),
        );
}

fn pipe(driver: &mut TopologyTestDriver, topic: &str, key: &str, value: &str) {
    let input = driver.input_topic(topic, serdes::string(), serdes::string());
    input
        .pipe(driver, key.to_owned(), value.to_owned())
        .unwrap();
}

fn last(driver: &mut TopologyTestDriver) -> BTreeMap<String, Option<String>> {
    let value = serdes::optional(serdes::string());
    let out = driver.output_topic::<String, Option<String>>("out", serdes::string(), value);
    let records = out.read_key_values(driver).unwrap();
    records.into_iter().collect()
}

/// Orders of four products, and what must come of it: first names, other names, and one product's end.
fn is_joined_whole(driver: &mut TopologyTestDriver) {
    let product = |order: u32| format!("product-{}", order % 4);
    for order in 0..ORDERS {
        pipe(driver, "orders", &format!("order-{order}"), &product(order));
    }
    for name in ["first", "second"] {
        for number in 0..4 {
            let product = format!("product-{number}");
            pipe(driver, "products", &product, &format!("{name} {product}"));
        }
        let expected: BTreeMap<_, _> = (0..ORDERS)
            .map(|order| {
                (
                    format!("order-{order}"),
                    Some(format!("{name} {}", product(order))),
                )
            })
            .collect();
        assert_eq!(last(driver), expected);
        driver.restart(true).unwrap();
    }
}

#[test]
fn answers_go_back_to_the_partition_that_has_asked() {
    let builder = StreamsBuilder::new();
    let orders = counted_round(&builder, "orders");
    let products = builder.table("products", texts(), store("products"));
    joined(&orders, &products, TableJoined::as_name("product-of-order"));
    let topology = builder.build().unwrap();
    let builder = TopologyTestDriver::builder().partitions(PARTITIONS);
    is_joined_whole(&mut builder.build(topology).unwrap());
}

#[test]
fn questions_go_where_the_other_table_has_its_keys() {
    let builder = StreamsBuilder::new();
    let orders = builder.table("orders", texts(), store("orders"));
    let products = counted_round(&builder, "products");
    let how = TableJoined::as_name("product-of-order")
        .other_partitioned_by(|key: &String, partitions| round_robin(key, partitions));
    joined(&orders, &products, how);
    let topology = builder.build().unwrap();
    let builder = TopologyTestDriver::builder().partitions(PARTITIONS);
    is_joined_whole(&mut builder.build(topology).unwrap());
}

#[test]
fn a_right_value_of_the_past_changes_no_result() {
    let builder = StreamsBuilder::new();
    let orders = builder.table("orders", texts(), store("orders"));
    let versions = store("products").versioned(Duration::from_secs(3600));
    let products = builder.table("products", texts(), versions);
    joined(&orders, &products, TableJoined::as_name("product-of-order"));
    let mut driver = TopologyTestDriver::new(builder.build().unwrap()).unwrap();
    let input = driver.input_topic("products", serdes::string(), serdes::string());
    let now = driver.now_ms();
    let product = |name: &str, at| Record::new("product-1".to_owned(), name.to_owned(), at);
    input
        .pipe_record(&mut driver, &product("new", now))
        .unwrap();
    pipe(&mut driver, "orders", "order-1", "product-1");
    input
        .pipe_record(&mut driver, &product("old", now - 50))
        .unwrap();
    let result = |name: &str| BTreeMap::from([("order-1".to_owned(), Some(name.to_owned()))]);
    assert_eq!(last(&mut driver), result("new"));
    input
        .pipe_record(&mut driver, &product("newer", now + 1))
        .unwrap();
    assert_eq!(last(&mut driver), result("newer"));
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Basket {
    product: String,
    amounts: HashMap<String, u32>,
}

#[test]
fn a_serde_that_writes_a_value_in_several_ways_is_refused_by_name_and_loses_no_answer_silently() {
    let builder = StreamsBuilder::new();
    let baskets = builder.table(
        "baskets",
        Consumed::with(serdes::string(), serdes::json::<Basket>()),
        Materialized::as_store("baskets", serdes::string(), serdes::json::<Basket>()),
    );
    let products = builder.table("products", texts(), store("products"));
    baskets
        .join_foreign_key(
            &products,
            |_, basket: &Basket| Some(basket.product.clone()),
            |_, _, name| name,
            TableJoined::as_name("product-of-basket"),
            store("named"),
        )
        .to_stream()
        .to(
            "out",
            Produced::with(serdes::string(), serdes::optional(serdes::string())),
        );
    let mut driver = TopologyTestDriver::new(builder.build().unwrap()).unwrap();
    let input = driver.input_topic("baskets", serdes::string(), serdes::json::<Basket>());
    let amounts = (0..40)
        .map(|number| (format!("part-{number}"), number))
        .collect();
    let product = "product-1".to_owned();
    input
        .pipe(
            &mut driver,
            "basket-1".to_owned(),
            Basket { product, amounts },
        )
        .unwrap();
    driver.restart(true).unwrap();
    let input = driver.input_topic("products", serdes::string(), serdes::string());
    let piped = input.pipe(&mut driver, "product-1".to_owned(), "name".to_owned());
    let error = piped.unwrap_err();
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    assert!(text.contains("use a `BTreeMap`"), "{text}");
}
