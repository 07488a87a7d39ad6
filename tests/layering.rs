//! Imports run one way: `main → cli/app → api → engine → {bridge → runtime, store, notify} → task`.
//!
//! Reads the sources as text: what one module may name of another, and which crates belong to one layer only.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Each module, and the modules that it may name. A module that is not here fails the test: its place must be decided first.
const ALLOWED: &[(&str, &[&str])] = &[
    ("task", &[]),
    ("runtime", &["task"]),
    ("gather", &[]),
    ("bridge", &["gather", "runtime", "task"]),
    ("store", &["task"]),
    ("notify", &["store", "task"]),
    ("engine", &["bridge", "runtime", "store", "task"]),
    ("proto", &[]),
    ("config", &["task"]),
    ("telemetry", &["config"]),
    ("api", &["engine", "gather", "notify", "store", "task", "proto", "runtime"]),
    ("app", &["api", "engine", "notify", "store", "bridge", "runtime", "task", "proto", "config", "telemetry"]),
    ("cli", &["proto", "config", "app"]),
    ("main", &["cli", "app"]),
];

/// Crates that belong to some layers only, and the modules that may name them.
const CRATES: &[(&str, &[&str])] = &[
    ("bollard", &["runtime"]),
    ("hyper", &["bridge"]),
    ("rusqlite", &["store"]),
    ("tonic", &["proto", "bridge", "api", "app", "cli"]),
    ("prost", &["proto", "bridge", "runtime", "api", "cli"]),
    ("prost_types", &["proto", "api", "cli"]),
    ("tokio", &["gather", "runtime", "bridge", "store", "notify", "engine", "api", "app", "cli", "main"]),
];

#[test]
fn imports_run_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    let mut seen = BTreeSet::new();
    let mut broken = Vec::new();
    for file in sources(&root) {
        let relative = file.strip_prefix(&root).expect("a file below the root");
        let (module, depth) = place(relative);
        // It declares the modules, and that is all.
        if module == "lib" {
            continue;
        }
        let Some(may) = allowed.get(module.as_str()) else {
            broken.push(format!("{}: the module {module} has no place in the table", relative.display()));
            continue;
        };
        let code = without_comments_and_texts(&fs::read_to_string(&file).expect("a source file"));
        for named in modules_named(&code, depth) {
            if named != module && allowed.contains_key(named.as_str()) && !may.contains(&named.as_str()) {
                broken.push(format!("{}: {module} must not name {named}", relative.display()));
            }
        }
        for (name, owners) in CRATES {
            if !owners.contains(&module.as_str()) && heads(without_tests(&code), name).next().is_some() {
                broken.push(format!("{}: {module} must not name the crate {name}", relative.display()));
            }
        }
        seen.insert(module);
    }
    for module in allowed.keys().filter(|module| !seen.contains(**module)) {
        broken.push(format!("the table has a module that is not there: {module}"));
    }
    assert!(broken.is_empty(), "imports against the layers:\n  {}", broken.join("\n  "));
}

#[test]
fn every_way_to_name_a_module_is_seen() {
    let code = "use crate::{store::A, task::{self, B}, config};\nfn f(x: &'static str) { crate::api::g(x); super::super::cli::h() }";
    let named: Vec<String> = modules_named(code, 2).collect();
    assert_eq!(named, ["store", "task", "config", "api", "cli"]);
    assert_eq!(modules_named("use errand::{cli, app::serve};", 1).collect::<Vec<_>>(), ["cli", "app"]);
}

#[test]
fn comments_and_texts_name_nothing() {
    let code = r##"/// [`crate::api`]
        /* crate::cli /* crate::app */ */ let a = "crate::store \" crate::engine"; let b = r#"crate::"task"#; let c = '"';
        use crate::proto;"##;
    let code = without_comments_and_texts(code);
    assert_eq!(modules_named(&code, 1).collect::<Vec<_>>(), ["proto"]);
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a source directory") {
        let path = entry.expect("a directory entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The module at the top that a file belongs to, and how deep below the crate's root the file's own module is.
fn place(relative: &Path) -> (String, usize) {
    let mut names: Vec<String> =
        relative.with_extension("").iter().map(|name| name.to_string_lossy().into_owned()).collect();
    names.retain(|name| name != "mod");
    (names[0].clone(), names.len())
}

/// The first names behind `crate::`, `errand::`, and as many `super::` as lead to the crate's root.
fn modules_named(code: &str, depth: usize) -> impl Iterator<Item = String> {
    let root = "super::".repeat(depth - 1) + "super";
    let mut named: Vec<(usize, String)> = Vec::new();
    for head in ["crate", "errand", root.as_str()] {
        for (position, rest) in heads(code, head) {
            named.extend(first_names(rest).into_iter().map(|name| (position, name)));
        }
    }
    named.sort_by_key(|(position, _)| *position);
    named.into_iter().map(|(_, name)| name)
}

/// Where paths begin with `head::`, and what follows.
fn heads<'c>(code: &'c str, head: &'c str) -> impl Iterator<Item = (usize, &'c str)> {
    let is_part = |character: char| character.is_alphanumeric() || character == '_' || character == ':';
    code.match_indices(head).filter_map(move |(position, _)| {
        let before = code[..position].chars().next_back();
        let rest = code[position + head.len()..].strip_prefix("::")?;
        (!before.is_some_and(is_part)).then_some((position, rest.trim_start()))
    })
}

/// `a` of `a::b`; `a` and `c` of `{a::b, c}`.
fn first_names(rest: &str) -> Vec<String> {
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = rest.strip_prefix('{') else { return vec![name(rest)] };
    let mut names = Vec::new();
    let (mut level, mut begin) = (0, 0);
    for (position, character) in group.char_indices() {
        match character {
            '{' => level += 1,
            '}' if level > 0 => level -= 1,
            ',' | '}' if level == 0 => {
                names.push(name(group[begin..position].trim_start()));
                begin = position + 1;
                if character == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// The code before the tests at its end. They may make up what another layer would say.
fn without_tests(code: &str) -> &str {
    code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default()
}

/// The code with blanks where comments, texts and characters were.
fn without_comments_and_texts(source: &str) -> String {
    let characters: Vec<char> = source.chars().collect();
    let at = |position: usize| characters.get(position).copied().unwrap_or('\0');
    let mut code = String::with_capacity(source.len());
    let mut position = 0;
    while position < characters.len() {
        let end = match (at(position), at(position + 1)) {
            ('/', '/') => (position..).find(|p| matches!(at(*p), '\n' | '\0')),
            ('/', '*') => {
                let mut level = 0;
                let mut p = position;
                loop {
                    match (at(p), at(p + 1)) {
                        ('/', '*') => level += 1,
                        ('*', '/') => level -= 1,
                        ('\0', _) => break Some(p),
                        _ => {
                            p += 1;
                            continue;
                        }
                    }
                    p += 2;
                    if level == 0 {
                        break Some(p);
                    }
                }
            }
            ('r', '"' | '#') if !code.ends_with(|c: char| c.is_alphanumeric() || c == '_') || code.ends_with('b') => {
                let hashes = (position + 1..).take_while(|p| at(*p) == '#').count();
                let open = position + 1 + hashes;
                (at(open) == '"').then(|| {
                    let closes = |p: usize| at(p) == '"' && (1..=hashes).all(|offset| at(p + offset) == '#');
                    (open + 1..characters.len()).find(|p| closes(*p)).map_or(characters.len(), |p| p + hashes + 1)
                })
            }
            ('"', _) => {
                let mut p = position + 1;
                while p < characters.len() && at(p) != '"' {
                    p += if at(p) == '\\' { 2 } else { 1 };
                }
                Some(p + 1)
            }
            ('\'', '\\') => (position + 3..characters.len()).find(|p| at(*p) == '\'').map(|p| p + 1),
            ('\'', _) if at(position + 2) == '\'' => Some(position + 3),
            _ => None,
        };
        match end {
            Some(end) => {
                code.push(' ');
                position = end;
            }
            None => {
                code.push(at(position));
                position += 1;
            }
        }
    }
    code
}
