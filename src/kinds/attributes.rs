//! What becomes of each attribute of what Campanile makes outside.

/// What becomes of one attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// The spec, or Campanile for it, says what it is.
    Declared,
    /// It stays as it is where nobody sets it: anything else is drift.
    AtDefault,
    /// Whoever has the account may set it. It is never touched, and the README says so.
    Theirs,
    /// The outside tells it, and nobody can set it by itself.
    ReadOnly,
}

/// All attributes of one type, by the names that the SDK has for them.
pub type Attributes = &'static [(&'static str, Attribute)];

/// How tables of attributes are tested.
#[cfg(test)]
pub mod tests {
    use super::Attributes;
    use std::{collections::BTreeSet, fmt::Debug};

    /// The names of the fields of a struct. The SDK's types cannot be destructured without `..`, but they print all.
    fn fields(value: &dyn Debug) -> BTreeSet<String> {
        let text = format!("{value:#?}");
        let lines = text
            .lines()
            .filter_map(|line| line.strip_prefix("    ")?.split_once(": "));
        let names = lines.map(|(name, _)| name);
        let plain = |name: &&str| name.bytes().all(|it| it.is_ascii_lowercase() || it == b'_');
        let ours = |name: &&str| plain(name) && !name.starts_with('_');
        names.filter(ours).map(str::to_owned).collect()
    }

    /// What a new SDK brings is to be decided on before anybody meets it.
    pub fn assert_complete(attributes: Attributes, of: &dyn Debug) {
        let known: BTreeSet<_> = attributes.iter().map(|(name, _)| (*name).into()).collect();
        assert_eq!(known.len(), attributes.len(), "one of them stands twice");
        let fields = fields(of);
        let differ: Vec<_> = known.symmetric_difference(&fields).collect();
        assert!(differ.is_empty(), "{differ:?} of {of:?}");
    }
}
