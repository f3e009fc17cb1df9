use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn ms(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap())
}

#[test]
fn a_tumbling_window_excludes_its_end() {
    let windows = TimeWindows::of_size_with_no_grace(ms(10));
    let of = |time| windows.windows_for(time).collect::<Vec<_>>();
    assert_eq!(of(0), [Window::new(0, 10)]);
    assert_eq!(of(9), [Window::new(0, 10)]);
    assert_eq!(of(10), [Window::new(10, 20)]);
    assert_eq!(of(-1), []);
}

#[test]
fn hopping_windows_begin_no_earlier_than_1970() {
    let windows = TimeWindows::of_size_with_no_grace(ms(10)).advance_by(ms(4));
    let of = |time| {
        windows
            .windows_for(time)
            .map(Window::start)
            .collect::<Vec<_>>()
    };
    assert_eq!(of(3), [0]);
    assert_eq!(of(9), [0, 4, 8]);
    assert_eq!(of(10), [4, 8]);
}

#[test]
fn windows_that_cannot_be_are_told_apart() {
    let time = |size, advance| {
        Windows::from(TimeWindows::of_size_with_no_grace(ms(size)).advance_by(ms(advance)))
    };
    assert!(time(0, 0).problem().unwrap().contains("size"));
    assert!(time(10, 0).problem().unwrap().contains("advance"));
    assert!(time(10, 11).problem().unwrap().contains("advance"));
    assert_eq!(time(10, 10).problem(), None);
    let unlimited = Windows::from(UnlimitedWindows::of().start_on(-1));
    assert!(unlimited.problem().unwrap().contains("negative"));
    assert_eq!(
        time(0, 0).windows_for(5).count(),
        0,
        "nothing hangs before `build` refuses"
    );
}

#[test]
fn times_at_the_end_of_time_do_not_overflow() {
    let windows = TimeWindows::of_size_and_grace(ms(10), ms(5)).advance_by(ms(5));
    assert!(
        windows
            .windows_for(i64::MAX)
            .all(|window| window.end() == i64::MAX)
    );
    let sliding = SlidingWindows::of_time_difference_with_no_grace(ms(10));
    assert_eq!(sliding.right_of(i64::MAX), Window::new(i64::MAX, i64::MAX));
    let sessions = SessionWindows::of_inactivity_gap_with_no_grace(ms(10));
    assert_eq!(sessions.reach(i64::MAX), (i64::MAX - 10, i64::MAX));
}

/// Sessions as the definition has them: sort, then cut where the gap is longer.
fn sessions_by_sorting(times: &[i64], gap: i64) -> BTreeSet<Window> {
    let sorted: BTreeSet<i64> = times.iter().copied().collect();
    let mut sessions: Vec<Window> = Vec::new();
    for time in sorted {
        match sessions.last_mut() {
            Some(last) if time - last.end() <= gap => *last = Window::new(last.start(), time),
            _ => sessions.push(Window::new(time, time)),
        }
    }
    sessions.into_iter().collect()
}

proptest! {
    #[test]
    fn a_record_is_in_exactly_the_windows_that_hold_its_time(
        size in 1i64..40,
        advance_of_size in 1i64..40,
        time in 0i64..200,
    ) {
        let advance = advance_of_size.min(size);
        let windows = TimeWindows::of_size_with_no_grace(ms(size)).advance_by(ms(advance));
        let found: Vec<i64> = windows.windows_for(time).map(Window::start).collect();
        let expected: Vec<i64> = (0..=time / advance)
            .map(|n| n * advance)
            .filter(|start| *start <= time && time < start + size)
            .collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn sessions_do_not_depend_on_the_order_of_records(
        gap in 0i64..20,
        times in proptest::collection::vec(0i64..200, 0..40),
    ) {
        let windows = SessionWindows::of_inactivity_gap_with_no_grace(ms(gap));
        let mut sessions = BTreeSet::new();
        for time in &times {
            let (joined, apart): (BTreeSet<Window>, BTreeSet<Window>) =
                sessions.into_iter().partition(|session| windows.joins(*session, *time));
            let merged = windows.merge(*time, joined);
            sessions = apart;
            sessions.insert(merged);
        }
        prop_assert_eq!(sessions, sessions_by_sorting(&times, gap));
    }
}
