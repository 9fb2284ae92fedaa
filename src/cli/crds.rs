//! `campanile crds`.

use crate::{
    api,
    engine::error::{Error, Result},
};
use std::io::Write;

/// Prints the CustomResourceDefinitions as one YAML stream.
pub fn print() -> Result<()> {
    let failed =
        |error: &dyn std::fmt::Display| Error::failing(format!("printing the CRDs: {error}"));
    let mut out = std::io::stdout().lock();
    for crd in api::crds() {
        let yaml = serde_saphyr::to_string(&crd).map_err(|error| failed(&error))?;
        write!(out, "---\n{yaml}").map_err(|error| failed(&error))?;
    }
    out.flush().map_err(|error| failed(&error))
}
