//! `millstream feed`: fills a deployment's input topics from a file, by one of its topology's feeds.
//!
//! # Invariants
//! - Topics are those of the configuration, created as `run` would create them.
//! - Reference data is in the log before the first record.
//! - Nothing is written unless all of the file can be read.
//! # Failure
//! A log that is away for a while is waited for. What was written before an end is in the log: records
//! carry ids, so that the feed can be run again. They say the same again only where times are moved by as
//! many days: that is what `--shift-days` is for.

use std::path::Path;
use std::time::{Duration, Instant};

use super::args::{Feed as Arguments, Speed};
use super::load::{Loaded, load, runtime_config};
use super::outcome::{Exit, complain, print};
use super::{ExitCode, LogChoice, log_choice, retention};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::log::{Log, LogError, LogProducer, ProducerRecord, ProducerSpec};
use crate::packaged::{Feed, FeedError, FeedRecord, FeedRequest, FeedSource, PackagedTopology};
use crate::runtime::{ResolvedTopology, TopicsError, ensure_topics};
use crate::topology::TopicRef;

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;
/// Records that are on their way at most.
const BATCH: usize = 10_000;
/// For how long a log that does not answer is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// For `transaction.timeout.ms`, which an idempotent producer has no use for.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn feed(
    arguments: &Arguments,
    topologies: &[&dyn PackagedTopology],
) -> Result<(), Exit> {
    let deployment = arguments.deployment();
    let loaded = load(&deployment, topologies)?;
    let feeds = topologies
        .iter()
        .find(|topology| topology.name() == loaded.config.topology)
        .map(|topology| topology.feeds())
        .unwrap_or_default();
    let feed = choose(&feeds, &arguments.name, &loaded.config.topology)?;
    let now = SystemClock.now_ms();
    let source = match arguments.shift_days {
        Some(days) => open_moved_by(feed, &arguments.file, now, days)?,
        None => {
            let mut request = FeedRequest::new(&arguments.file, now);
            if arguments.keep_times {
                request = request.with_times_kept();
            }
            open(feed, &request)?
        }
    };
    match deployment.log() {
        LogChoice::Kafka => {
            let log = log_choice::kafka(&loaded.config)?;
            feed_to(&log, &loaded, source, arguments.speed)
        }
        LogChoice::EmbeddedIn(dir) => {
            let log = log_choice::in_directory(&dir, ExitCode::Refused)?;
            feed_to(&log, &loaded, source, arguments.speed)
        }
        LogChoice::EmbeddedInMemory => Err(Exit::new(
            ExitCode::Usage,
            "a log in memory would be gone with the feed: write `--embedded=DIR`",
        )),
    }
}

fn open(feed: &dyn Feed, request: &FeedRequest) -> Result<FeedSource, Exit> {
    feed.open(request)
        .map_err(|error| Exit::because(ExitCode::Failure, &error))
}

/// Opens a file with its times moved by `days`, whatever the time of day is.
///
/// A feed moves times by whole days up to a time that it is given. By how many up to now is seen by opening
/// the file twice; up to as many days earlier as are too many, it moves them by `days`.
fn open_moved_by(
    feed: &dyn Feed,
    file: &Path,
    now: Timestamp,
    days: i64,
) -> Result<FeedSource, Exit> {
    let kept = open(feed, &FeedRequest::new(file, now).with_times_kept())?;
    let most = open(feed, &FeedRequest::new(file, now))?;
    let (Some(first), Some(latest)) = (kept.first, most.first) else {
        return Ok(kept);
    };
    let shift = days.saturating_mul(DAY_MS);
    let surplus = latest.saturating_sub(first).saturating_sub(shift);
    if surplus < 0 {
        let most = latest.saturating_sub(first).div_euclid(DAY_MS);
        let message =
            format!("error: `--shift-days {days}` moves times past now; at most {most} does not");
        return Err(Exit::new(ExitCode::Usage, message));
    }
    let until = FeedRequest::new(file, now.saturating_sub(surplus));
    let mut source = open(feed, &until)?;
    if source.first != Some(first.saturating_add(shift)) {
        let message = format!(
            "error: feed `{}` does not move times by whole days",
            feed.name()
        );
        return Err(Exit::new(ExitCode::Bug, message));
    }
    for record in &mut source.preamble {
        // Reference data is of now, whenever records are of.
        record.timestamp = now;
    }
    Ok(source)
}

fn choose<'a>(
    feeds: &'a [Box<dyn Feed>],
    name: &str,
    topology: &str,
) -> Result<&'a dyn Feed, Exit> {
    let found = feeds.iter().find(|feed| feed.name() == name);
    found.map(|feed| &**feed).ok_or_else(|| {
        let known: Vec<String> = feeds
            .iter()
            .map(|feed| format!("\n  {}  {}", feed.name(), feed.about()))
            .collect();
        let known = if known.is_empty() {
            "it has none".to_owned()
        } else {
            format!("it has:{}", known.concat())
        };
        let message = format!("error: topology `{topology}` has no feed `{name}`; {known}");
        Exit::new(ExitCode::Usage, message)
    })
}

fn feed_to<L: Log>(log: &L, loaded: &Loaded, source: FeedSource, speed: Speed) -> Result<(), Exit> {
    let FeedSource {
        preamble,
        records,
        summary,
        first,
    } = source;
    print(&summary);
    let config = runtime_config(&loaded.config, None);
    let topology = prepare(|| ensure_topics(log, &loaded.topology, &config))?;
    if let Some(first) = first {
        let outlived = retention::outlived(&loaded.topology, &config, first, SystemClock.now_ms());
        if !outlived.is_empty() {
            let (topics, advice) = (outlived.join(", "), retention::ADVICE);
            complain(format_args!(
                "warning: the first records are older than {topics} keep them; {advice}"
            ));
        }
    }
    let spec = ProducerSpec {
        transactional_id: None,
        transaction_timeout: TRANSACTION_TIMEOUT,
        client_id: format!("{}-feed", loaded.config.application_id),
    };
    let producer = log
        .producer(&spec)
        .map_err(|error| Exit::because(ExitCode::Unavailable, &error))?;
    let mut writer = Writer {
        producer,
        topology: &topology,
        pending: 0,
    };
    let references = preamble.len();
    for record in preamble {
        writer.write(&record)?;
    }
    writer.flush()?;
    let began = Instant::now();
    let mut written: usize = 0;
    for record in records {
        let record = record.map_err(|error: FeedError| Exit::because(ExitCode::Failure, &error))?;
        if let (Speed::Times(times), Some(first)) = (speed, first) {
            writer.wait_until(due(began, record.timestamp, first, times))?;
        }
        writer.write(&record)?;
        written += 1;
    }
    writer.flush()?;
    print(format_args!(
        "written: {references} reference records, {written} messages, in {:.1} s",
        began.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// Returns when a record is due, at so many times the speed of the feed's own time.
#[expect(
    clippy::cast_precision_loss,
    reason = "milliseconds of a feed are exact in an f64"
)]
fn due(began: Instant, timestamp: Timestamp, first: Timestamp, times: f64) -> Instant {
    let after = timestamp.saturating_sub(first).max(0) as f64 / 1_000.0 / times;
    let after = Duration::try_from_secs_f64(after).unwrap_or(Duration::MAX);
    began.checked_add(after).unwrap_or(began)
}

/// Waits for the log to be there.
fn prepare(
    mut attempt: impl FnMut() -> Result<ResolvedTopology, TopicsError>,
) -> Result<ResolvedTopology, Exit> {
    let began = Instant::now();
    loop {
        match attempt() {
            Ok(topology) => return Ok(topology),
            Err(TopicsError::Log(LogError::Retriable { .. } | LogError::UnknownTopic { .. }))
                if began.elapsed() < PATIENCE =>
            {
                std::thread::park_timeout(RETRY_PAUSE);
            }
            Err(error @ TopicsError::Log(_)) => {
                return Err(Exit::because(ExitCode::Unavailable, &error));
            }
            Err(error) => return Err(Exit::because(ExitCode::Failure, &error)),
        }
    }
}

struct Writer<'a, P> {
    producer: P,
    topology: &'a ResolvedTopology,
    /// Records since the last flush.
    pending: usize,
}

impl<P: LogProducer> Writer<'_, P> {
    fn write(&mut self, record: &FeedRecord) -> Result<(), Exit> {
        let reference = TopicRef::Declared(record.topic.to_owned());
        let topic = self.topology.topics.get(&reference).ok_or_else(|| {
            let message = format!(
                "error: the feed writes `{}`, which is no topic",
                record.topic
            );
            Exit::new(ExitCode::Bug, message)
        })?;
        self.producer
            .send(ProducerRecord {
                topic: &topic.name,
                partition: None,
                key: Some(&record.key),
                value: Some(&record.value),
                timestamp: record.timestamp,
                headers: &record.headers,
            })
            .map_err(|error| Exit::because(ExitCode::Failure, &error))?;
        self.pending += 1;
        if self.pending >= BATCH {
            self.flush()?;
        }
        Ok(())
    }

    /// Waits until all records are in the log.
    fn flush(&mut self) -> Result<(), Exit> {
        let began = Instant::now();
        loop {
            match self.producer.flush() {
                Ok(()) => break,
                Err(error) if error.is_retriable() && began.elapsed() < PATIENCE => {
                    tracing::warn!(%error, "records not written yet");
                }
                Err(error) => return Err(Exit::because(ExitCode::Unavailable, &error)),
            }
        }
        self.pending = 0;
        Ok(())
    }

    /// Lets what was written arrive, and waits.
    fn wait_until(&mut self, due: Instant) -> Result<(), Exit> {
        if due <= Instant::now() {
            return Ok(());
        }
        if self.pending > 0 {
            self.flush()?;
        }
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::park_timeout(left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Headers;

    /// The time of the file's last record.
    const LAST: Timestamp = 40 * DAY_MS + 7_000;

    /// Two records a day apart, moved as a feed does.
    struct Two;

    impl Feed for Two {
        fn name(&self) -> &str {
            "two"
        }

        fn about(&self) -> &str {
            "Two records"
        }

        fn open(&self, request: &FeedRequest) -> Result<FeedSource, FeedError> {
            let shift = if request.keep_times {
                0
            } else {
                (request.now - LAST).div_euclid(DAY_MS) * DAY_MS
            };
            let record = |timestamp: Timestamp| FeedRecord {
                topic: "t",
                key: b"k".to_vec(),
                value: timestamp.to_string().into_bytes(),
                headers: Headers::new(),
                timestamp,
            };
            let times = [LAST - DAY_MS + shift, LAST + shift];
            Ok(FeedSource {
                preamble: vec![record(request.now)],
                records: Box::new(times.map(record).map(Ok).into_iter()),
                summary: String::new(),
                first: times.first().copied(),
            })
        }
    }

    fn moved(now: Timestamp, days: i64) -> Result<(Timestamp, Vec<FeedRecord>), Exit> {
        let source = open_moved_by(&Two, Path::new("f"), now, days)?;
        let records = source.records.collect::<Result<Vec<_>, _>>();
        let records = records.map_err(|error| Exit::because(ExitCode::Failure, &error))?;
        Ok((source.preamble[0].timestamp, records))
    }

    #[test]
    fn two_runs_with_the_same_shift_give_the_same_messages_at_any_time() {
        let first = LAST + 100 * DAY_MS + 5;
        let (at, expected) = moved(first, 100).unwrap();
        assert_eq!(at, first);
        assert_eq!(expected[1].timestamp, LAST + 100 * DAY_MS);
        for later in [first - 5, first + 1, first + DAY_MS - 6, first + 6 * DAY_MS] {
            assert_eq!(moved(later, 100).unwrap(), (later, expected.clone()));
        }
        let (_, back) = moved(first, -3).unwrap();
        assert_eq!(back[1].timestamp, LAST - 3 * DAY_MS);
    }

    #[test]
    fn a_shift_past_now_is_refused() {
        let now = LAST + 100 * DAY_MS + 5;
        assert!(moved(now, 101).is_err());
        assert!(moved(now, 1_000_000).is_err());
    }
}
