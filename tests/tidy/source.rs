//! Sources as text: code told apart from comments, string literals and test modules.

use std::collections::BTreeSet;

/// A source file, read.
pub(crate) struct Source {
    /// Path below the repository, with `/`.
    pub(crate) path: String,
    /// The text as it stands.
    pub(crate) text: String,
    /// The text with comments, literals and test modules blanked out; lines are kept.
    pub(crate) code: String,
    /// String literals outside test modules, with their line.
    pub(crate) strings: Vec<(usize, String)>,
    /// Child modules that exist for tests only.
    pub(crate) test_children: Vec<String>,
    /// How many lines belong to test modules.
    pub(crate) test_lines: usize,
}

impl Source {
    pub(crate) fn read(path: &str, text: &str) -> Self {
        let (code, strings) = lex(text);
        let (code, test_lines, test_children) = without_tests(&code);
        let strings = strings.into_iter().filter(|(line, _)| !test_lines.contains(line)).collect();
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code,
            strings,
            test_children,
            test_lines: test_lines.len(),
        }
    }

    /// Path below `src/`.
    pub(crate) fn below_src(&self) -> &str {
        self.path.strip_prefix("src/").unwrap_or(&self.path)
    }

    /// The top-level module that the file belongs to.
    pub(crate) fn module(&self) -> &str {
        let first = self.below_src().split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    pub(crate) fn is_root(&self) -> bool {
        matches!(self.below_src(), "lib.rs" | "main.rs")
    }

    /// Lines of the code that hold `name` as a whole path or word.
    pub(crate) fn lines_with(&self, name: &str) -> Vec<usize> {
        let hits = |line: &str| word_positions(line, name).next().is_some();
        self.code.lines().enumerate().filter(|(_, l)| hits(l)).map(|(n, _)| n + 1).collect()
    }
}

pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where `name` stands in `line` without being a part of a longer word.
pub(crate) fn word_positions<'a>(line: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    line.match_indices(name).map(|(at, _)| at).filter(move |at| {
        let before = line[..*at].chars().next_back();
        let after = line[at + name.len()..].chars().next();
        let ends_in_word = name.ends_with(is_word);
        let inside = before.is_some_and(is_word) || (ends_in_word && after.is_some_and(is_word));
        !inside
    })
}

/// Blanks comments and literals; gives the string literals with their lines.
fn lex(text: &str) -> (String, Vec<(usize, String)>) {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut strings = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < chars.len() {
        let end = token_end(&chars, at);
        let token = &chars[at..end.max(at + 1)];
        if end > at {
            if let Some(literal) = literal_text(token) {
                strings.push((line, literal));
            }
            code.extend(token.iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        } else {
            code.push(token[0]);
        }
        line += token.iter().filter(|c| **c == '\n').count();
        at += token.len();
    }
    (code, strings)
}

/// The end of the comment or literal that begins at `at`; `at` itself if none does.
fn token_end(chars: &[char], at: usize) -> usize {
    let rest = &chars[at..];
    let starts = |text: &str| text.chars().enumerate().all(|(n, c)| rest.get(n) == Some(&c));
    let word_before = at > 0 && is_word(chars[at - 1]);
    if starts("//") {
        return at + rest.iter().position(|c| *c == '\n').unwrap_or(rest.len());
    }
    if starts("/*") {
        let mut depth = 0;
        let mut n = 0;
        while n < rest.len() {
            match (rest[n], rest.get(n + 1)) {
                ('/', Some('*')) => (depth, n) = (depth + 1, n + 2),
                ('*', Some('/')) => (depth, n) = (depth - 1, n + 2),
                _ => n += 1,
            }
            if depth == 0 {
                break;
            }
        }
        return at + n;
    }
    if !word_before && (starts("r\"") || starts("r#") || starts("br\"") || starts("br#")) {
        let prefix = rest.iter().position(|c| *c == 'r').unwrap_or(0) + 1;
        let hashes = rest[prefix..].iter().take_while(|c| **c == '#').count();
        if rest.get(prefix + hashes) == Some(&'"') {
            let close: Vec<char> = std::iter::once('"').chain(vec!['#'; hashes]).collect();
            let body = prefix + hashes + 1;
            let found = rest[body..].windows(close.len()).position(|w| w == close);
            return at + found.map_or(rest.len(), |n| body + n + close.len());
        }
    }
    if rest[0] == '"' {
        return at + quoted_end(rest, '"');
    }
    let char_literal =
        rest[0] == '\'' && (rest.get(1) == Some(&'\\') || rest.get(2) == Some(&'\''));
    if char_literal { at + quoted_end(rest, '\'') } else { at }
}

fn quoted_end(rest: &[char], quote: char) -> usize {
    let mut n = 1;
    while n < rest.len() && rest[n] != quote {
        n += if rest[n] == '\\' { 2 } else { 1 };
    }
    (n + 1).min(rest.len())
}

fn literal_text(token: &[char]) -> Option<String> {
    let text: String = token.iter().collect();
    let body = text.trim_start_matches(['b', 'r']).trim_matches('#');
    Some(body.strip_prefix('"')?.strip_suffix('"').unwrap_or(body).to_owned())
}

/// Blanks modules under `#[cfg(test)]`; gives their lines, and the names of those in other files.
fn without_tests(code: &str) -> (String, BTreeSet<usize>, Vec<String>) {
    let mut kept = String::new();
    let (mut lines, mut children) = (BTreeSet::new(), Vec::new());
    let mut depth_inside: Option<usize> = None;
    let mut marked = false;
    for (number, line) in code.lines().enumerate() {
        let trimmed = line.trim();
        if depth_inside.is_none() && marked && !trimmed.starts_with("#[") {
            let module = trimmed.split_once("mod ").map(|(_, rest)| rest);
            if let Some(child) = module.and_then(|rest| rest.strip_suffix(';')) {
                children.push(child.trim().to_owned());
            } else if trimmed.ends_with('{') {
                depth_inside = Some(0);
            }
            marked = trimmed.is_empty();
        }
        marked |= trimmed.starts_with("#[cfg(test)]") && depth_inside.is_none();
        let test_line = depth_inside.is_some() || marked;
        if let Some(depth) = depth_inside {
            let opened = line.matches('{').count();
            let closed = line.matches('}').count();
            let depth = (depth + opened).saturating_sub(closed);
            depth_inside = (depth > 0).then_some(depth);
        }
        if test_line {
            lines.insert(number + 1);
        } else {
            kept.push_str(line);
        }
        kept.push('\n');
    }
    (kept, lines, children)
}
