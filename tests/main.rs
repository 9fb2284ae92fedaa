//! Campanile against the test world: the real API server, the AWS emulator, the stand-ins.
//!
//! One world for all; a namespace, an account and an operator of its own for each test.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

mod alarm_path;
mod cli;
mod damage;
mod examples;
mod face;
mod fleet;
mod idle;
mod isolation;
mod journey;
mod limits;
mod news;
mod notify;
mod ownership;
mod planning;
mod schema;
mod slack_channel;
mod slack_trouble;
mod trouble;
