//! The observer: looks at a side from outside, in the same way whichever it is.
//!
//! Progress is what the group has committed; CPU and memory are what Linux counts for the process. So
//! neither side's own meters, and no code in its process, take part in what is measured.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use millstream::log::kafka::KafkaLog;
use millstream::log::{Isolation, Log, TopicPartition};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde::Serialize;

use crate::launch::Running;
use crate::process;
use crate::report::{Better, Figure};
use crate::topics::{PATIENCE, partitions_of, retry};

/// Time between two looks: what moments are exact to. A look costs the broker a request.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long an output must stand still behind a repartition topic that is worked off, to be at its end.
const STILL: Duration = Duration::from_secs(3);

/// A moment of a run.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Sample {
    /// Since the process was started.
    pub(crate) seconds: f64,
    /// CPU time, user and system.
    pub(crate) cpu_seconds: f64,
    /// Input records committed.
    pub(crate) committed: i64,
}

/// What a stretch of a run came to.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Speed {
    pub(crate) records_per_second: f64,
    pub(crate) cpu_us_per_record: f64,
}

/// A run as it was observed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Observed {
    /// From the start of the process to its first commit.
    pub(crate) first_commit_seconds: f64,
    /// From there to the last commit.
    pub(crate) whole: Speed,
    /// From the first commit at or beyond the middle.
    pub(crate) second_half: Speed,
    pub(crate) peak_rss_mib: f64,
    #[serde(skip)]
    pub(crate) series: Vec<Sample>,
}

/// What tells how far a side is.
pub(crate) struct Progress<'a> {
    log: &'a KafkaLog,
    /// Asks as the side's group without joining it, and by librdkafka alone.
    group: BaseConsumer,
    input: TopicPartitionList,
    records: i64,
    application: String,
    /// The output's partitions where it trails the input: behind a repartition topic.
    trailing: Option<Vec<TopicPartition>>,
}

impl<'a> Progress<'a> {
    /// Of the group `application`, which is to commit `records` of the partitions `input`.
    pub(crate) fn of(
        log: &'a KafkaLog,
        servers: &str,
        application: &str,
        input: &[TopicPartition],
        records: i64,
        trailing: Option<Vec<TopicPartition>>,
    ) -> Result<Self> {
        let mut partitions = TopicPartitionList::new();
        for at in input {
            partitions.add_partition(&at.topic, at.partition);
        }
        Ok(Self {
            log,
            group: ClientConfig::new()
                .set("bootstrap.servers", servers)
                .set("group.id", application)
                .set("enable.auto.commit", "false")
                // An open transaction is not waited for: what was committed last is the answer.
                .set("isolation.level", "read_uncommitted")
                .create()?,
            input: partitions,
            records,
            application: application.to_owned(),
            trailing,
        })
    }

    /// Returns whether the application's own topics, but for changelogs, are worked off.
    fn is_drained(&self) -> Result<bool> {
        let Some(output) = &self.trailing else {
            return Ok(true);
        };
        let count = i32::try_from(output.len())?;
        let is_output = |name: &str| {
            output
                .iter()
                .any(|at| AsRef::<str>::as_ref(&at.topic) == name)
        };
        let names = retry(|| self.log.topic_names())?;
        let internal: Vec<TopicPartition> = names
            .iter()
            .map(AsRef::<str>::as_ref)
            .filter(|name| name.starts_with(&self.application) && !name.ends_with("-changelog"))
            .filter(|name| !is_output(name))
            .flat_map(|name| partitions_of(name, count))
            .collect();
        let ends = retry(|| self.log.log_ranges(&internal, Isolation::ReadUncommitted))?;
        let committed = retry(|| self.log.group_offsets(&self.application, &internal))?;
        Ok(ends.iter().zip(committed).all(|(range, committed)| {
            let done = committed.map_or(range.start, |committed| committed.offset);
            // Behind the last record lies the marker of its transaction, which need not be passed.
            range.end - done <= 1
        }))
    }

    /// Returns how many records of the input are committed.
    fn committed(&self) -> Result<i64, KafkaError> {
        let offsets = self
            .group
            .committed_offsets(self.input.clone(), Duration::from_secs(5))?;
        let offsets = offsets.elements();
        let committed = offsets.iter().map(|found| match found.offset() {
            Offset::Offset(offset) => offset,
            _ => 0,
        });
        Ok(committed.sum())
    }

    /// Returns how far the output is, commit markers included.
    fn output(&self) -> Result<Option<i64>> {
        let Some(partitions) = &self.trailing else {
            return Ok(None);
        };
        let ranges = retry(|| self.log.log_ranges(partitions, Isolation::ReadCommitted))?;
        Ok(Some(ranges.iter().map(|range| range.end).sum()))
    }
}

/// What was seen of a run.
#[derive(Debug)]
pub(crate) struct Watched {
    series: Vec<Sample>,
    peak_rss_mib: f64,
}

/// Watches a side until it has committed the whole input.
pub(crate) fn watch(side: &mut Running, progress: &Progress<'_>) -> Result<Watched> {
    let mut series: Vec<Sample> = Vec::new();
    let (mut last, mut moved_at) = (0, Instant::now());
    let mut problem = None;
    loop {
        side.check()?;
        // A coordinator that is on the move is asked again.
        let committed = match progress.committed() {
            Ok(committed) => Some(committed),
            Err(error) => {
                problem = Some(error);
                None
            }
        };
        let output = progress.output()?;
        let now = Instant::now();
        let at = match (committed, output) {
            // What is in the repartition topic only is half done: a side may work off all of the input
            // before it writes the first output, or take turns.
            (Some(committed), Some(output)) => Some(committed + output),
            (committed, _) => committed,
        };
        if let Some(at) = at.filter(|at| *at > last) {
            (last, moved_at) = (at, now);
            series.push(Sample {
                seconds: (now - side.started).as_secs_f64(),
                cpu_seconds: process::cpu_time(side.pid())?.as_secs_f64(),
                committed: at,
            });
        }
        let input_done = committed.is_some_and(|committed| committed >= progress.records);
        let is_still = progress.trailing.is_none() || now - moved_at > STILL;
        if input_done && is_still && progress.is_drained()? {
            break;
        }
        ensure!(
            now - moved_at < PATIENCE,
            "no commit in {PATIENCE:?}, {last} of {} are; {problem:?}",
            progress.records
        );
        std::thread::park_timeout(LOOK_EVERY);
    }
    let peak_rss_mib = process::peak_rss_mib(side.pid())?;
    if progress.trailing.is_some() {
        scale(&mut series, progress.records);
    }
    Ok(Watched {
        series,
        peak_rss_mib,
    })
}

impl Observed {
    pub(crate) fn figures(&self) -> Vec<Figure> {
        let more = |name, value| Figure::new(name, Better::More, 0, value);
        let less = |name, decimals, value| Figure::new(name, Better::Less, decimals, value);
        let (whole, warm) = (self.whole, self.second_half);
        vec![
            more("records/s, whole run", whole.records_per_second),
            more("records/s, warmed up", warm.records_per_second),
            less("CPU µs per record, whole run", 2, whole.cpu_us_per_record),
            less("CPU µs per record, warmed up", 2, warm.cpu_us_per_record),
            less("start to first commit, s", 2, self.first_commit_seconds),
            less("peak RSS, MiB", 0, self.peak_rss_mib),
        ]
    }
}

impl Watched {
    /// Returns when the last record was committed, since the process was started.
    pub(crate) fn last_seconds(&self) -> Result<f64> {
        let last = self.series.last().context("nothing was committed")?;
        Ok(last.seconds)
    }

    /// Works out the figures of a run over `records`.
    pub(crate) fn figures(self, records: i64) -> Result<Observed> {
        let Self {
            series,
            peak_rss_mib,
        } = self;
        let (Some(first), Some(end)) = (series.first().copied(), series.last().copied()) else {
            bail!("nothing was committed");
        };
        let middle = series
            .iter()
            .find(|sample| sample.committed * 2 >= records)
            .copied()
            .context("the run has no middle")?;
        ensure!(
            first.committed < end.committed && middle.committed < end.committed,
            "the input is too short: it is committed at once"
        );
        Ok(Observed {
            first_commit_seconds: first.seconds,
            whole: speed(first, end),
            second_half: speed(middle, end),
            peak_rss_mib,
            series,
        })
    }
}

/// Turns a share of input and output together into as many records of the input.
fn scale(series: &mut [Sample], records: i64) {
    let Some(end) = series.last().map(|sample| sample.committed) else {
        return;
    };
    for sample in series {
        let share = i128::from(sample.committed) * i128::from(records) / i128::from(end);
        sample.committed = i64::try_from(share).unwrap_or(records);
    }
}

fn speed(from: Sample, to: Sample) -> Speed {
    #[expect(clippy::cast_precision_loss, reason = "far fewer records than 2^52")]
    let records = (to.committed - from.committed) as f64;
    Speed {
        records_per_second: records / (to.seconds - from.seconds),
        cpu_us_per_record: (to.cpu_seconds - from.cpu_seconds) * 1e6 / records,
    }
}
