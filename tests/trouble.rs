//! What goes wrong is said on the resource, for the person who reads it, and holds up nothing else.
//!
//! Most of it befalls the usual tenant and its set `golden`.

mod absent;
mod access;
mod deletion;
mod lost;
mod refused;

use crate::support::{
    Conditions, Tenant, alarm, at_least, errors, eventually, once, paged, pager_key, put_by_hand,
    test,
};
use campanile::api::{AlarmSet, Health, Severity};
use serde_json::{Value, json};

/// For a neighbour in an account that the namespace is not bound to.
const UNBOUND: [&str; 1] = ["--require-account-binding=false"];
