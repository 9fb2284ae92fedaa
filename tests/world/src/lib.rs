//! The test world: everything Campanile talks to, on loopback, real where a real part exists.
//!
//! [`World::start`] brings all of it up at once and returns when it serves; dropping the world, or the death of the process that
//! started it, ends all of it. Worlds side by side do not see each other.

pub mod aws;
pub mod install;
pub mod kubernetes;
pub mod pagerduty;
pub mod port;
pub mod process;
mod run_dir;
mod server;
pub mod slack;
mod world;

pub use aws::OPERATOR_ACCOUNT;
pub use world::{OPERATOR, OPERATOR_REGION, Options, World};
