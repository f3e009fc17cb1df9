//! Whole processes, with their threads, on any log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millstream::log::{Log, TopicSpec};
use millstream::metrics::Metrics;
use millstream::prelude::*;
use millstream::runtime::{App, AppSpec, RuntimeConfig, ensure_topics};
use millstream::state::StateDir;
use millstream::topology::Topology;

use super::{Place, config, sum, unique};

fn texts() -> Consumed<String, String> {
    Consumed::with(serdes::string(), serdes::string())
}

fn produced() -> Produced<String, String> {
    Produced::with(serdes::string(), serdes::string())
}

fn start<L: Log>(
    place: &Place<L>,
    topology: &Arc<Topology>,
    config: &RuntimeConfig,
) -> (App<L>, Metrics) {
    let metrics = Metrics::new();
    let topology = Arc::new(ensure_topics(&place.log, topology, config).unwrap());
    let state = StateDir::open(&config.state_dir, || unique("process")).unwrap();
    let app = App::start(AppSpec {
        log: place.log.clone(),
        topology,
        config: Arc::new(config.clone()),
        clock: Arc::clone(&place.clock),
        metrics: metrics.clone(),
        state: Arc::new(state),
    });
    (app.unwrap(), metrics)
}

fn stop<L: Log>(app: App<L>) {
    app.stop();
    app.join().unwrap();
}

fn create<L: Log>(place: &Place<L>, name: &str, partitions: i32) {
    let topic = TopicSpec {
        name: name.into(),
        partitions,
        replication_factor: None,
        config: BTreeMap::new(),
    };
    place.settle("create", || {
        place.log.create_topics(std::slice::from_ref(&topic))
    });
}

fn bytes(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Waits until a topic holds as many values as expected, and compares them in any order.
fn await_texts<L: Log>(place: &Place<L>, topic: &str, expected: &[&str]) {
    let mut found = place.until("the results", || {
        let found = place.texts(topic);
        (found.len() >= expected.len()).then_some(found)
    });
    found.sort();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

/// The thread of global state serves the stream threads, and goes on where it was.
pub(crate) fn a_process_that_starts_again_restores_the_tail_of_a_global_table<L: Log>(
    place: &Place<L>,
) {
    let [users, orders, out] = ["users", "orders", "out"].map(unique);
    let builder = StreamsBuilder::new();
    let store = Materialized::as_store("users", serdes::string(), serdes::string());
    let table = builder.global_table(&users, texts(), store);
    builder
        .stream(&orders, texts())
        .join_global_table(
            &table,
            |key, _| Some(key.clone()),
            |_, order, user| order + &user,
        )
        .to(&out, produced());
    let topology = Arc::new(builder.build().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let config = config(&unique("app"), &dir);
    ensure_topics(&place.log, &topology, &config).unwrap();
    place.write(&users, &bytes(&["Ann", "Bob", "Cid"]));

    let restored = |metrics: &Metrics| sum(metrics, "millstream_restore_records_total");
    let (app, metrics) = start(place, &topology, &config);
    place.until("ready", || app.health().ready.then_some(()));
    place.write(&orders, &bytes(&["1:"]));
    await_texts(place, &out, &["1:Cid"]);
    assert!(
        (restored(&metrics) - 3.0).abs() < 0.5,
        "{}",
        restored(&metrics)
    );
    stop(app);

    place.write(&users, &bytes(&["Dan"]));
    place.write(&orders, &bytes(&["2:"]));
    let (app, metrics) = start(place, &topology, &config);
    // No task began before the table had reached the topic's end.
    await_texts(place, &out, &["1:Cid", "2:Dan"]);
    assert!(
        (restored(&metrics) - 1.0).abs() < 0.5,
        "{}",
        restored(&metrics)
    );
    stop(app);
}

/// Two threads read what appears, whoever sees it first, and each record once.
pub(crate) fn a_topic_that_appears_under_a_pattern_is_read_by_a_running_process<L: Log>(
    place: &Place<L>,
) {
    let (prefix, out) = (unique("in"), unique("out"));
    let [first, second] = ["a", "b"].map(|end| format!("{prefix}-{end}"));
    let builder = StreamsBuilder::new();
    builder
        .stream_pattern(&format!("{prefix}-.*"), texts().named("inputs"))
        .to(&out, produced());
    let topology = Arc::new(builder.build().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&unique("app"), &dir);
    config.threads = 2;
    config.pattern_refresh_interval = Duration::from_millis(200);
    create(place, &first, 2);
    let (app, _metrics) = start(place, &topology, &config);
    place.write(&first, &bytes(&["1", "2"]));
    await_texts(place, &out, &["1", "2"]);

    create(place, &second, 2);
    place.write(&second, &bytes(&["3", "4"]));
    place.write(&first, &bytes(&["5"]));
    await_texts(place, &out, &["1", "2", "3", "4", "5"]);
    stop(app);

    place.write(&second, &bytes(&["6"]));
    let (app, _metrics) = start(place, &topology, &config);
    await_texts(place, &out, &["1", "2", "3", "4", "5", "6"]);
    stop(app);
}
