//! TLS: the server's certificate is checked, against the authority that is configured.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by a panic, in helpers as well"
)]

mod support;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use millstream::clock::SystemClock;
use millstream::log::embedded::EmbeddedLog;
use support::{Database, Items, until};

/// An authority and a certificate of it for the server, made by openssl.
const MAKE: &str = "
    openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca.key -out ca.crt -subj /CN=authority &&
    openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=127.0.0.1 &&
    printf 'subjectAltName=IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' > extensions &&
    openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
        -extfile extensions -out server.crt &&
    base64 -w 0 server.crt > server.crt.base64 &&
    base64 -w 0 server.key > server.key.base64";

/// Puts a file where the server finds it, readable for the server alone.
fn install(database: &Database, directory: &Path, name: &str) {
    let encoded = std::fs::read_to_string(directory.join(format!("{name}.base64"))).unwrap();
    database.execute(&format!(
        "COPY (SELECT '{encoded}') TO PROGRAM 'umask 077 && base64 -d > {name}'"
    ));
}

#[test]
fn a_sink_trusts_the_authority_that_it_is_given_and_no_other() {
    let Some(mut database) = Database::of("a_sink_trusts_the_authority_that_it_is_given") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let made = Command::new("sh")
        .arg("-c")
        .arg(MAKE)
        .current_dir(&directory)
        .output();
    let made = made.unwrap();
    assert!(made.status.success(), "{made:?}");
    install(&database, directory.path(), "server.crt");
    install(&database, directory.path(), "server.key");
    database.execute("ALTER SYSTEM SET ssl = on");
    database.execute("SELECT pg_reload_conf()");
    until("the server has TLS", || {
        (database.number("SELECT count(*) FROM pg_settings WHERE name = 'ssl' AND setting = 'on'")
            == 1)
            .then_some(())
    });

    let plain = database.url.clone();
    database.url = format!("{plain}?sslmode=require");
    let log = EmbeddedLog::in_memory(Arc::new(SystemClock));
    let mut items = Items::new(&log, 1);
    items.put("a", "1.00");
    items.flush();
    // The system's authorities do not know this one.
    let stranger = database.sink("");
    let context = items.context(&stranger);
    let refused = database.runtime.block_on(stranger.sink.connect(&context));
    let refused = refused.map(drop).unwrap_err().to_string();
    assert!(refused.contains("certificate"), "{refused}");

    let authority = directory.path().join("ca.crt");
    let sink = database.sink(&format!("    ca_file: {}\n", authority.display()));
    database.url = plain;
    let running = items.run(&database, "one", sink);
    items.assert_arrives(&database, &[&running]);
    let secured = format!(
        "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
         WHERE ssl AND application_name = left('{}', 63)",
        items.group()
    );
    assert_eq!(database.number(&secured), 1);
    running.stop();
    database.execute("ALTER SYSTEM RESET ssl");
    database.execute("SELECT pg_reload_conf()");
}
