//! What goes wrong is said on the resource, for the person who reads it, and holds up nothing else.
//!
//! Most of it befalls the usual tenant and its set `golden`.

mod absent;
mod access;
mod deletion;
mod lost;

use crate::support::{Conditions, Tenant, alarm, errors, eventually, paged, pager_key, test};
use campanile::api::{AlarmSet, Health, Severity};
use serde_json::{Value, json};

/// For a neighbour in an account that the namespace is not bound to.
const UNBOUND: [&str; 1] = ["--require-account-binding=false"];
