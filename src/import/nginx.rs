//! The `map` blocks of nginx (ngx_http_map_module), or a file that such a block includes: `"key" "user";`. Words, quotes
//! and escapes are nginx's own (ngx_conf_file.c).

use super::{Found, Owner};

/// Schemes that may stand before a key in `Authorization`.
const SCHEMES: [&str; 4] = ["bearer", "apikey", "api-key", "token"];

/// Every key of every map over a variable that holds keys, such as `$http_x_api_key`.
pub(super) fn read(text: &str) -> Found {
    let mut found = Found::default();
    let tokens = match tokens(text) {
        Ok(tokens) => tokens,
        Err(line) => {
            found.problem(line, "a quote that opens here is not closed, or nothing divides it from what follows");
            return found;
        }
    };
    let has_blocks = tokens.iter().any(|token| token.kind == Kind::Open);
    // A file that a map includes has its lines and no block around them; any variable could be the map's.
    let mut blocks: Vec<Block> = if has_blocks { Vec::new() } else { vec![Block::Keys { scheme: false }] };
    let (mut statement, mut maps) = (Vec::new(), usize::from(!has_blocks));
    for token in &tokens {
        match (token.kind, blocks.last()) {
            (Kind::Word, _) => statement.push(token),
            (Kind::Open, _) => {
                let block = opened(&mut found, &statement);
                maps += usize::from(matches!(block, Block::Keys { .. }));
                blocks.push(block);
                statement.clear();
            }
            (Kind::Close, _) => {
                blocks.pop();
                statement.clear();
            }
            (Kind::End, Some(Block::Keys { scheme })) => {
                row(&mut found, token.line, &statement, *scheme);
                statement.clear();
            }
            (Kind::End, _) => statement.clear(),
        }
    }
    match statement.first() {
        Some(token) => found.problem(token.line, "what begins here does not end: a `;` or `}` is missing"),
        None if has_blocks && !blocks.is_empty() => found.problem(text.lines().count().max(1), "a `}` is missing"),
        None => {}
    }
    if maps == 0 {
        found.problem(1, "there is no map over a variable with keys, such as $http_x_api_key, in this");
    }
    if found.entries.iter().any(|entry| matches!(entry.owner, Owner::Named(_) | Owner::Unnamed)) {
        found.remark(1, "nginx takes keys in upper and lower case alike; keygate only as they are written here");
    }
    found
}

/// What a brace opened.
enum Block {
    /// A map over keys; `scheme` says that they stand behind one, as in `Authorization`.
    Keys { scheme: bool },
    /// Something else.
    Other,
}

fn opened(found: &mut Found, statement: &[&Token]) -> Block {
    let [map, variable, _] = statement else { return Block::Other };
    if map.text != "map" {
        return Block::Other;
    }
    let variable = variable.text.to_ascii_lowercase();
    if ["key", "token", "auth"].iter().any(|word| variable.contains(word)) {
        return Block::Keys { scheme: variable.contains("http_authorization") };
    }
    found.remark(map.line, "this map is left out: its variable does not look as if it held keys");
    Block::Other
}

/// One line of a map, ended on `line`.
fn row(found: &mut Found, line: usize, statement: &[&Token], scheme: bool) {
    let (key, user) = match statement {
        [only] if ["hostnames", "volatile"].contains(&only.text.as_str()) => return,
        [key, user] => (*key, user.text.as_str()),
        _ => {
            let line = statement.first().map_or(line, |token| token.line);
            return found.problem(line, "a line of a map holds a key and a user, and ends with `;`");
        }
    };
    let line = key.line;
    match key.text.as_str() {
        "include" => return found.remark(line, "the file that is included here is not read: import it, too"),
        "default" if user.is_empty() || user == "0" => return,
        "default" => {
            let what = "everybody without a key is somebody here; keygate lets nobody in without one";
            return found.remark(line, what);
        }
        pattern if pattern.starts_with('~') => {
            return found
                .problem(line, "this is a pattern, which many keys can fit: name each key, or take the line out");
        }
        _ => {}
    }
    let owner = match user {
        "" | "0" => return found.remark(line, "this key is left out: it stands for nobody"),
        "1" => Owner::Unnamed,
        user if user.contains('$') => return found.problem(line, "the user is a variable: name the user"),
        user => Owner::Named(user.to_owned()),
    };
    let secret = key.text.strip_prefix('\\').unwrap_or(&key.text);
    if !scheme {
        let _taken = found.secret(line, secret, owner);
        return;
    }
    match secret.split_once(' ') {
        Some((name, secret)) if SCHEMES.iter().any(|known| known.eq_ignore_ascii_case(name)) => {
            let _taken = found.secret(line, secret, owner);
        }
        _ => found.problem(line, "before a key in `Authorization` stands Bearer, ApiKey, Api-Key or Token"),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Word,
    /// `;`
    End,
    /// `{`
    Open,
    /// `}`
    Close,
}

struct Token {
    line: usize,
    kind: Kind,
    text: String,
}

/// Errors: the line of a quote that is not closed, or that something follows at once.
fn tokens(text: &str) -> Result<Vec<Token>, usize> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let sign = |kind| Token { line, kind, text: String::new() };
        match c {
            '\n' => line += 1,
            c if c.is_ascii_whitespace() => {}
            '#' => while chars.next_if(|c| *c != '\n').is_some() {},
            ';' => tokens.push(sign(Kind::End)),
            '{' => tokens.push(sign(Kind::Open)),
            '}' => tokens.push(sign(Kind::Close)),
            '"' | '\'' => {
                let (start, mut text) = (line, String::new());
                loop {
                    let next = chars.next().ok_or(start)?;
                    line += usize::from(next == '\n');
                    match next {
                        _ if next == c => break,
                        '\\' => escape(&mut text, chars.next().ok_or(start)?),
                        next => text.push(next),
                    }
                }
                if chars.peek().is_some_and(|next| !next.is_ascii_whitespace() && !matches!(next, ';' | '{' | ')')) {
                    return Err(start);
                }
                tokens.push(Token { line: start, kind: Kind::Word, text });
            }
            c => {
                let mut text = String::new();
                let mut next = Some(c);
                while let Some(c) = next {
                    match c {
                        '\\' => escape(&mut text, chars.next().ok_or(line)?),
                        c => text.push(c),
                    }
                    let variable = text.ends_with('$');
                    let ends = |c: &char| c.is_ascii_whitespace() || *c == ';' || (*c == '{' && !variable);
                    next = chars.next_if(|c| !ends(c));
                }
                tokens.push(Token { line, kind: Kind::Word, text });
            }
        }
    }
    Ok(tokens)
}

/// A character behind a backslash: nginx takes the backslash away before quotes, itself and three letters only.
fn escape(text: &mut String, c: char) {
    match c {
        '"' | '\'' | '\\' => text.push(c),
        't' => text.push('\t'),
        'r' => text.push('\r'),
        'n' => text.push('\n'),
        c => text.extend(['\\', c]),
    }
}
