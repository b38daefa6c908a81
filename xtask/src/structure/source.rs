//! A Rust file, read as far as the checks need it: its words and signs without comments, its texts, and where its tests begin.
//!
//! This is a lexer of the plainest kind. It knows comments, strings and lifetimes, and nothing of the grammar.

use std::ops::RangeInclusive;

/// A Rust file.
#[derive(Debug)]
pub(super) struct Source {
    /// The file, from the root, with `/` between folders.
    pub(super) path: String,
    /// Words, signs, `::`, `=>` and `->`, in sequence; no comments, no texts.
    pub(super) tokens: Vec<Token>,
    /// The texts (string literals), in sequence.
    pub(super) texts: Vec<Token>,
    /// The lines of the file.
    line_count: usize,
    /// The lines of its test modules.
    tests: Vec<RangeInclusive<usize>>,
    /// The files of the test modules that it declares and that stand elsewhere.
    pub(super) test_files: Vec<String>,
}

/// A word, a sign or a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    /// Its line, from 1.
    pub(super) line: usize,
    /// It as it stands in the file.
    pub(super) text: String,
}

impl Token {
    /// Whether it is a name or a keyword.
    pub(super) fn is_word(&self) -> bool {
        self.text.starts_with(|letter: char| letter.is_alphabetic() || letter == '_')
    }
}

impl Source {
    /// Reads the file `path` whose content is `text`.
    pub(super) fn new(path: &str, text: &str) -> Self {
        let mut lexer = Lexer { rest: text, line: 1, tokens: Vec::new(), texts: Vec::new() };
        lexer.run();
        let Lexer { tokens, texts, .. } = lexer;
        let path = path.to_owned();
        let mut source = Self { path, tokens, texts, line_count: text.lines().count(), tests: Vec::new(), test_files: Vec::new() };
        for index in 0..source.tokens.len() {
            match find_test_module(&source.tokens, index) {
                Some(TestModule::Here(lines)) => source.tests.push(lines),
                Some(TestModule::Elsewhere(name)) => source.test_files.extend(files_of_module(&source.path, &name)),
                None => {}
            }
        }
        if source.path.split('/').any(|part| matches!(part, "tests" | "tests.rs" | "benches")) {
            source.is_all_test();
        }
        source
    }

    /// The whole file is a test.
    pub(super) fn is_all_test(&mut self) {
        self.tests = vec![1..=usize::MAX];
    }

    /// The file's name.
    pub(super) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }

    /// Whether `line` belongs to tests.
    pub(super) fn is_test(&self, line: usize) -> bool {
        self.tests.iter().any(|lines| lines.contains(&line))
    }

    /// How many lines are no tests.
    pub(super) fn production_line_count(&self) -> usize {
        (1..=self.line_count).filter(|line| !self.is_test(*line)).count()
    }

    /// The words and signs that are no tests.
    pub(super) fn production(&self) -> Vec<&Token> {
        self.tokens.iter().filter(|token| !self.is_test(token.line)).collect()
    }

    /// The `N` words and signs of the file from `index` on.
    pub(super) fn window<const N: usize>(&self, index: usize) -> Option<[&str; N]> {
        window(&self.tokens, index)
    }
}

fn window<const N: usize>(tokens: &[Token], index: usize) -> Option<[&str; N]> {
    let mut window = [""; N];
    for (place, token) in window.iter_mut().zip(tokens.get(index..index.checked_add(N)?)?) {
        *place = &token.text;
    }
    Some(window)
}

#[derive(Debug, PartialEq, Eq)]
enum TestModule {
    /// `#[cfg(test)] mod x { … }`
    Here(RangeInclusive<usize>),
    /// `#[cfg(test)] mod x;`
    Elsewhere(String),
}

/// The module for tests whose attribute stands at `index`.
fn find_test_module(tokens: &[Token], index: usize) -> Option<TestModule> {
    if window(tokens, index)? != ["#", "[", "cfg", "(", "test", ")", "]"] {
        return None;
    }
    let begin = tokens.get(index)?.line;
    let mut after = tokens.iter().skip(index + 7);
    let mut depth = 0_usize;
    // Other attributes and a visibility may stand in between.
    loop {
        match after.next()?.text.as_str() {
            "[" | "(" => depth += 1,
            "]" | ")" => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            "mod" => break,
            "#" | "pub" => {}
            _ => return None,
        }
    }
    let name = &after.next()?.text;
    if after.next()?.text == ";" {
        return Some(TestModule::Elsewhere(name.clone()));
    }
    let mut depth = 1_usize;
    let end = after.find(|token| {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    Some(TestModule::Here(begin..=end.map_or(usize::MAX, |end| end.line)))
}

/// Where the module `name` that `path` declares may stand, with everything below it.
fn files_of_module(path: &str, name: &str) -> [String; 2] {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let folder = match file {
        "lib.rs" | "main.rs" | "mod.rs" => folder.to_owned(),
        _ => path.trim_end_matches(".rs").to_owned(),
    };
    [format!("{folder}/{name}.rs"), format!("{folder}/{name}/")]
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    tokens: Vec<Token>,
    texts: Vec<Token>,
}

impl Lexer<'_> {
    fn run(&mut self) {
        while let Some(letter) = self.rest.chars().next() {
            if letter.is_whitespace() {
                self.skip(letter.len_utf8());
            } else if self.rest.starts_with("//") {
                self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
            } else if self.rest.starts_with("/*") {
                self.block_comment();
            } else if let Some(length) = raw_text_start(self.rest) {
                self.raw_text(length);
            } else if letter == '"' || self.rest.starts_with("b\"") || self.rest.starts_with("c\"") {
                self.text();
            } else if letter == '\'' || self.rest.starts_with("b'") {
                self.quote();
            } else if letter.is_alphanumeric() || letter == '_' {
                self.take(self.rest.find(|letter: char| !(letter.is_alphanumeric() || letter == '_')).unwrap_or(self.rest.len()));
            } else if ["::", "=>", "->"].iter().any(|sign| self.rest.starts_with(sign)) {
                self.take(2);
            } else {
                self.take(letter.len_utf8());
            }
        }
    }

    /// Leaves `length` bytes behind.
    fn skip(&mut self, length: usize) -> String {
        let (skipped, rest) = self.rest.split_at_checked(length).unwrap_or((self.rest, ""));
        self.line += skipped.matches('\n').count();
        self.rest = rest;
        skipped.to_owned()
    }

    fn take(&mut self, length: usize) {
        let line = self.line;
        let text = self.skip(length);
        self.tokens.push(Token { line, text });
    }

    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        loop {
            if self.rest.starts_with("/*") {
                depth += 1;
                self.skip(2);
            } else if self.rest.starts_with("*/") {
                depth = depth.saturating_sub(1);
                self.skip(2);
            } else {
                self.skip(self.rest.chars().next().map_or(0, char::len_utf8));
            }
            if depth == 0 || self.rest.is_empty() {
                return;
            }
        }
    }

    /// A text like `r#"…"#`, whose opening is `length` bytes long.
    fn raw_text(&mut self, length: usize) {
        let line = self.line;
        let opening = self.skip(length);
        let closing = format!("\"{}", "#".repeat(opening.matches('#').count()));
        let text = self.skip(self.rest.find(&closing).unwrap_or(self.rest.len()));
        self.skip(closing.len());
        self.texts.push(Token { line, text });
    }

    fn text(&mut self) {
        let line = self.line;
        self.skip(self.rest.find('"').map_or(0, |quote| quote + 1));
        let text = self.skip(find_unescaped(self.rest, '"'));
        self.skip(1);
        self.texts.push(Token { line, text });
    }

    /// A letter in quotes, or a lifetime.
    fn quote(&mut self) {
        self.skip(self.rest.find('\'').map_or(0, |quote| quote + 1));
        let mut letters = self.rest.chars();
        let is_letter = match (letters.next(), letters.next()) {
            (Some('\\'), _) => true,
            (Some(_), second) => second == Some('\''),
            (None, _) => false,
        };
        if is_letter {
            self.skip(find_unescaped(self.rest, '\'') + 1);
        } else {
            // The lifetime's name means nothing to any check.
            self.skip(self.rest.find(|letter: char| !(letter.is_alphanumeric() || letter == '_')).unwrap_or(self.rest.len()));
        }
    }
}

/// The length of `r"`, `r##"`, `br#"` and the like at the beginning of `rest`.
fn raw_text_start(rest: &str) -> Option<usize> {
    let after = ["br", "cr", "r"].iter().find_map(|prefix| rest.strip_prefix(prefix))?;
    let after = after.trim_start_matches('#').strip_prefix('"')?;
    Some(rest.len() - after.len())
}

/// Where the first `quote` without a `\` before it stands, or the end.
fn find_unescaped(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (index, letter) in text.char_indices() {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if letter == quote => return index,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        Source::new("a.rs", text).tokens.into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_texts_and_letters_are_no_code() {
        let text = r####"a /* b /* c */ d */ e // f
            "g \" h" i r#"j " k"# l 'm' '\'' &'static n b"o" b'p' r#type"####;
        assert_eq!(words(text), ["a", "e", "i", "l", "&", "n", "r", "#", "type"]);
    }

    #[test]
    fn texts_are_kept_with_their_line() {
        let source = Source::new("a.rs", "x\n\"one\ntwo\"\nr#\"three\"#;");
        assert_eq!(source.texts, [Token { line: 2, text: "one\ntwo".into() }, Token { line: 4, text: "three".into() }]);
        assert_eq!(source.tokens.last(), Some(&Token { line: 4, text: ";".into() }));
    }

    #[test]
    fn a_test_module_is_told_from_what_stands_around_it() {
        let source = Source::new("a.rs", "#[cfg(test)]\nuse b;\n#[cfg(test)]\n#[expect(d)]\npub(crate) mod tests {\n{}\n}\nfn c() {}\n");
        let test_lines: Vec<usize> = (1..=8).filter(|line| source.is_test(*line)).collect();
        assert_eq!(test_lines, [3, 4, 5, 6, 7]);
        assert_eq!(source.production_line_count(), 3);
        assert_eq!(source.production().last().unwrap().line, 8);
    }

    #[test]
    fn a_test_module_in_a_file_of_its_own_is_named() {
        let declares = "#[cfg(test)]\nmod properties;\nmod state;";
        assert_eq!(Source::new("a/src/domain.rs", declares).test_files, ["a/src/domain/properties.rs", "a/src/domain/properties/"]);
        assert_eq!(Source::new("a/src/lib.rs", declares).test_files, ["a/src/properties.rs", "a/src/properties/"]);
        assert_eq!(Source::new("a/src/domain.rs", declares).production_line_count(), 3);
    }

    #[test]
    fn a_file_below_tests_is_a_test_from_its_first_line() {
        assert!(Source::new("libs/kit/tests/a.rs", "fn a() {}").is_test(1));
        assert!(Source::new("libs/kit/src/a/tests.rs", "fn a() {}").is_test(1));
        assert!(!Source::new("libs/testkit/src/a.rs", "fn a() {}").is_test(1));
    }
}
