//! What the tests share: the world, a tenant of one's own, and waiting for a condition.
//!
//! | file | what is in it |
//! |---|---|
//! | `tenant.rs` | a namespace, an account and a role of a test's own; what a person does to the objects in it |
//! | `usual.rs` | what most tests declare: a tenant named like its namespace, and its AlarmSet `golden` |
//! | `object.rs` | how an object is read: its conditions, and what kstatus makes of it |
//! | `waiting.rs` | waiting for a condition |
//! | `operator.rs` | an operator at work, and what it shows by HTTP, in its log and in Events |
//! | `aws.rs` | what is in a tenant's account, and who asked for it |
//! | `plan.rs` | `campanile plan` |
//! | `slack.rs` | a workspace of a tenant's own |

mod aws;
mod object;
mod operator;
mod plan;
pub mod slack;
mod tenant;
mod usual;
mod waiting;

pub use aws::{about, put_by_hand};
pub use object::{Conditions, Object, kstatus};
pub use operator::{Address, lines, log};
pub use plan::{Planned, plan, plan_as};
pub use tenant::{Tenant, version, with};
pub use usual::{alarm, errors, paged, pager_key};
pub use waiting::{PATIENCE, at_least, eventually, once};

use campanile_world::{Options, World};
use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::{LazyLock, Once},
};
use tokio::{runtime::Runtime, sync::OnceCell};

/// The cluster's name for all operators of the tests.
pub const CLUSTER: &str = "it";
/// The Region of all tenants of the tests.
pub const REGION: &str = "us-east-2";

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
static WORLD: OnceCell<World> = OnceCell::const_new();

/// Runs a test in the world.
pub fn test<F: Future<Output = ()>>(body: impl FnOnce(&'static World) -> F) {
    static LOUD: Once = Once::new();
    LOUD.call_once(|| {
        eprintln!("world: starting (the first time on a machine this takes minutes)")
    });
    RUNTIME.block_on(async {
        let world = WORLD
            .get_or_init(|| async {
                let world = World::start(Options::default())
                    .await
                    .expect("the world starts");
                world
                    .kubernetes
                    .install_crds(&root().join("crds"))
                    .await
                    .expect("the CRDs are accepted");
                world
            })
            .await;
        body(world).await;
    });
}

/// The top of the repository.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The operator's binary.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_campanile"))
}
