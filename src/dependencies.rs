//! The direction of dependencies, read from the `use` lines of all files but their tests.

use regex::Regex;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Each may use those before it, and itself.
const ORDER: [&str; 7] = [
    "engine",
    "api",
    "clients",
    "kinds",
    "telemetry",
    "controller",
    "cli",
];

/// What the engine knows nothing of.
const NOT_IN_ENGINE: [&str; 6] = ["kube", "k8s_openapi", "aws_", "axum", "reqwest", "sqlx"];

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let is_test =
            path.ends_with("tests") || path.ends_with("testing") || path.ends_with("tests.rs");
        match path.is_dir() {
            _ if is_test => {}
            true => files(&path, found),
            false => found.push(path),
        }
    }
}

/// Every module with the text of its file, but for comments and tests.
fn modules() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    files(&root, &mut found);
    let comments = Regex::new(r"//[^\n]*").unwrap();
    let tests = Regex::new(r"(?s)#\[cfg\(test\)\]\s+(pub(\(\w+\))? )?mod \w+ \{.*").unwrap();
    let modules = found.into_iter().map(|path| {
        let name = path.strip_prefix(&root).unwrap().with_extension("");
        let name = name.to_str().unwrap().replace('/', "::");
        let text = fs::read_to_string(&path).unwrap();
        let text = tests.replace(&text, "").into_owned();
        let name = name.strip_suffix("::mod").unwrap_or(&name).to_owned();
        (name, comments.replace_all(&text, "").into_owned())
    });
    let outside = ["lib", "main", "dependencies"];
    modules
        .filter(|(name, _)| !outside.contains(&name.as_str()))
        .collect()
}

/// The paths of a `use` tree, one by one.
fn paths(tree: &str, prefix: &str, found: &mut Vec<String>) {
    let (mut depth, mut start) = (0, 0);
    let ends = tree.char_indices().chain([(tree.len(), ',')]);
    for (at, c) in ends {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let part = tree[start..at].trim();
                start = (at + 1).min(tree.len());
                match part.split_once('{') {
                    Some((head, rest)) => {
                        let rest = rest.trim_end().trim_end_matches('}');
                        let inner = rest.to_owned()
                            + &"}".repeat(rest.matches('{').count() - rest.matches('}').count());
                        paths(&inner, &format!("{prefix}{head}"), found);
                    }
                    None if part.is_empty() => {}
                    None => found.push(format!("{prefix}{part}")),
                }
            }
            _ => {}
        }
    }
}

/// Which modules each module uses.
fn uses(modules: &BTreeMap<String, String>) -> BTreeMap<&str, BTreeSet<String>> {
    let lines = Regex::new(r"\buse ((?:crate|super|self)::[^;]*);").unwrap();
    let edges = modules.iter().map(|(module, text)| {
        let mut all = Vec::new();
        for line in lines.captures_iter(text) {
            paths(
                &line[1].split_whitespace().collect::<Vec<_>>().join(" "),
                "",
                &mut all,
            );
        }
        let used = all.iter().filter_map(|path| {
            let mut base: Vec<_> = module.split("::").collect();
            let mut segments: Vec<_> = path.split("::").collect();
            if segments[0] == "crate" {
                base.clear();
            }
            while matches!(segments[0], "crate" | "super" | "self") {
                if segments.remove(0) == "super" {
                    base.pop();
                }
            }
            base.extend(segments);
            while !base.is_empty() && !modules.contains_key(&base.join("::")) {
                base.pop();
            }
            let used = base.join("::");
            (!used.is_empty() && used != *module).then_some(used)
        });
        (module.as_str(), used.collect())
    });
    edges.collect()
}

fn place(module: &str) -> usize {
    let first = module.split("::").next().unwrap();
    let place = ORDER.iter().position(|known| *known == first);
    place.unwrap_or_else(|| panic!("{module} has no place in the order"))
}

#[test]
fn dependencies_point_one_way() {
    let modules = modules();
    let uses = uses(&modules);
    let mut wrong = BTreeSet::new();
    for (module, used) in &uses {
        for used in used {
            if place(used) > place(module) {
                wrong.insert(format!("{module} uses {used}, which stands above it"));
            }
            // What two files of one level say of each other belongs into one, or into a third.
            let back = uses.get(used.as_str());
            let family = used.starts_with(*module) || module.starts_with(used.as_str());
            if !family && back.is_some_and(|back| back.contains(*module)) {
                wrong.insert(format!("{module} and {used} use each other"));
            }
        }
        if module.starts_with("engine") {
            let text = &modules[*module];
            let named = NOT_IN_ENGINE.iter().filter(|name| {
                text.contains(&format!("use {name}")) || text.contains(&format!(" {name}::"))
            });
            wrong.extend(named.map(|name| format!("{module} names {name}")));
        }
    }
    assert!(
        uses.values().map(BTreeSet::len).sum::<usize>() > 200,
        "the use lines are read"
    );
    assert_eq!(wrong, BTreeSet::new());
}
