//! `docs/configuration.md`, written from the table of keys.

use std::fmt::Write as _;

use super::keys::{Absent, KEYS, Key, RESERVED_PROPERTIES};

const INTRODUCTION: &str = "\
# Configuration

<!-- Generated from src/config/keys.rs by the test `the_reference_page_is_current`. -->

A deployment is one YAML file: `millstream run config/account.yaml`. It is read strictly: unknown
keys, duplicates, wrong types and units are errors, shown with line and caret, all of them at once,
and the process ends with exit code 78 before it has done anything. `millstream validate` checks
without running.

- **Nesting** is YAML's: `commit: {interval: 100ms}`. Below, a dotted key stands for that. Two keys
  hold flat maps whose own keys keep their dots: `kafka.properties` and a topic's `config`.
- **Values** carry their unit: durations `ms`, `s`, `m`, `h`, `d`; sizes `B`, `KiB`, `MiB`, `GiB`,
  `TiB`. Whole numbers only.
- **Variables** are replaced in values: `${VAR}` is required, `${VAR:-default}` is not, `$$` is a
  dollar sign. Secrets belong there rather than in the file.
- **`--set key=value`** overrides a key, where dots do nest: `--set commit.interval=50ms`. A name
  with dots goes in quotes: `--set 'topics.\"billing.account.events\".name=x'`. After a flat map all
  is one key: `--set kafka.properties.security.protocol=SSL`. The last one wins.
- Anchors, aliases and tags are not supported.

The smallest configuration:

```yaml
application_id: billing-account
topology: account
kafka:
  bootstrap_servers: ${KAFKA_BOOTSTRAP_SERVERS:-localhost:9092}
```

## Keys
";

/// Returns the text of `docs/configuration.md`.
#[must_use]
pub fn reference_page() -> String {
    let mut page = INTRODUCTION.to_owned();
    page.push_str("\n| Key | Type | Default |\n| --- | --- | --- |\n");
    for key in KEYS {
        let link = anchor(key.path);
        push(
            &mut page,
            format_args!(
                "| [`{}`](#{link}) | {} | {} |\n",
                key.path,
                key.kind.name(),
                default(key)
            ),
        );
    }
    for key in KEYS {
        section(&mut page, key);
    }
    page.push_str("\n## Properties that are not yours to set\n\n");
    page.push_str("`kafka.properties` refuses these:\n\n");
    for (name, instead) in RESERVED_PROPERTIES {
        push(&mut page, format_args!("- `{name}`: {instead}\n"));
    }
    page
}

fn section(page: &mut String, key: &Key) {
    push(
        page,
        format_args!("\n### `{}`\n\n{}\n\n", key.path, key.meaning),
    );
    push(
        page,
        format_args!("- Type: {}; {}\n", key.kind.name(), key.allowed),
    );
    push(page, format_args!("- Default: {}\n", default(key)));
    if let Some((higher, lower)) = key.higher_lower {
        push(page, format_args!("- Higher: {higher}. Lower: {lower}.\n"));
    }
    match key.kafka_streams {
        Some(name) if name.contains(' ') => push(page, format_args!("- Kafka Streams: {name}\n")),
        Some(name) => push(page, format_args!("- Kafka Streams: `{name}`\n")),
        None => {}
    }
}

fn default(key: &Key) -> String {
    match key.absent {
        Absent::Required(_) => "required".to_owned(),
        Absent::Default(text) => format!("`{text}`"),
        Absent::Derived(words) => words.to_owned(),
    }
}

/// The anchor that Markdown renderers give a heading: letters, digits, `_` and `-`.
fn anchor(path: &str) -> String {
    path.chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '_' || *c == '-')
        .collect()
}

fn push(page: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a `String` cannot fail.
    page.write_fmt(text).unwrap_or_default();
}
