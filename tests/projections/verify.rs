//! Comparing a projection with what the events add up to.

use std::sync::atomic::Ordering;

use crate::library::{Library, Program};

#[test]
fn a_projection_that_is_right_has_no_difference() {
    let mut library = Library::new(Program::first(), 100);
    for number in 0..5 {
        library.put(&format!("shelf-{number}"), &["a", "b"]);
    }
    library.clear("shelf-3");
    for name in ["counts", "ledger"] {
        let endpoint = library.endpoint(name);
        let found = endpoint.verify(library.driver.queries(), None, 1_000);
        let found = found.unwrap();
        assert_eq!((found.aggregates, found.events), (5, 11));
        assert_eq!(found.difference, None, "{name}");
        assert_eq!(found.partitions_compared, [0, 1]);
    }
}

#[test]
fn the_first_row_that_differs_is_named_and_a_rebuild_mends_it() {
    let mut library = Library::new(Program::first(), 2);
    library.put("a", &["x"]);
    library.put("b", &["x"]);
    library.program.wrong.store(true, Ordering::Relaxed);
    library.put("b", &["y"]);
    library.program.wrong.store(false, Ordering::Relaxed);
    let verify = |library: &Library| {
        let endpoint = library.endpoint("counts");
        endpoint
            .verify(library.driver.queries(), None, 1_000)
            .unwrap()
    };
    let difference = verify(&library).difference.unwrap();
    assert_eq!(
        (difference.aggregate_id.as_str(), difference.row.as_deref()),
        ("b", Some("b"))
    );
    assert_eq!(difference.problem, "a row is another");
    let change = &difference.changes[0];
    assert_eq!(
        (change.field.as_str(), &change.before, &change.after),
        ("books", &2.into(), &3.into())
    );

    library.sent();
    let endpoint = library.endpoint("counts");
    endpoint.request_rebuild(library.driver.queries()).unwrap();
    let mut steps = 0;
    while !library.rests("counts") || library.progress("counts")[0].generation < 2 {
        library.step();
        steps += 1;
        assert!(steps < 100, "{:?}", library.progress("counts"));
    }
    assert_eq!(verify(&library).difference, None);
    assert_eq!(library.served("counts"), library.counts(1));
    // Only what was wrong is sent on.
    let sent = library.sent();
    let sent: Vec<_> = sent.iter().map(|(shelf, _)| shelf.as_str()).collect();
    assert_eq!(sent, ["b"]);
}

#[test]
fn a_page_of_a_comparison_goes_on_where_it_ended() {
    let mut library = Library::new(Program::first(), 100);
    for number in 0..7 {
        library.put(&format!("shelf-{number}"), &["a"]);
    }
    let endpoint = library.endpoint("ledger");
    let (mut compared, mut cursor) = (0, None);
    loop {
        let found = endpoint
            .verify(library.driver.queries(), cursor.as_deref(), 2)
            .unwrap();
        assert!(found.aggregates <= 2);
        assert_eq!(found.difference, None);
        compared += found.aggregates;
        match found.cursor {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    assert_eq!(compared, 7);
}
