//! `millstream events`: of one aggregate, or of all in a period, by type and by actor.
//!
//! Pages are fetched as they are shown. Events of several aggregate types are merged by their time.

use std::collections::VecDeque;

use serde_json::Value;

use super::Events;
use super::ask::{Daemon, PAGE_ENTRIES, columns, shown, text_of};
use super::inspect::list;
use super::outcome::{Exit, complain, print};
use super::period::Period;
use crate::event_sourcing::parse_timestamp;

pub(super) fn events(arguments: &Events) -> Result<(), Exit> {
    let daemon = Daemon::of(&arguments.asked)?;
    let mut pages = match arguments.aggregate.as_deref() {
        Some([aggregate_type, aggregate_id]) => vec![Pages::of_one(aggregate_type, aggregate_id)],
        Some([aggregate_type]) => vec![Pages::of_all(aggregate_type, arguments)],
        Some(_) | None => {
            let types = daemon.get(&["aggregates"], &[])?;
            let types = list(&types, "aggregateTypes").iter();
            types
                .map(|of| Pages::of_all(of.as_str().unwrap_or_default(), arguments))
                .collect()
        }
    };
    let mut out = Output::new(arguments.asked.json);
    let mut left = arguments.limit.unwrap_or(usize::MAX);
    let wanted = Wanted::of(arguments)?;
    while left > 0 {
        for pages in &mut pages {
            pages.fill(&daemon, &mut out)?;
        }
        let earliest = pages
            .iter_mut()
            .filter(|pages| !pages.ready.is_empty())
            .min_by_key(|pages| pages.ready.front().map(|event| text_of(event, "timestamp")));
        let Some(event) = earliest.and_then(|pages| pages.ready.pop_front()) else {
            break;
        };
        if wanted.takes(&event) {
            out.push(event);
            left -= 1;
        }
    }
    out.flush();
    Ok(())
}

/// What is asked for, of one aggregate: the daemon has no index for that.
struct Wanted<'a> {
    arguments: &'a Events,
    period: Period,
}

impl<'a> Wanted<'a> {
    fn of(arguments: &'a Events) -> Result<Self, Exit> {
        let period = Period::of(arguments.from.as_deref(), arguments.to.as_deref())?;
        Ok(Self { arguments, period })
    }

    fn takes(&self, event: &Value) -> bool {
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
        let fits = |wanted: &Option<String>, pointer| {
            wanted
                .as_deref()
                .is_none_or(|wanted| text(pointer) == Some(wanted))
        };
        let time = text("/timestamp").and_then(|time| parse_timestamp(time).ok());
        fits(&self.arguments.event_type, "/eventType")
            && fits(&self.arguments.actor, "/metadata/actorId")
            && time.is_some_and(|time| self.period.contains(time))
    }
}

/// A list that is fetched in pages.
struct Pages {
    segments: Vec<String>,
    parameters: Vec<(&'static str, String)>,
    /// The field that says where the next page begins, and the parameter that takes it.
    next: (&'static str, &'static str),
    ready: VecDeque<Value>,
    ended: bool,
    warned: bool,
}

impl Pages {
    fn new(
        segments: &[&str],
        parameters: Vec<(&'static str, String)>,
        next: (&'static str, &'static str),
    ) -> Self {
        Self {
            segments: segments.iter().map(|&segment| segment.to_owned()).collect(),
            parameters,
            next,
            ready: VecDeque::new(),
            ended: false,
            warned: false,
        }
    }

    fn of_one(aggregate_type: &str, aggregate_id: &str) -> Self {
        let segments = ["aggregates", aggregate_type, aggregate_id, "events"];
        Self::new(&segments, Vec::new(), ("nextVersion", "from_version"))
    }

    fn of_all(aggregate_type: &str, arguments: &Events) -> Self {
        let given = [
            ("from", &arguments.from),
            ("to", &arguments.to),
            ("type", &arguments.event_type),
            ("actor", &arguments.actor),
        ];
        let given = given.into_iter();
        let parameters = given.filter_map(|(name, value)| Some((name, value.clone()?)));
        let segments = ["aggregates", aggregate_type, "events"];
        Self::new(&segments, parameters.collect(), ("cursor", "cursor"))
    }

    /// Fetches pages until there is an event, or no more.
    fn fill(&mut self, daemon: &Daemon, out: &mut Output) -> Result<(), Exit> {
        while self.ready.is_empty() && !self.ended {
            out.flush();
            let segments: Vec<&str> = self.segments.iter().map(String::as_str).collect();
            let mut parameters = vec![("limit", PAGE_ENTRIES)];
            let given = self.parameters.iter();
            parameters.extend(given.map(|(name, value)| (*name, &**value)));
            let answer = daemon.get(&segments, &parameters)?;
            self.ready.extend(list(&answer, "events").iter().cloned());
            self.warn(&answer);
            let (field, parameter) = self.next;
            self.parameters.retain(|(name, _)| *name != parameter);
            match answer.get(field) {
                Some(next) => self.parameters.push((parameter, shown(next))),
                None => self.ended = true,
            }
        }
        Ok(())
    }

    /// Says once which events cannot be among those shown.
    fn warn(&mut self, answer: &Value) {
        let missing = answer
            .pointer("/partitions/missing")
            .and_then(Value::as_array);
        if let Some(missing) = missing.filter(|missing| !missing.is_empty() && !self.warned) {
            let missing: Vec<String> = missing.iter().map(shown).collect();
            complain(format_args!(
                "warning: {} events of partitions {} are missing: other processes serve them; ask \
                 those with `--url`",
                text_of(answer, "aggregateType"),
                missing.join(", "),
            ));
            self.warned = true;
        }
    }
}

/// Events on their way out.
struct Output {
    json: bool,
    events: Vec<Value>,
}

impl Output {
    const fn new(json: bool) -> Self {
        let events = Vec::new();
        Self { json, events }
    }

    fn push(&mut self, event: Value) {
        self.events.push(event);
    }

    /// Shows what is there: one JSON document a line, or columns.
    fn flush(&mut self) {
        let events = std::mem::take(&mut self.events);
        if self.json {
            for event in &events {
                print(event);
            }
            return;
        }
        let rows: Vec<[String; 5]> = events.iter().map(row).collect();
        for line in columns(&rows) {
            print(line);
        }
    }
}

/// Time, type, aggregate and version, who, data.
fn row(event: &Value) -> [String; 5] {
    let actor = event.pointer("/metadata/actorId");
    [
        text_of(event, "timestamp"),
        text_of(event, "eventType"),
        format!(
            "{} v{}",
            text_of(event, "aggregateId"),
            text_of(event, "aggregateVersion")
        ),
        actor.map_or_else(|| "–".to_owned(), shown),
        text_of(event, "data"),
    ]
}
