//! What is committed is what works.

use crate::support::{binary, root, test};
use std::process::Command;

#[test]
fn the_committed_crds_are_those_of_the_code() {
    let printed = Command::new(binary())
        .arg("crds")
        .env_clear()
        .output()
        .unwrap();
    assert!(printed.status.success());
    let committed = std::fs::read_to_string(root().join("crds/campanile.yaml")).unwrap();
    assert!(
        String::from_utf8(printed.stdout).unwrap() == committed,
        "run `make crds` and commit the result"
    );
}

#[test]
fn the_golden_signals_are_sixteen_alarms() {
    let text = std::fs::read_to_string(root().join("examples/20-vsu-golden-signals.yaml")).unwrap();
    assert_eq!(
        text.lines()
            .filter(|line| line.trim_start().starts_with("- name:"))
            .count(),
        16
    );
}

#[test]
fn every_example_is_accepted() {
    test(|world| async move {
        let mut files: Vec<_> = std::fs::read_dir(root().join("examples"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        assert!(files.len() >= 4);
        for file in files {
            world
                .kubernetes
                .apply_path(&file)
                .await
                .unwrap_or_else(|error| panic!("{}: {error:#}", file.display()));
        }
    });
}
