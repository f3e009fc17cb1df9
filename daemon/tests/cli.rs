//! The command line of the real binary: what it prints, and how it ends.

mod support;

use std::fs;
use std::net::TcpListener;

use serde_json::{Value, json};
use support::{Daemon, Site, millstream, stderr, stdout, until};

fn open(owner: &str) -> Value {
    json!({"commandType": "OpenAccount", "data": {"owner": owner, "currency": "EUR"}})
}

fn top_up(amount: &str) -> Value {
    json!({"commandType": "TopUp", "data": {"amount": amount, "reason": "test"}})
}

#[test]
fn a_broken_configuration_is_refused_with_line_and_caret() {
    let site = Site::new("comit: {interval: 50ms}\nthreads: many");
    for command in ["run", "validate", "describe", "reset"] {
        let output = millstream(&[command, &site.config(), &site.embedded()]);
        assert_eq!(output.status.code(), Some(78), "{command}");
        let text = stderr(&output);
        assert!(text.contains("unknown key `comit`"), "{text}");
        assert!(
            text.contains("5 | comit: {interval: 50ms}\n  | ^^^^^"),
            "{text}"
        );
        assert!(text.contains("threads"), "all mistakes at once: {text}");
    }
    assert!(!site.path("state").exists(), "nothing was done");
    assert!(!site.path("log").exists(), "nothing was done");
}

#[test]
fn what_only_the_topology_knows_is_checked_too() {
    for (more, expected) in [
        (
            "topics: {billing.account.evnts: {name: x}}",
            "billing.account.events",
        ),
        ("parameters: {command_memry: 7d}", "command_memory"),
        ("parameters: {command_memory: soon}", "command_memory"),
    ] {
        let site = Site::new(more);
        let output = millstream(&["validate", &site.config(), "--embedded"]);
        assert_eq!(output.status.code(), Some(78), "{more}");
        let text = stderr(&output);
        assert!(
            text.contains("account.yaml:5") && text.contains(expected),
            "{text}"
        );
    }
    let site = Site::new("");
    let output = millstream(&[
        "validate",
        &site.config(),
        "--embedded",
        "--set",
        "topology=acount",
    ]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        stderr(&output).contains("did you mean `account`?"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let output = millstream(&["run", "/nowhere/x.yaml", "--embedded"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        stderr(&output).contains("/nowhere/x.yaml"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    assert_eq!(millstream(&["run"]).status.code(), Some(2));
    assert_eq!(millstream(&["fly"]).status.code(), Some(2));
    let site = Site::new("");
    assert_eq!(
        millstream(&["reset", &site.config(), "--embedded"])
            .status
            .code(),
        Some(2)
    );
}

#[test]
fn a_valid_configuration_is_called_valid_and_changes_nothing() {
    let site = Site::new("");
    let output = millstream(&["validate", &site.config(), &site.embedded()]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stdout(&output)
            .trim_end()
            .ends_with("account.yaml is valid")
    );
    assert!(!site.path("state").exists() && !site.path("log").exists());
}

#[test]
fn a_topology_is_described_as_text_as_mermaid_and_as_json() {
    let site = Site::new("");
    let describe = |format: &[&str]| {
        let mut arguments = vec!["describe", "--embedded"];
        let config = site.config();
        arguments.push(&config);
        arguments.extend(format);
        let output = millstream(&arguments);
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };
    let text = describe(&[]);
    assert!(
        text.starts_with("Topologies:\n   Sub-topology: 0"),
        "{text}"
    );
    assert_eq!(describe(&["--format", "text"]), text);
    assert!(describe(&["--format", "mermaid"]).starts_with("flowchart TD\n"));
    let shown: Value = serde_json::from_str(&describe(&["--format", "json"])).unwrap();
    assert!(
        shown["topics"]["billing.account.commands"].is_object(),
        "{shown}"
    );
}

#[test]
fn topologies_are_listed_with_what_they_do() {
    let output = millstream(&["topologies"]);
    assert!(output.status.success());
    let listed = stdout(&output);
    let topologies: Vec<(&str, &str)> = listed
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(name, about)| (name, about.trim_start()))
        .collect();
    assert!(
        matches!(topologies.as_slice(), [("account", billing), ("flight-leg", airport)]
            if billing.starts_with("Billing accounts") && airport.starts_with("Airport")),
        "{listed}"
    );
}

#[test]
fn a_second_process_on_a_state_directory_is_refused_with_directory_and_pid() {
    let site = Site::new("");
    let daemon = Daemon::start_ready(&site, &["--embedded"]);
    let output = millstream(&["run", &site.config(), "--embedded"]);
    assert_eq!(output.status.code(), Some(73));
    let text = stderr(&output);
    assert!(
        text.contains(&site.path("state").display().to_string()),
        "{text}"
    );
    assert!(text.contains(&format!("pid {}", daemon.pid())), "{text}");
    daemon.stop();
}

#[test]
fn a_state_directory_that_cannot_be_made_is_named() {
    let site = Site::new("");
    fs::write(site.path("state"), "a file").unwrap();
    let output = millstream(&["run", &site.config(), "--embedded"]);
    assert_eq!(output.status.code(), Some(73));
    assert!(stderr(&output).contains(&site.path("state").display().to_string()));
}

#[test]
fn an_address_in_use_is_named() {
    let site = Site::new("");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let listen = format!("http.listen={address}");
    let output = millstream(&["run", &site.config(), "--embedded", "--set", &listen]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(
        text.contains(&address) && text.contains("http.listen"),
        "{text}"
    );
}

#[test]
fn a_process_whose_broker_is_away_is_alive_and_says_why_it_is_not_ready() {
    let site = Site::new("");
    // Nobody listens on a port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let servers = format!("kafka.bootstrap_servers={free}");
    let daemon = Daemon::start(&site, &["--set", &servers]);
    assert_eq!(daemon.get("/health/live").status, 200);
    assert_eq!(daemon.get("/topology").status, 200);
    assert_eq!(daemon.text("/metrics").0, 200);
    let answer = until("the reason is known", || {
        let answer = daemon.get("/health/ready");
        let message = answer.body["message"].as_str()?;
        message
            .contains("the log cannot be used yet")
            .then_some(answer.clone())
    });
    assert_eq!((answer.status, answer.code()), (503, "NOT_READY"));
    assert_eq!(daemon.get("/stores").status, 503);
    assert_eq!(daemon.get("/aggregates/Account/a").status, 503);
    assert_eq!(daemon.command("a", "k", &open("x")).status, 503);
    assert_eq!(
        daemon.get("/aggregates/Nobody/a").status,
        404,
        "known before the log is"
    );
    daemon.stop();
}

#[test]
fn a_property_that_does_not_exist_is_a_configuration_error() {
    let site =
        Site::new("kafka: {bootstrap_servers: \"localhost:1\", properties: {no.such.thing: 1}}");
    let output = millstream(&["run", &site.config()]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        stderr(&output).contains("no.such.thing"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn sigterm_and_sigint_stop_cleanly_and_say_so() {
    for signal in ["TERM", "INT"] {
        let site = Site::new("");
        let mut daemon = Daemon::start_ready(&site, &["--embedded"]);
        assert_eq!(daemon.command("a", "k", &open("x")).status, 200);
        daemon.signal(signal);
        let status = daemon.wait();
        assert_eq!(status.code(), Some(0), "{signal}: {}", daemon.log());
        assert!(
            daemon.log().contains("leaving the group"),
            "{}",
            daemon.log()
        );
    }
}

#[test]
fn state_survives_a_stop_and_a_kill() {
    let site = Site::new("");
    let embedded = site.embedded();
    let daemon = Daemon::start_ready(&site, &[&embedded]);
    assert_eq!(daemon.command("a", "k-1", &open("x")).status, 200);
    assert_eq!(daemon.command("a", "k-2", &top_up("5.00")).status, 200);
    daemon.stop();
    let daemon = Daemon::start_ready(&site, &[&embedded]);
    assert_eq!(daemon.command("a", "k-3", &top_up("2.50")).status, 200);
    let before = daemon.get("/aggregates/Account/a");
    daemon.kill();
    let daemon = Daemon::start_ready(&site, &[&embedded]);
    let after = daemon.get("/aggregates/Account/a");
    assert_eq!(after.status, 200);
    assert_eq!(after, before);
    let again = daemon.command("a", "k-3", &top_up("2.50"));
    assert_eq!(again.status, 200, "the command's first reply again");
    assert_eq!(
        daemon.get("/aggregates/Account/a"),
        before,
        "and it is not carried out twice"
    );
    daemon.stop();
}

#[test]
fn an_embedded_log_in_use_is_refused() {
    let site = Site::new("");
    let embedded = site.embedded();
    let daemon = Daemon::start_ready(&site, &[&embedded]);
    let other = format!("state_dir={}", site.path("other").display());
    let output = millstream(&["run", &site.config(), &embedded, "--set", &other]);
    assert_eq!(output.status.code(), Some(73), "{}", stderr(&output));
    let output = millstream(&["reset", &site.config(), &embedded]);
    assert_eq!(output.status.code(), Some(75), "{}", stderr(&output));
    assert!(stderr(&output).contains("in use"), "{}", stderr(&output));
    daemon.stop();
}
