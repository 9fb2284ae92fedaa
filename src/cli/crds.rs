//! `campanile crds`: prints the CustomResourceDefinitions.

use crate::{
    api,
    engine::error::{Error, Result},
};
/// The CustomResourceDefinitions as one YAML stream.
pub fn yaml() -> Result<String> {
    let documents = api::crds().into_iter().map(|crd| {
        let yaml = serde_saphyr::to_string(&crd);
        let yaml = yaml.map_err(|error| Error::failing(format!("the CRDs as YAML: {error}")))?;
        Ok(format!("---\n{yaml}"))
    });
    documents.collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_crds_are_those_of_the_code() {
        let committed = include_str!("../../crds/campanile.yaml");
        assert!(
            super::yaml().unwrap() == committed,
            "run `make crds` and commit the result"
        );
    }
}
