//! "Did you mean": the nearest known name to one that is not known.

/// Returns the candidate nearest to `name`, if it is near enough to be meant.
///
/// The distance is Damerau-Levenshtein's (insert, delete, replace, swap neighbours), without
/// regard to case and with `-` read as `_`; at most a third of the letters may differ.
pub(crate) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let name = folded(name);
    let (best, distance, letters) = candidates
        .into_iter()
        .map(|candidate| {
            let folded = folded(candidate);
            (
                candidate,
                distance(&name, &folded),
                folded.len().max(name.len()),
            )
        })
        .min_by_key(|(_, distance, _)| *distance)?;
    (distance <= (letters / 3).max(1) && distance < letters).then_some(best)
}

/// Returns the help line for [`nearest`].
pub(crate) fn did_you_mean<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    nearest(name, candidates).map(|best| format!("did you mean `{best}`?"))
}

fn folded(name: &str) -> Vec<char> {
    name.chars()
        .flat_map(char::to_lowercase)
        .map(|c| if c == '-' { '_' } else { c })
        .collect()
}

/// The optimal string alignment distance, in O(|a|·|b|).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, &ca) in a.iter().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for (j, &cb) in b.iter().enumerate() {
            let at = |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX);
            let mut best = (at(&above, j) + usize::from(ca != cb))
                .min(at(&above, j + 1) + 1)
                .min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(&cb) && b.get(j - 1) == Some(&ca);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_fingers_is_recognised() {
        let keys = [
            "commit",
            "topology",
            "topics",
            "topics_default",
            "application_id",
        ];
        for (typed, meant) in [
            ("comit", Some("commit")),
            ("commti", Some("commit")),
            ("application-id", Some("application_id")),
            ("applicationId", Some("application_id")),
            ("topic", Some("topics")),
            ("Topology", Some("topology")),
            ("monitoring", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, keys), meant, "{typed}");
        }
    }
}
