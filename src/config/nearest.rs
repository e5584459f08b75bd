//! The known name that a mistyped one most likely stands for.

/// A longer name is no typing mistake, and comparing it costs time.
const NAME_MAX_BYTES: usize = 64;

/// The nearest of the known names, if one is near: one typing mistake for three letters, whatever
/// the case; or one name begins with the other.
pub fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    nearest_of(name, &mut known.into_iter())
}

/// The same once for all kinds of lists: it is never in a hurry.
#[inline(never)]
fn nearest_of<'k>(name: &str, known: &mut dyn Iterator<Item = &'k str>) -> Option<&'k str> {
    let wanted = fold(name);
    if wanted.is_empty() || wanted.len() > NAME_MAX_BYTES {
        return None;
    }
    let mut nearest: Option<(usize, &str)> = None;
    for name in known {
        let known = fold(name);
        let is_begun = known.starts_with(&wanted) || wanted.starts_with(&known);
        let mistakes = distance(known.as_bytes(), wanted.as_bytes());
        let mistakes_max = (known.len().max(wanted.len()) / 3).max(1);
        // Of those as near the first.
        let is_nearer = nearest.is_none_or(|(fewest, _)| mistakes < fewest);
        if (is_begun || mistakes <= mistakes_max) && is_nearer {
            nearest = Some((mistakes, name));
        }
    }
    nearest.map(|(_, name)| name)
}

/// Names that differ in case or in how their words are joined are one.
fn fold(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
}

/// How many typing mistakes make one name of another: letters added, left out, replaced or swapped
/// with the next.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut before = vec![0; b.len() + 1];
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1; b.len() + 1];
        for (j, y) in b.iter().enumerate() {
            let replaced = row[j] + usize::from(x != y);
            next[j + 1] = replaced.min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                next[j + 1] = next[j + 1].min(before[j - 1] + 1);
            }
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_mistakes_are_seen_through_and_other_words_are_not() {
        const KNOWN: [&str; 8] = [
            "key",
            "ttl",
            "partition",
            "min_version",
            "prefix",
            "at",
            "limit",
            "timeout",
        ];
        for (name, expected) in [
            ("tll", Some("ttl")),
            ("tlt", Some("ttl")),
            ("TTL", Some("ttl")),
            ("prefx", Some("prefix")),
            ("perfix", Some("prefix")),
            ("k", Some("key")),
            ("keys", Some("key")),
            ("minVersion", Some("min_version")),
            ("min-version", Some("min_version")),
            ("partition_id", Some("partition")),
            ("timeout_ms", Some("timeout")),
            ("lim", Some("limit")),
            ("frobnicate", None),
            ("x", None),
            ("", None),
            ("wait", None),
        ] {
            assert_eq!(nearest(name, KNOWN), expected, "{name}");
        }
        assert_eq!(nearest(&"ttl".repeat(30), KNOWN), None);
    }
}
