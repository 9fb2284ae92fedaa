//! Campanile.
pub mod alarms;
pub mod api;
pub mod cli;
pub mod clients;
pub mod controller;
pub mod error;
pub mod kind;
pub mod mark;
pub mod names;
pub mod plan;
pub mod secret;
pub mod stage;
pub mod telemetry;
pub mod tenant;
