//! Rust source as far as the rules need it: tokens, and the paths in them.

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Name(String),
    Separator,
    Mark(char),
}

/// Tokens with their line, counted from 1.
pub(super) type Tokens = Vec<(usize, Token)>;

/// Splits Rust source into names, path separators and other marks.
pub(super) fn tokens(source: &str) -> Tokens {
    let text: Vec<char> = source.chars().collect();
    let at = |index: usize| text.get(index).copied().unwrap_or('\0');
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Tokens::new();
    let mut line = 1;
    let mut index = 0;
    while index < text.len() {
        let start = index;
        let mut token = None;
        match (at(index), at(index + 1)) {
            ('/', '/') => {
                while index < text.len() && at(index) != '\n' {
                    index += 1;
                }
            }
            ('/', '*') => index = after_block_comment(&text, index),
            ('"', _) => index = after_string(&text, index),
            ('\'', '\\') => {
                index += 3;
                while index < text.len() && at(index) != '\'' {
                    index += 1;
                }
                index += 1;
            }
            // A character literal; a quote without its partner begins a lifetime.
            ('\'', _) => index += if at(index + 2) == '\'' { 3 } else { 1 },
            (':', ':') => {
                token = Some(Token::Separator);
                index += 2;
            }
            (c, _) if is_name(c) => {
                while is_name(at(index)) {
                    index += 1;
                }
                let name: String = text[start..index].iter().collect();
                let hashes = text[index..].iter().take_while(|c| **c == '#').count();
                let is_raw = matches!(name.as_str(), "r" | "br" | "cr");
                if is_raw && at(index + hashes) == '"' {
                    index = after_raw_string(&text, index + hashes + 1, hashes);
                } else if name == "r" && hashes == 1 {
                    // A raw identifier: its name follows as a token of its own.
                    index += 1;
                } else {
                    token = Some(Token::Name(name));
                }
            }
            (c, _) => {
                index += 1;
                token = (!c.is_whitespace()).then_some(Token::Mark(c));
            }
        }
        found.extend(token.map(|token| (line, token)));
        let passed = &text[start..index.min(text.len())];
        line += passed.iter().filter(|c| **c == '\n').count();
    }
    found
}

fn after_block_comment(text: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut index = start;
    while index < text.len() {
        match (text[index], text.get(index + 1)) {
            ('/', Some('*')) => {
                depth += 1;
                index += 2;
            }
            ('*', Some('/')) => {
                depth -= 1;
                index += 2;
                if depth == 0 {
                    break;
                }
            }
            _ => index += 1,
        }
    }
    index
}

fn after_string(text: &[char], start: usize) -> usize {
    let mut index = start + 1;
    while index < text.len() && text[index] != '"' {
        index += if text[index] == '\\' { 2 } else { 1 };
    }
    index + 1
}

fn after_raw_string(text: &[char], start: usize, hashes: usize) -> usize {
    let is_end = |index: usize| {
        let tail = &text[index + 1..];
        text[index] == '"' && tail.iter().take_while(|c| **c == '#').count() >= hashes
    };
    let end = (start..text.len()).find(|index| is_end(*index));
    end.map_or(text.len(), |end| end + 1 + hashes)
}

/// Drops every item under `#[cfg(test)]`: tests may reach further than what they test.
pub(super) fn without_tests(tokens: Tokens) -> Tokens {
    let marks = ["#", "[", "cfg", "(", "test", ")", "]"];
    let spelled = |token: &Token| match token {
        Token::Name(name) => name.clone(),
        Token::Separator => "::".to_owned(),
        Token::Mark(mark) => mark.to_string(),
    };
    let mut kept = Tokens::new();
    let mut index = 0;
    while index < tokens.len() {
        let rest = &tokens[index..];
        let is_test = rest.len() >= marks.len()
            && marks
                .iter()
                .zip(rest)
                .all(|(mark, (_, token))| *mark == spelled(token));
        if is_test {
            index = after_item(&tokens, index + marks.len());
        } else {
            kept.push(tokens[index].clone());
            index += 1;
        }
    }
    kept
}

/// The index after an item: its semicolon or the brace that closes its body.
fn after_item(tokens: &Tokens, start: usize) -> usize {
    let mut depth = 0;
    for (index, (_, token)) in tokens.iter().enumerate().skip(start) {
        match token {
            Token::Mark('(' | '[' | '{') => depth += 1,
            Token::Mark(')' | ']') => depth -= 1,
            Token::Mark('}') => {
                depth -= 1;
                let next = tokens.get(index + 1).map(|(_, token)| token);
                // The braces of a use tree are not the end of it.
                if depth == 0 && next != Some(&Token::Mark(';')) {
                    return index + 1;
                }
            }
            Token::Mark(';') if depth == 0 => return index + 1,
            _ => {}
        }
    }
    tokens.len()
}

/// A path as it is written, with the use tree around it spelled out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) line: usize,
    pub(super) segments: Vec<String>,
    pub(super) follow: Follow,
}

/// What follows a path, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follow {
    Other,
    Call,
    Rename,
}

impl Found {
    /// Whether `first::second` is a part of the path.
    pub(super) fn has(&self, first: &str, second: impl Fn(&str) -> bool) -> bool {
        let mut pairs = self.segments.windows(2);
        pairs.any(|pair| pair[0] == first && second(&pair[1]))
    }

    pub(super) fn first(&self) -> &str {
        &self.segments[0]
    }
}

pub(super) fn paths(tokens: &Tokens) -> Vec<Found> {
    let mut found = Vec::new();
    let mut index = 0;
    while index < tokens.len() {
        index = match tokens[index].1 {
            Token::Name(_) => read_path(tokens, index, &[], &mut found),
            _ => index + 1,
        };
    }
    found
}

/// Reads the path or tree that begins at `start` below `prefix` and returns the index after it.
fn read_path(tokens: &Tokens, start: usize, prefix: &[String], found: &mut Vec<Found>) -> usize {
    let token = |index: usize| tokens.get(index).map(|(_, token)| token);
    let mut segments = prefix.to_vec();
    let mut index = start;
    loop {
        match token(index) {
            Some(Token::Name(name)) => segments.push(name.clone()),
            Some(Token::Mark('*')) => segments.push("*".to_owned()),
            Some(Token::Mark('{')) => return read_tree(tokens, index + 1, &segments, found),
            // Type arguments: the path goes on after them, but no module does.
            _ => break,
        }
        index += 1;
        if token(index) != Some(&Token::Separator) {
            break;
        }
        index += 1;
    }
    let follow = match (token(index), token(index + 1)) {
        (Some(Token::Mark('!')), Some(Token::Mark('(' | '[' | '{'))) => Follow::Call,
        (Some(Token::Name(name)), _) if name == "as" => Follow::Rename,
        _ => Follow::Other,
    };
    let line = tokens[start].0;
    found.push(Found {
        line,
        segments,
        follow,
    });
    index.max(start + 1)
}

fn read_tree(tokens: &Tokens, start: usize, prefix: &[String], found: &mut Vec<Found>) -> usize {
    let mut index = start;
    while let Some((_, token)) = tokens.get(index) {
        index = match token {
            Token::Mark('}') => return index + 1,
            Token::Name(name) if name == "as" => index + 2,
            Token::Name(_) | Token::Mark('*' | '{') => read_path(tokens, index, prefix, found),
            _ => index + 1,
        };
    }
    index
}
