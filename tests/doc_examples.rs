//! Every method that draws a topology has an example in its documentation, or says whose example is
//! its own: the documentation's tests run them all.
//!
//! A scan of the sources, since rustdoc's own list is not on stable Rust. What it takes for an example is
//! a code block that rustdoc runs; a `try_` variant may say ``As [`…`]`` instead, since only the closure's
//! result differs.

#![expect(
    clippy::unwrap_used,
    clippy::string_slice,
    reason = "a test fails by a panic, in helpers as well"
)]

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// The types whose public methods are the DSL.
const TYPES: [&str; 12] = [
    "StreamsBuilder",
    "KStream",
    "KTable",
    "GlobalKTable",
    "KGroupedStream",
    "KGroupedTable",
    "CogroupedKStream",
    "TimeWindowedKStream",
    "SessionWindowedKStream",
    "TimeWindowedCogroupedKStream",
    "SessionWindowedCogroupedKStream",
    "BranchedKStream",
];

/// Methods that draw nothing.
const NO_OPERATORS: [&str; 3] = [
    "StreamsBuilder::new",
    "StreamsBuilder::name",
    "GlobalKTable::store_name",
];

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "tests") {
                sources(&path, into);
            }
        } else if path.extension().is_some_and(|it| it == "rs") {
            into.push(path);
        }
    }
}

/// The type that an `impl` line is of; `None` for implementations of traits and for other lines.
fn implemented(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("impl")?;
    if line.contains(" for ") {
        return Some("");
    }
    // Behind the generics: brackets nest.
    let mut depth = 0;
    let at = rest.char_indices().find(|(at, letter)| {
        match letter {
            '<' => depth += 1,
            // The arrow of a closure's type is no bracket.
            '>' if !rest[..*at].ends_with('-') => depth -= 1,
            _ => {}
        }
        depth == 0 && (*letter == ' ' || *letter == '>')
    });
    let name = rest[at?.0..].trim_start_matches(['>', ' ']);
    name.split(|letter: char| !letter.is_alphanumeric()).next()
}

/// Whether documentation has a code block that is compiled and run.
fn has_example(docs: &[&str]) -> bool {
    let fences = docs.iter().filter_map(|line| line.strip_prefix("```"));
    let opening = fences.step_by(2);
    opening
        .into_iter()
        .any(|language| matches!(language, "" | "rust"))
}

/// Whether a fallible variant says which method, with an example of its own, it is a variant of.
fn refers(name: &str, docs: &[&str]) -> bool {
    name.starts_with("try_") && docs.first().is_some_and(|line| line.starts_with("As [`"))
}

/// A public method, and whether it is documented as it must be.
#[derive(Debug, PartialEq, Eq)]
struct Method {
    name: String,
    example: bool,
    refers: bool,
}

fn methods(source: &str) -> Vec<Method> {
    let mut found = Vec::new();
    let (mut of, mut docs) = (None, Vec::new());
    let mut in_attribute = false;
    for line in source.lines() {
        if let Some(name) = implemented(line.trim_start()) {
            of = TYPES.into_iter().find(|it| *it == name);
        }
        let line = line.trim_start();
        if let Some(doc) = line.strip_prefix("///") {
            docs.push(doc.strip_prefix(' ').unwrap_or(doc));
            continue;
        }
        let function = ["pub fn ", "pub const fn "]
            .into_iter()
            .find_map(|prefix| line.strip_prefix(prefix));
        if let (Some(function), Some(of)) = (function, of) {
            let end = function.find(['(', '<']).unwrap_or(function.len());
            found.push(Method {
                name: format!("{of}::{}", &function[..end]),
                example: has_example(&docs),
                refers: refers(&function[..end], &docs),
            });
        }
        // Attributes stand between documentation and function, over several lines at times.
        in_attribute |= line.starts_with("#[");
        if !in_attribute {
            docs.clear();
        }
        in_attribute &= !line.ends_with(']');
    }
    found
}

#[test]
fn every_operator_has_an_example_that_runs() {
    let mut files = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dsl");
    sources(&root, &mut files);
    let mut all = Vec::new();
    let mut missing = String::new();
    for file in files {
        let source = std::fs::read_to_string(&file).unwrap();
        for method in methods(&source) {
            let exempt = NO_OPERATORS.contains(&method.name.as_str());
            if !method.example && !method.refers && !exempt {
                writeln!(missing, "{}: {}", file.display(), method.name).unwrap();
            }
            all.push(method.name);
        }
    }
    assert!(missing.is_empty(), "no example:\n{missing}");
    // The scan sees what there is: it would be content with nothing, too.
    for known in [
        "StreamsBuilder::stream",
        "KStream::filter",
        "KTable::join_foreign_key",
        "KGroupedStream::windowed_by",
        "TimeWindowedKStream::count",
    ] {
        assert!(all.iter().any(|name| name == known), "{known} is not seen");
    }
    assert!(all.len() > 70, "only {} methods are seen", all.len());
}

#[test]
fn a_method_without_an_example_is_found() {
    let source = r#"
impl<K: StoreKey, V: Fn(&K) -> bool> KStream<K, V> {
    /// Has one.
    ///
    /// ```
    /// run();
    /// ```
    #[must_use = "see above"]
    pub fn good(&self) {}

    /// Has text only.
    ///
    /// ```text
    /// a picture
    /// ```
    pub fn picture<T>(&self) {}

    /// As [`good`](Self::good), but worse.
    #[expect(
        clippy::all,
        reason = "several lines"
    )]
    pub const fn try_good(&self) {}

    /// As [`good`](Self::good), but another one.
    pub fn other(&self) {}

    pub(crate) fn inner(&self) {}
}

impl<K> Clone for KStream<K> {
    pub fn no_method() {}
}
"#;
    let found: Vec<_> = methods(source)
        .into_iter()
        .map(|it| (it.name, it.example, it.refers))
        .collect();
    let expected = [
        ("KStream::good", true, false),
        ("KStream::picture", false, false),
        ("KStream::try_good", false, true),
        ("KStream::other", false, false),
    ];
    assert_eq!(
        found,
        expected.map(|(name, example, refers)| (name.to_owned(), example, refers))
    );
}
