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

use std::time::{Duration, Instant};

use super::args::{Feed as Arguments, Speed};
use super::load::{Loaded, load, runtime_config};
use super::outcome::{Exit, complain, print};
use super::{ExitCode, LogChoice, log_choice, retention};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::log::{Log, LogError, LogProducer, ProducerRecord, ProducerSpec};
use crate::packaged::{
    Feed, FeedError, FeedRecord, FeedRequest, FeedSource, FeedTimes, PackagedTopology,
};
use crate::runtime::{ResolvedTopology, TopicsError, ensure_topics};
use crate::topology::TopicRef;

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
    let times = match arguments.shift_days {
        Some(days) => FeedTimes::MovedByDays(days),
        None if arguments.keep_times => FeedTimes::Kept,
        None => FeedTimes::UpToNow,
    };
    let request = FeedRequest::new(&arguments.file, SystemClock.now_ms()).with_times(times);
    let source = open(feed, &request)?;
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
    feed.open(request).map_err(|error| match error {
        FeedError::PastNow { days, most } => Exit::new(
            ExitCode::Usage,
            format!("error: `--shift-days {days}` moves times past now; at most {most} does not"),
        ),
        error => Exit::because(ExitCode::Failure, &error),
    })
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
