//! The topological order of the resources of one stage that refer to each other.

use std::collections::{BTreeMap, BTreeSet};

/// Layers of keys, each of which needs only keys of layers before it; and the keys that cannot be ordered, since they
/// need each other or something that does. What is needed and not among the keys counts as there.
pub fn layers<K: Ord + Clone>(
    mut needs: BTreeMap<K, BTreeSet<K>>,
) -> (Vec<BTreeSet<K>>, BTreeSet<K>) {
    let mut layers = Vec::new();
    loop {
        let free = |of: &BTreeSet<K>| !of.iter().any(|need| needs.contains_key(need));
        let layer: BTreeSet<K> = needs
            .iter()
            .filter(|(_, of)| free(of))
            .map(|(key, _)| key.clone())
            .collect();
        if layer.is_empty() {
            return (layers, needs.into_keys().collect());
        }
        needs.retain(|key, _| !layer.contains(key));
        layers.push(layer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_comes_first_and_circles_are_told() {
        for (needs, expected, circle) in [
            ("a b c", vec!["abc"], ""),
            ("a>b b>c c", vec!["c", "b", "a"], ""),
            ("a>bc b>c c d", vec!["cd", "b", "a"], ""),
            // Not among them: it is there already, or nobody's concern.
            ("a>x b", vec!["ab"], ""),
            ("a>b b>a c>a d", vec!["d"], "abc"),
            ("a>a b", vec!["b"], "a"),
        ] {
            let keys = |text: &str| text.chars().collect::<BTreeSet<_>>();
            let parts = needs.split(' ').map(|part| {
                let (key, of) = part.split_once('>').unwrap_or((part, ""));
                (key.chars().next().unwrap(), keys(of))
            });
            let (found, stuck) = layers(parts.collect());
            let expected: Vec<_> = expected.into_iter().map(keys).collect();
            assert_eq!((found, stuck), (expected, keys(circle)), "{needs}");
        }
    }
}
