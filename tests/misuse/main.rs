//! Mistakes that the type system catches, with messages that tell the fix.
//!
//! Each `cases/*.rs` is a program that must not compile. Its lines `// expect: TEXT` are what the
//! compiler must say. trybuild would do the same, but builds all dependencies once more, RocksDB and
//! librdkafka included; this asks cargo for the library it has just built.

#![expect(clippy::panic, reason = "a test fails by a panic, in helpers as well")]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The library under test, as cargo has built it for this very test.
fn library() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    // All targets: cargo unites features over what it is asked for, so that nothing is built anew.
    build.args([
        "build",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--offline",
    ]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    build
        .args(["--message-format", "json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = build
        .output()
        .unwrap_or_else(|error| panic!("cargo does not start: {error}"));
    let messages = String::from_utf8_lossy(&output.stdout);
    let artifacts = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let is_library = |message: &Value| {
        let target = &message["target"];
        let is_test = message["profile"]["test"] == Value::Bool(true);
        target["name"] == "millstream" && target["kind"][0] == "lib" && !is_test
    };
    let file = artifacts
        .filter(is_library)
        .filter_map(|message| {
            Some(
                message["filenames"]
                    .as_array()?
                    .first()?
                    .as_str()?
                    .to_owned(),
            )
        })
        .find(|file| file.ends_with(".rlib"));
    let errors = String::from_utf8_lossy(&output.stderr);
    file.unwrap_or_else(|| panic!("cargo names no library: {errors}"))
        .into()
}

/// Compiles a program against the library; returns what the compiler said, `None` when it was
/// content.
fn compile(program: &Path, library: &Path) -> Option<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    // Cargo puts libraries of the workspace above the folder with their dependencies.
    let dependencies = library
        .parent()
        .map(|dir| dir.join("deps"))
        .unwrap_or_default();
    let dir = tempfile::tempdir().unwrap_or_else(|error| panic!("no directory: {error}"));
    let output = Command::new(rustc)
        .args([
            "--edition",
            "2024",
            "--crate-type",
            "bin",
            "--emit",
            "metadata",
            "--cap-lints",
            "allow",
        ])
        .arg("-L")
        .arg(format!("dependency={}", dependencies.display()))
        .arg("--extern")
        .arg(format!("millstream={}", library.display()))
        .arg("-o")
        .arg(dir.path().join("out"))
        .arg(program)
        .output()
        .unwrap_or_else(|error| panic!("rustc does not start: {error}"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (!output.status.success()).then_some(said)
}

/// Whitespace and line breaks are the compiler's own.
fn normalised(text: &str) -> String {
    let lines = text
        .lines()
        .map(|line| line.trim_start_matches([' ', '|', '=']));
    lines
        .flat_map(str::split_whitespace)
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn mistakes_of_types_are_refused_with_the_way_out() {
    let library = library();
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/misuse/cases");
    let entries =
        std::fs::read_dir(&cases).unwrap_or_else(|error| panic!("{}: {error}", cases.display()));
    let mut programs: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    programs.sort();
    assert!(programs.len() > 1, "no cases in {}", cases.display());
    let mut failures = Vec::new();
    for program in &programs {
        let text = std::fs::read_to_string(program).unwrap_or_else(|error| panic!("{error}"));
        let expected: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("// expect: "))
            .collect();
        let name = program.file_name().unwrap_or_default().display();
        match compile(program, &library) {
            // The one that shows that a failure is the program's, not the harness's.
            None if expected.is_empty() => {}
            Some(said) if expected.is_empty() => {
                failures.push(format!("{name} must compile:\n{said}"))
            }
            None => failures.push(format!("{name} compiles")),
            Some(said) => {
                let normal = normalised(&said);
                for line in expected
                    .iter()
                    .filter(|line| !normal.contains(&normalised(line)))
                {
                    failures.push(format!(
                        "{name}: the compiler does not say `{line}`, but\n{said}"
                    ));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}
