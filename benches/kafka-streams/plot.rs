//! Progress over time as an SVG: one line for each run.

use std::fmt::Write as _;

use anyhow::Result;

use crate::observe::Sample;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 44.0;
/// The last contender, millstream, has the first colour.
const COLOURS: [&str; 4] = ["#c2410c", "#1d4ed8", "#0f766e", "#7e22ce"];
/// Points of a line: more cannot be told apart.
const POINTS: usize = 150;

/// A run's line.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    /// Index of its side.
    pub(crate) contender: usize,
    pub(crate) series: &'a [Sample],
}

/// Draws committed records over the seconds since the process was started.
pub(crate) fn progress(title: &str, contenders: &[&str], lines: &[Line<'_>]) -> Result<String> {
    let samples = || lines.iter().flat_map(|line| line.series);
    let x_max = samples().fold(1.0, |max: f64, sample| max.max(sample.seconds));
    let y_max = samples().fold(1.0, |max: f64, sample| max.max(number(sample.committed)));
    let x = |seconds: f64| LEFT + seconds / x_max * (WIDTH - LEFT - RIGHT);
    let y = |records: f64| HEIGHT - BOTTOM - records / y_max * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"18\" font-size=\"14\" fill=\"#111111\">{title}</text>\n"
    );
    axes(&mut svg, x_max, y_max, &x, &y)?;
    for line in lines {
        let colour = colour(line.contender, contenders.len());
        let step = line.series.len().div_ceil(POINTS).max(1);
        let last = line.series.len().saturating_sub(1);
        let mut points = String::new();
        for (at, sample) in line.series.iter().enumerate() {
            if at % step == 0 || at == last {
                let (x, y) = (x(sample.seconds), y(number(sample.committed)));
                write!(points, "{x:.1},{y:.1} ")?;
            }
        }
        writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" points=\"{}\"/>",
            points.trim_end()
        )?;
    }
    for (at, name) in contenders.iter().enumerate() {
        let left = LEFT + 10.0 + 210.0 * number(i64::try_from(at).unwrap_or(0));
        let colour = colour(at, contenders.len());
        writeln!(
            svg,
            "<rect x=\"{left}\" y=\"26\" width=\"14\" height=\"4\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"33\" fill=\"#333333\">{name}</text>",
            left + 20.0
        )?;
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

fn colour(contender: usize, contenders: usize) -> &'static str {
    let from_the_end = contenders.saturating_sub(contender + 1);
    COLOURS.get(from_the_end).unwrap_or(&"#111111")
}

/// Grid and labels.
fn axes(
    svg: &mut String,
    x_max: f64,
    y_max: f64,
    x: &impl Fn(f64) -> f64,
    y: &impl Fn(f64) -> f64,
) -> Result<()> {
    let (x_step, y_step) = (step(x_max), step(y_max));
    let mut at = 0.0;
    while at <= y_max {
        let height = y(at);
        writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{height:.1}\" x2=\"{}\" y2=\"{height:.1}\" stroke=\"#dddddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#333333\">{}k</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            height + 4.0,
            at / 1000.0
        )?;
        at += y_step;
    }
    at = 0.0;
    while at <= x_max {
        writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#333333\">{at}</text>",
            x(at),
            HEIGHT - BOTTOM + 16.0
        )?;
        at += x_step;
    }
    writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#333333\">\
         seconds since the process was started; records committed</text>",
        WIDTH - RIGHT,
        HEIGHT - 8.0
    )?;
    Ok(())
}

/// Returns a round step that divides `max` into 4 to 10 parts.
fn step(max: f64) -> f64 {
    let unit = 10_f64.powf((max / 4.0).log10().floor());
    [5.0, 2.0, 1.0]
        .into_iter()
        .map(|times| times * unit)
        .find(|step| max / step >= 4.0)
        .unwrap_or(unit)
}

#[expect(clippy::cast_precision_loss, reason = "far fewer records than 2^52")]
fn number(records: i64) -> f64 {
    records as f64
}
