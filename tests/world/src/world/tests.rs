use std::collections::BTreeMap;
use std::path::Path;

use super::{Options, World};

#[tokio::test]
async fn an_operator_gets_its_own_environment_and_goes_with_the_world() {
    let world = World::start(Options::default()).await.unwrap();

    let printed = world
        .operator(
            Path::new("/usr/bin/env"),
            [""; 0],
            &[("MORE", "1"), ("AWS_REGION", "eu-west-1")],
        )
        .await
        .unwrap();
    assert!(printed.wait_exit().await.unwrap().success());
    let printed = printed.log_tail(100);
    let printed: BTreeMap<_, _> = printed
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    let mut expected = world.operator_environment();
    expected.insert("MORE".to_owned(), "1".to_owned());
    expected.insert("AWS_REGION".to_owned(), "eu-west-1".to_owned());
    assert_eq!(
        printed,
        expected
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    );

    let who = world
        .kubernetes
        .kubectl_as(world.operator_kubeconfig(), ["auth", "whoami"])
        .await
        .unwrap();
    assert!(
        who.success()
            .unwrap()
            .contains("system:serviceaccount:campanile-system:campanile")
    );

    let sleeper = world
        .operator(Path::new("/bin/sleep"), ["1000"], &[])
        .await
        .unwrap();
    assert!(sleeper.is_running() && sleeper.log_path().ends_with("operator-2.log"));
    let home = world.run_dir().to_owned();
    drop((sleeper, world));
    assert!(!home.exists() || std::env::var_os("CAMPANILE_WORLD_KEEP").is_some());
}
