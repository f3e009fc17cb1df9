//! The file of a replay: lines of JSON, the first of which says what it is, each other a
//! [`RecordLine`].
//!
//! ```text
//! {"format":"millstream-replay","version":1,"id":"…","source":"topic a","partitions":3,"records":2}
//! {"partition":0,"offset":7,"timestamp":1735689600000,"key":"a","value":"{…}","headers":[["h","v"]]}
//! ```
//! The number of records is in the first line, so that a file that was cut off is known as such.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::ExitCode;
use super::super::outcome::{Exit, print};
use super::position::Position;
use super::source::Source;
use crate::format::record_line::RecordLine;
use crate::sink::SinkRecord;

const FORMAT: &str = "millstream-replay";
/// The version that is written; no other is read.
const VERSION: u32 = 1;

/// The first line of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Heading {
    format: String,
    version: u32,
    /// Another for each file.
    pub(super) id: String,
    /// What was replayed.
    pub(super) source: String,
    /// The number of partitions of the topic.
    pub(super) partitions: i32,
    /// The number of lines that follow.
    pub(super) records: u64,
}

/// Writes the records of a source; the file is there when it is whole.
pub(super) fn write(source: &dyn Source, path: &Path, dry_run: bool) -> Result<(), Exit> {
    let failed = |error: std::io::Error| {
        let message = format!("error: cannot write `{}`: {error}", path.display());
        Exit::new(ExitCode::Failure, message)
    };
    if path.exists() {
        let message = format!("error: `{}` is there already", path.display());
        return Err(Exit::new(ExitCode::Refused, message));
    }
    let from = Position::starting(source.spans()?);
    let mut records: u64 = 0;
    print(format_args!(
        "{} into {}",
        source.describe(),
        path.display()
    ));
    if dry_run {
        source.read(&from, &mut |_, _, _| {
            records += 1;
            ControlFlow::Continue(())
        })?;
        print(format_args!("would write {records} records"));
        return Ok(());
    }
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut out = BufWriter::new(File::create(&part).map_err(failed)?);
    let mut heading = Heading {
        format: FORMAT.to_owned(),
        version: VERSION,
        id: uuid::Uuid::new_v4().to_string(),
        source: source.describe(),
        partitions: source.partitions(),
        records: u64::MAX,
    };
    // As wide as any number will be: it is written over at the end.
    let room = heading_line(&heading)?.len();
    let blank = vec![b' '; room];
    out.write_all(&blank)
        .and_then(|()| out.write_all(b"\n"))
        .map_err(failed)?;
    let mut trouble = None;
    source.read(&from, &mut |partition, record, _| {
        let line = RecordLine::of(partition, &record);
        let written = serde_json::to_writer(&mut out, &line).map_err(Into::into);
        match written.and_then(|()| out.write_all(b"\n")) {
            Ok(()) => {
                records += 1;
                ControlFlow::Continue(())
            }
            Err(error) => {
                trouble = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(error) = trouble {
        return Err(failed(error));
    }
    heading.records = records;
    let mut line = heading_line(&heading)?;
    line.resize(room, b' ');
    let finish = || -> std::io::Result<()> {
        out.flush()?;
        let mut file = out
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&line)?;
        // ORDER: on disk before it has its name, by which it counts as whole.
        file.sync_all()?;
        std::fs::rename(&part, path)
    };
    finish().map_err(failed)?;
    print(format_args!("written: {records} records"));
    Ok(())
}

fn heading_line(heading: &Heading) -> Result<Vec<u8>, Exit> {
    serde_json::to_vec(heading).map_err(|error| Exit::because(ExitCode::Bug, &error))
}

/// The records of a file, in its order.
pub(super) struct Lines {
    path: PathBuf,
    pub(super) heading: Heading,
    lines: std::io::Lines<BufReader<File>>,
    read: u64,
}

impl Lines {
    pub(super) fn open(path: &Path) -> Result<Self, Exit> {
        let file = File::open(path).map_err(|error| {
            let message = format!("error: cannot read `{}`: {error}", path.display());
            Exit::new(ExitCode::Failure, message)
        })?;
        let mut lines = BufReader::new(file).lines();
        let first = lines.next().transpose().ok().flatten();
        let heading: Option<Heading> = first.and_then(|line| serde_json::from_str(&line).ok());
        let ours = heading.filter(|it| it.format == FORMAT && it.version == VERSION);
        let Some(heading) = ours.filter(|heading| heading.partitions > 0) else {
            let message = format!(
                "error: `{}` is no file that `replay --to-file` has written (version {VERSION})",
                path.display()
            );
            return Err(Exit::new(ExitCode::Failure, message));
        };
        Ok(Self {
            path: path.to_owned(),
            heading,
            lines,
            read: 0,
        })
    }

    fn refuse(&self, problem: &str) -> Exit {
        let path = self.path.display();
        Exit::new(
            ExitCode::Failure,
            format!("error: record {} of `{path}` {problem}", self.read),
        )
    }
}

impl Iterator for Lines {
    type Item = Result<(i32, SinkRecord), Exit>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.read == self.heading.records {
            return None;
        }
        let line = self.lines.next();
        self.read += 1;
        let read = match line {
            None => Err(self.refuse("is missing: the file was cut off")),
            Some(Err(error)) => Err(self.refuse(&format!("does not read: {error}"))),
            Some(Ok(line)) => serde_json::from_str::<RecordLine>(&line)
                .map_err(|error| error.to_string())
                .and_then(|line| Ok((line.partition, line.into_record()?)))
                .map_err(|problem| self.refuse(&format!("does not read: {problem}"))),
        };
        Some(read)
    }
}
