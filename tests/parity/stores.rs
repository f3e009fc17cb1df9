//! Stores as processors use them: the value of a record says what is done, and what it finds goes on.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::rc::Rc;
use std::time::Duration;

use millstream::dsl::{CustomStore, StoreContext};
use millstream::prelude::*;
use millstream::state::{DirtySink, StateStore};

use crate::cases;

cases![
    store_key_value,
    store_key_value_in_memory,
    store_window,
    store_session,
    store_with_headers,
    store_window_with_headers,
    store_session_with_headers,
    store_custom,
];

const RETENTION: Duration = Duration::from_millis(4000);

/// Of each record: what a store answers.
struct Asking<S>(
    S,
    fn(&S, &Record<String, String>) -> Result<String, BoxError>,
);

impl<S> Processor<String, String, String, String> for Asking<S> {
    fn process(
        &mut self,
        context: &mut ProcessorContext<'_, String, String>,
        record: Record<String, String>,
    ) -> Result<(), BoxError> {
        let answer = format!("{} {}", record.value, (self.1)(&self.0, &record)?);
        Ok(context.forward(record.with_value(answer))?)
    }
}

/// The case of one store.
macro_rules! asking {
    ($builder:ident, $store:expr, $answer:path) => {{
        let store = $store;
        $builder
            .stream("in", Consumed::with(serdes::string(), serdes::string()))
            .process("asking", (&store,), |_, (store,)| Asking(store, $answer))
            .to("out", Produced::with(serdes::string(), serdes::string()));
    }};
}

fn texts() -> Materialized<String, String> {
    Materialized::as_store("store", serdes::string(), serdes::string())
}

fn with_headers() -> Materialized<String, WithHeaders<String>> {
    Materialized::with_headers("store", serdes::string(), serdes::string())
}

/// A value that tells when it was written.
fn written(record: &Record<String, String>) -> String {
    format!("{}{}", record.key, record.timestamp)
}

fn kept(record: &Record<String, String>) -> WithHeaders<String> {
    WithHeaders::new(written(record), record.headers.clone())
}

/// A window of a time: they begin at multiples of half a second.
fn start(record: &Record<String, String>) -> Timestamp {
    record.timestamp / 500 * 500
}

/// A session around a time, whose length depends on the key.
fn session(record: &Record<String, String>) -> Windowed<String> {
    let length = 400 * Timestamp::try_from(record.key.len()).unwrap();
    let start = start(record);
    Windowed::new(record.key.clone(), Window::new(start, start + length))
}

fn show(value: Option<impl Display>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

fn timed((value, time): (String, Timestamp)) -> String {
    format!("{value}@{time}")
}

fn listed<T, E: Into<BoxError>>(
    entries: impl IntoIterator<Item = Result<T, E>>,
    show: impl Fn(T) -> String,
) -> Result<String, BoxError> {
    let shown: Result<Vec<String>, E> = entries.into_iter().map(|entry| entry.map(&show)).collect();
    Ok(shown.map_err(Into::into)?.join(","))
}

fn headers(headers: &Headers) -> String {
    let show = |(name, value): (&str, Option<&[u8]>)| {
        let value = value.map_or("null".into(), String::from_utf8_lossy);
        format!("[{name}:{value}]")
    };
    headers.iter().map(show).collect()
}

type KeyValues = StoreRef<String, String>;

fn key_values(store: &KeyValues, record: &Record<String, String>) -> Result<String, BoxError> {
    let (key, value) = (&record.key, written(record));
    let (from, to) = ("ab".to_owned(), key.clone());
    let entry = |store: &KeyValues, key: &String| -> Result<String, BoxError> {
        let found = store.get_with_timestamp(key)?;
        Ok(show(found.map(timed)))
    };
    // Scans have no timestamps here: they are looked up, as Kafka Streams' values have theirs.
    let list = |entries: Vec<String>| -> Result<String, BoxError> {
        let shown: Result<Vec<String>, BoxError> = entries
            .iter()
            .map(|key| Ok(format!("{key}={}", entry(store, key)?)))
            .collect();
        Ok(shown?.join(","))
    };
    let keys = |entries: Vec<(String, String)>| entries.into_iter().map(|(key, _)| key).collect();
    let answer = match record.value.as_str() {
        "put" => {
            store.put(key.clone(), value)?;
            String::new()
        }
        "put-if-absent" => {
            let before = store.get_with_timestamp(key)?;
            let found = store.put_if_absent(key.clone(), value)?;
            assert_eq!(found, before.clone().map(|(value, _)| value));
            show(before.map(timed))
        }
        "put-all" => {
            store.put_all([(key.clone(), value.clone()), (format!("{key}b"), value)])?;
            String::new()
        }
        "delete" => {
            let before = store.get_with_timestamp(key)?;
            let found = store.delete(key)?;
            assert_eq!(found, before.clone().map(|(value, _)| value));
            show(before.map(timed))
        }
        "get" => entry(store, key)?,
        "range" => list(keys(store.range(from..=to)?.collect::<Result<_, _>>()?))?,
        "reverse-range" => list(keys(
            store.reverse_range(from..=to)?.collect::<Result<_, _>>()?,
        ))?,
        "prefix-scan" => list(keys(
            store
                .prefix_scan(key.as_bytes())
                .collect::<Result<_, _>>()?,
        ))?,
        "all" => list(keys(store.all().collect::<Result<_, _>>()?))?,
        _ => list(keys(store.reverse_range(..)?.collect::<Result<_, _>>()?))?,
    };
    Ok(answer)
}

fn store_key_value(builder: &StreamsBuilder) {
    asking!(builder, builder.add_state_store(texts()), key_values);
}

fn store_key_value_in_memory(builder: &StreamsBuilder) {
    let store = builder.add_state_store(texts().in_memory());
    asking!(builder, store, key_values);
}

type Windows = WindowStore<String, String>;

fn windows(store: &Windows, record: &Record<String, String>) -> Result<String, BoxError> {
    let (key, start) = (&record.key, start(record));
    let starts = start - 1500..=start + 500;
    let keys = "ab".to_owned().."b\0".to_owned();
    let time =
        |entry: WindowEntryOf| format!("{}={}@{}", entry.start, entry.value, entry.timestamp);
    let full = |entry: WindowEntryOf| {
        let WindowEntryOf {
            key,
            start,
            value,
            timestamp,
        } = entry;
        format!("{key}{start}={value}@{timestamp}")
    };
    match record.value.as_str() {
        "put" => store.put(key.clone(), written(record), start).map(drop)?,
        "delete" => store.delete(key, start).map(drop)?,
        "fetch" => return Ok(show(store.fetch_with_timestamp(key, start)?.map(timed))),
        "fetch-range" => return listed(store.fetch_range(key, starts)?, time),
        "backward-fetch-range" => return listed(store.backward_fetch_range(key, starts)?, time),
        "fetch-keys" => return listed(store.fetch_key_range(keys, starts)?, full),
        "backward-fetch-keys" => {
            return listed(store.backward_fetch_key_range(keys, starts)?, full);
        }
        "fetch-all" => return listed(store.fetch_all(starts), full),
        "backward-fetch-all" => return listed(store.backward_fetch_all(starts), full),
        "all" => return listed(store.all(), full),
        _ => return listed(store.backward_all(), full),
    }
    Ok(String::new())
}

type WindowEntryOf = millstream::state::WindowEntry<String, String>;

fn store_window(builder: &StreamsBuilder) {
    let store = builder.add_window_store(texts(), RETENTION);
    asking!(builder, store, windows);
}

type Sessions = SessionStore<String, String>;

fn sessions(store: &Sessions, record: &Record<String, String>) -> Result<String, BoxError> {
    let (key, session) = (&record.key, session(record));
    let window = session.window;
    let (earliest_end, latest_start) = (window.start() - 1000, window.start() + 500);
    let keys = "ab".to_owned().."b\0".to_owned();
    let full = |(session, value): (Windowed<String>, String)| {
        let Windowed { key, window } = session;
        format!("{key}{}-{}={value}", window.start(), window.end())
    };
    match record.value.as_str() {
        "put" => store.put(session, written(record)).map(drop)?,
        "remove" => store.remove(&session).map(drop)?,
        "fetch-session" => {
            return Ok(show(store.fetch_session_at(
                key,
                window.start(),
                window.end(),
            )?));
        }
        "find-sessions" => {
            return listed(store.find_sessions(key, earliest_end, latest_start)?, full);
        }
        "backward-find-sessions" => {
            let found = store.backward_find_sessions(key, earliest_end, latest_start)?;
            return listed(found, full);
        }
        "find-sessions-of-keys" => {
            let found = store.find_sessions_of_keys(keys, earliest_end, latest_start)?;
            return listed(found, full);
        }
        "backward-find-sessions-of-keys" => {
            let found = store.backward_find_sessions_of_keys(keys, earliest_end, latest_start)?;
            return listed(found, full);
        }
        "fetch" => return listed(store.fetch(key)?, full),
        "backward-fetch" => return listed(store.backward_fetch(key)?, full),
        "fetch-keys" => return listed(store.fetch_key_range(keys)?, full),
        _ => return listed(store.backward_fetch_key_range(keys)?, full),
    }
    Ok(String::new())
}

fn store_session(builder: &StreamsBuilder) {
    let store = builder.add_session_store(texts(), RETENTION);
    asking!(builder, store, sessions);
}

fn shown(found: (WithHeaders<String>, Timestamp)) -> String {
    let (
        WithHeaders {
            value,
            headers: kept,
        },
        time,
    ) = found;
    format!("{value}@{time}{}", headers(&kept))
}

fn headered_values(
    store: &StoreRef<String, WithHeaders<String>>,
    record: &Record<String, String>,
) -> Result<String, BoxError> {
    let found = match record.value.as_str() {
        "put" => {
            store.put(record.key.clone(), kept(record))?;
            return Ok(String::new());
        }
        "delete" => {
            let before = store.get_with_timestamp(&record.key)?;
            store.delete(&record.key)?;
            before
        }
        _ => store.get_with_timestamp(&record.key)?,
    };
    Ok(show(found.map(shown)))
}

fn store_with_headers(builder: &StreamsBuilder) {
    let store = builder.add_state_store(with_headers());
    asking!(builder, store, headered_values);
}

fn headered_windows(
    store: &WindowStore<String, WithHeaders<String>>,
    record: &Record<String, String>,
) -> Result<String, BoxError> {
    let (key, start) = (&record.key, start(record));
    match record.value.as_str() {
        "put" => store.put(key.clone(), kept(record), start).map(drop)?,
        "delete" => store.delete(key, start).map(drop)?,
        _ => return Ok(show(store.fetch_with_timestamp(key, start)?.map(shown))),
    }
    Ok(String::new())
}

fn store_window_with_headers(builder: &StreamsBuilder) {
    let store = builder.add_window_store(with_headers(), RETENTION);
    asking!(builder, store, headered_windows);
}

fn headered_sessions(
    store: &SessionStore<String, WithHeaders<String>>,
    record: &Record<String, String>,
) -> Result<String, BoxError> {
    let session = session(record);
    match record.value.as_str() {
        "put" => store.put(session, kept(record)).map(drop)?,
        "delete" => store.remove(&session).map(drop)?,
        _ => {
            let found = store.fetch_session(&session)?;
            let text = |found: WithHeaders<String>| found.value + &headers(&found.headers);
            return Ok(show(found.map(text)));
        }
    }
    Ok(String::new())
}

fn store_session_with_headers(builder: &StreamsBuilder) {
    let store = builder.add_session_store(with_headers(), RETENTION);
    asking!(builder, store, headered_sessions);
}

/// A store of one's own: the highest number of each key, in memory and not logged.
#[derive(Default)]
struct Highest {
    highest: BTreeMap<String, i64>,
    undo: Vec<(String, Option<i64>)>,
}

impl Highest {
    fn raise(&mut self, key: &str, number: i64) -> i64 {
        let before = self.highest.get(key).copied();
        let raised = before.map_or(number, |before| before.max(number));
        self.highest.insert(key.to_owned(), raised);
        self.undo.push((key.to_owned(), before));
        raised
    }
}

impl StateStore for Highest {
    fn name(&self) -> &'static str {
        "store"
    }

    fn release_savepoint(&mut self) {
        self.undo.clear();
    }

    fn rollback_savepoint(&mut self) {
        while let Some((key, before)) = self.undo.pop() {
            match before {
                Some(before) => drop(self.highest.insert(key, before)),
                None => drop(self.highest.remove(&key)),
            }
        }
    }

    fn drain_dirty(&mut self, _sink: &mut dyn DirtySink) -> Result<(), StateError> {
        Ok(())
    }

    fn mark_committed(&mut self) {}

    fn discard_uncommitted(&mut self) {
        self.highest.clear();
    }

    fn uncommitted_bytes(&self) -> usize {
        0
    }

    fn is_dirty(&self) -> bool {
        false
    }
}

#[derive(Clone)]
struct HighestRef(Rc<RefCell<Highest>>);

impl CustomStore for HighestRef {
    fn state_store(&self) -> Rc<RefCell<dyn StateStore>> {
        Rc::<RefCell<Highest>>::clone(&self.0)
    }
}

fn bids(store: &HighestRef, record: &Record<String, String>) -> Result<String, BoxError> {
    let number = record.value.parse()?;
    Ok(store.0.borrow_mut().raise(&record.key, number).to_string())
}

fn store_custom(builder: &StreamsBuilder) {
    let store = StoreBuilder::as_store("store", serdes::string(), serdes::i64());
    let store = store.in_memory().no_changelog();
    let store = builder.add_custom_store(store, |_: StoreContext<String, i64>| {
        Ok(HighestRef(Rc::default()))
    });
    asking!(builder, store, bids);
}
