//! The real binary archives: by command and all the time, and says what is wrong.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

mod support;

use serde_json::json;
use support::{Daemon, Site, millstream, stderr, stdout, until};

fn site() -> Site {
    let site = Site::new("");
    let archive = site.path("archive");
    let config = site.path("account.yaml");
    let more = format!(
        "sinks:\n  archive:\n    directory: {}\n    max_age: 1s\n",
        archive.display()
    );
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text + &more).unwrap();
    site
}

fn fill(daemon: &Daemon, from: usize) {
    for number in from..from + 12 {
        let body =
            json!({"commandType": "OpenAccount", "data": {"owner": "Ada", "currency": "EUR"}});
        let id = format!("account-{number}");
        until("the command is carried out", || {
            (daemon.command(&id, "open", &body).status == 200).then_some(())
        });
    }
}

/// The number of records that `archive --verify` finds.
fn verified(site: &Site) -> u64 {
    let output = millstream(&["archive", &site.config(), "--verify", "--embedded"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    let last = text.lines().last().unwrap();
    let (_, rest) = last.split_once("files with ").unwrap();
    rest.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn events_are_archived_all_the_time_and_by_command_and_verified() {
    let site = site();
    let embedded = site.embedded();
    let daemon = Daemon::start_ready(&site, &[&embedded]);
    fill(&daemon, 0);
    until("the daemon archives", || {
        (verified(&site) == 12).then_some(())
    });
    fill(&daemon, 12);
    daemon.kill();
    let output = millstream(&["archive", &site.config(), &embedded]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(
        verified(&site),
        24,
        "whatever the daemon had done when it was killed"
    );
    let output = millstream(&["archive", &site.config(), &embedded]);
    assert!(
        stdout(&output).contains("0 records in 0 files"),
        "{}",
        stdout(&output)
    );

    let topic = site.path("archive").join("billing.account.events");
    let mut files: Vec<_> = (0..3)
        .flat_map(|partition| std::fs::read_dir(topic.join(partition.to_string())).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "zst"))
        .collect();
    files.sort();
    let damaged = files.first().unwrap();
    std::fs::write(damaged, b"something else").unwrap();
    let output = millstream(&["archive", &site.config(), "--verify", "--embedded"]);
    assert_eq!(output.status.code(), Some(1));
    let name = damaged.file_name().unwrap().to_str().unwrap();
    assert!(stderr(&output).contains(name), "{}", stderr(&output));
}

#[test]
fn a_sink_that_the_topology_does_not_offer_is_a_configuration_error() {
    let site = Site::new("sinks: {archve: {directory: /nowhere}}");
    let output = millstream(&["validate", &site.config(), "--embedded"]);
    assert_eq!(output.status.code(), Some(78));
    let text = stderr(&output);
    assert!(text.contains("offers no sink `archve`"), "{text}");
    assert!(text.contains("did you mean `archive`?"), "{text}");
    let site = Site::new("sinks: {archive: {}}");
    let text = stderr(&millstream(&["validate", &site.config(), "--embedded"]));
    assert!(text.contains("`sinks.archive`: say where"), "{text}");
    let site = Site::new("");
    let output = millstream(&["archive", &site.config(), "--verify", "--embedded"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
}
