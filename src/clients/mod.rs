//! Clients of the outside systems. Passed in, never reached for.

pub mod aws;
pub mod kubernetes;
pub mod limit;
