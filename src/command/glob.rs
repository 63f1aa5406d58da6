//! Patterns of KEYS, SCAN and CONFIG GET: `*`, `?`, `[a-z]`, `[^a]` and `\x`, as Redis reads them.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

/// Whether `text` matches `pattern`.
///
/// On a mismatch only the last `*` takes in one more byte, so that the time is at most the product
/// of both lengths; trying every way, as a plain recursion does, never ends on `a*a*a*b`.
///
/// Oddities are kept: an unclosed `[` ends with the pattern, and an empty text is matched by the
/// empty pattern and by `*` only.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    if text.is_empty() {
        return matches!(pattern, b"" | b"*");
    }
    let (mut p, mut t) = (0_usize, 0_usize);
    // Behind the last `*` seen, and where its stretch of the text ends.
    let mut star: Option<(usize, usize)> = None;
    while let Some(&byte) = text.get(t) {
        if pattern.get(p) == Some(&b'*') {
            p = p.saturating_add(1);
            star = Some((p, t));
            continue;
        }
        if let Some(next) = one(pattern.get(p..).unwrap_or_default(), byte) {
            p = p.saturating_add(next);
            t = t.saturating_add(1);
            continue;
        }
        let Some((behind, end)) = star else { return false };
        let end = end.saturating_add(1);
        star = Some((behind, end));
        (p, t) = (behind, end);
    }
    pattern.get(p..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

/// Matches one byte against the start of `pattern`, which is no `*`; says how much of the pattern
/// it took.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'[', class @ ..] => {
            let (matched, length) = in_class(class, byte);
            matched.then_some(length.saturating_add(1))
        }
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [plain, ..] => (*plain == byte).then_some(1),
    }
}

/// Whether `byte` is in the class that begins behind `[`, and the length of the class with its `]`.
fn in_class(class: &[u8], byte: u8) -> (bool, usize) {
    let negated = class.first() == Some(&b'^');
    let mut rest = if negated { class.get(1..).unwrap_or_default() } else { class };
    let mut matched = false;
    loop {
        rest = match rest {
            [] => break,
            [b'\\', escaped, rest @ ..] => {
                matched |= *escaped == byte;
                rest
            }
            [b']', behind @ ..] => {
                rest = behind;
                break;
            }
            [from, b'-', to, rest @ ..] => {
                matched |= (*from.min(to)..=*from.max(to)).contains(&byte);
                rest
            }
            [plain, rest @ ..] => {
                matched |= *plain == byte;
                rest
            }
        };
    }
    (matched != negated, class.len().saturating_sub(rest.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        let yes = [
            ("*", ""),
            ("", ""),
            ("a*", "a"),
            ("a*b*c", "axxbyyc"),
            ("?", "x"),
            ("[a-c]x", "bx"),
            ("[c-a]x", "bx"),
            ("[^a]", "b"),
            ("[a", "a"),
            ("[^", "x"),
            ("[]", "]a"),
            ("\\*", "*"),
            ("\\", "\\"),
            ("[\\]]", "]"),
            ("**", "ab"),
            ("[a-]", "]"),
        ];
        for (pattern, text) in yes {
            let expected = pattern != "[]";
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
        for (pattern, text) in [("**", ""), ("?", ""), ("a", "b"), ("a*b", "abc"), ("[^a]", "a")] {
            assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_ends_soon() {
        let pattern = [&b"a*".repeat(512)[..], b"b"].concat();
        let steps = std::time::Duration::from_millis(100);
        let clock = crate::clock::SystemClock::new();
        let before = crate::clock::Clock::now(&clock);
        assert!(!matches(&pattern, &[b'a'; 1024]));
        assert!(crate::clock::Clock::now(&clock).saturating_since(before) < steps);
    }
}
