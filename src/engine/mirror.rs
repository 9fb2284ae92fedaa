//! The cache of an informer: the last bulk read, overlaid with our own later writes, which win over a read that
//! began before them. Pure state; [`crate::engine::informer`] reads and wakes.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::Arc,
};

/// The key of a cached thing; also the prefix by which things are read and subscribed to.
pub trait InformerKey: Clone + Debug + Ord + Send + Sync + 'static {
    /// Whether a read of `prefix` includes this key. In the order of keys, those under a prefix follow it without
    /// a gap.
    fn is_under(&self, prefix: &Self) -> bool {
        self == prefix
    }
}

/// A name; it is under each of its prefixes.
impl InformerKey for String {
    fn is_under(&self, prefix: &Self) -> bool {
        self.starts_with(prefix.as_str())
    }
}

/// The key of a thing that is there once.
impl InformerKey for () {}

/// A value in the cache.
pub trait Mirrored: PartialEq + Send + Sync + 'static {
    /// Whether nobody is to be woken for the difference: then the older value stays, so that a text which
    /// changes all the time wakes nobody.
    fn is_equivalent(&self, other: &Self) -> bool {
        self == other
    }
}

/// When a read began, on the clock of the mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

#[derive(Debug)]
enum Known<V> {
    There(Arc<V>),
    Gone,
    /// A write had no answer, or nobody subscribed for a while.
    Invalidated,
}

#[derive(Debug)]
struct Entry<V> {
    known: Known<V>,
    stamp: u64,
}

impl<V> Entry<V> {
    fn value(&self) -> Option<&Arc<V>> {
        match &self.known {
            Known::There(value) => Some(value),
            Known::Gone | Known::Invalidated => None,
        }
    }
}

/// One scope as it was read last, with what we wrote since.
#[derive(Debug)]
pub struct Mirror<K, V> {
    clock: u64,
    /// When the last read of everything began.
    published: u64,
    entries: BTreeMap<K, Entry<V>>,
}

impl<K, V> Default for Mirror<K, V> {
    fn default() -> Self {
        Self {
            clock: 0,
            published: 0,
            entries: BTreeMap::new(),
        }
    }
}

impl<K: InformerKey, V: Mirrored> Mirror<K, V> {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// A read begins.
    pub fn begin(&mut self) -> Ticket {
        Ticket(self.tick())
    }

    /// Takes a complete read of everything that began at `ticket`, and returns the keys that changed.
    pub fn publish(&mut self, ticket: Ticket, read: BTreeMap<K, V>) -> BTreeSet<K> {
        let keys: BTreeSet<_> = self.entries.keys().chain(read.keys()).cloned().collect();
        let changed = self.publish_some(ticket, &keys, read);
        // A read by name that began before this one may still be under way: what is gone is forgotten only at the
        // next complete read.
        let before = std::mem::replace(&mut self.published, ticket.0);
        self.entries
            .retain(|_, entry| entry.stamp > before || !matches!(entry.known, Known::Gone));
        changed
    }

    /// The same of a read of these prefixes. Whatever is outside of them becomes unknown, not absent.
    pub fn publish_under(
        &mut self,
        ticket: Ticket,
        prefixes: &BTreeSet<K>,
        read: BTreeMap<K, V>,
    ) -> BTreeSet<K> {
        let asked = |key: &K| prefixes.iter().any(|prefix| key.is_under(prefix));
        self.entries
            .retain(|key, entry| asked(key) || entry.stamp > ticket.0);
        self.publish(ticket, read)
    }

    /// Takes a read of `keys` alone, of which those that are not in `read` do not exist, and returns the keys that
    /// changed.
    pub fn publish_some(
        &mut self,
        ticket: Ticket,
        keys: &BTreeSet<K>,
        mut read: BTreeMap<K, V>,
    ) -> BTreeSet<K> {
        let mut changed = BTreeSet::new();
        for key in keys {
            let old = self.entries.get(key);
            // We wrote since, or a read that began later ended earlier.
            if old.is_some_and(|old| old.stamp > ticket.0) {
                continue;
            }
            let known = match (old.map(|old| &old.known), read.remove(key)) {
                (Some(Known::There(old)), Some(new)) if old.is_equivalent(&new) => {
                    Known::There(old.clone())
                }
                (_, Some(new)) => {
                    changed.insert(key.clone());
                    Known::There(Arc::new(new))
                }
                (Some(Known::There(_) | Known::Invalidated), None) => {
                    changed.insert(key.clone());
                    Known::Gone
                }
                // Unchanged; the old stamp stays, so that the entry is forgotten in time.
                (Some(Known::Gone), None) => continue,
                (None, None) => Known::Gone,
            };
            let stamp = ticket.0;
            self.entries.insert(key.clone(), Entry { known, stamp });
        }
        changed
    }

    /// Records a write of ours that succeeded: the value that is there now, if any.
    pub fn wrote(&mut self, key: K, value: Option<V>) {
        let known = value.map_or(Known::Gone, |value| Known::There(Arc::new(value)));
        let stamp = self.tick();
        self.entries.insert(key, Entry { known, stamp });
    }

    /// Records a write whose outcome is unknown, or whose answer does not say what is there now.
    pub fn invalidate(&mut self, key: K) {
        let (known, stamp) = (Known::Invalidated, self.tick());
        self.entries.insert(key, Entry { known, stamp });
    }

    /// Invalidates whatever was there. A read that is under way still counts, and so do our writes.
    pub fn expire(&mut self) {
        let there = self.entries.values_mut();
        let there = there.filter(|entry| entry.value().is_some());
        there.for_each(|entry| entry.known = Known::Invalidated);
    }

    /// The keys under these prefixes that must be read before anything is decided.
    pub fn invalidated<'a>(&self, prefixes: impl IntoIterator<Item = &'a K>) -> BTreeSet<K> {
        let all = prefixes.into_iter().flat_map(|prefix| self.range(prefix));
        let invalidated = all.filter(|(_, entry)| matches!(entry.known, Known::Invalidated));
        invalidated.map(|(key, _)| key.clone()).collect()
    }

    /// All values under these prefixes.
    pub fn under<'a>(&self, prefixes: impl IntoIterator<Item = &'a K>) -> BTreeMap<K, Arc<V>> {
        let all = prefixes.into_iter().flat_map(|prefix| self.range(prefix));
        let there = all.filter_map(|(key, entry)| Some((key.clone(), entry.value()?.clone())));
        there.collect()
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&Arc<V>>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key)?.value()
    }

    /// All values.
    pub fn values(&self) -> impl Iterator<Item = &Arc<V>> {
        self.entries.values().filter_map(Entry::value)
    }

    fn range<'a>(&'a self, prefix: &'a K) -> impl Iterator<Item = (&'a K, &'a Entry<V>)> {
        let from = self.entries.range(prefix..);
        from.take_while(move |(key, _)| key.is_under(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Mirrored for u8 {}

    fn map(entries: &[(&str, u8)]) -> BTreeMap<String, u8> {
        let owned = entries.iter().map(|(key, value)| (key.to_string(), *value));
        owned.collect()
    }

    fn shown(mirror: &Mirror<String, u8>) -> BTreeMap<String, u8> {
        let there = mirror.under([&String::new()]).into_iter();
        there.map(|(key, value)| (key, *value)).collect()
    }

    fn keys(keys: &[&str]) -> BTreeSet<String> {
        keys.iter().map(|key| (*key).to_owned()).collect()
    }

    #[test]
    fn a_read_says_what_changed() {
        let mut mirror = Mirror::default();
        let ticket = mirror.begin();
        assert_eq!(
            mirror.publish(ticket, map(&[("a", 1), ("b", 1)])),
            keys(&["a", "b"])
        );
        let ticket = mirror.begin();
        assert_eq!(
            mirror.publish(ticket, map(&[("a", 1), ("c", 1)])),
            keys(&["b", "c"])
        );
        let ticket = mirror.begin();
        assert_eq!(
            mirror.publish(ticket, map(&[("a", 1), ("c", 1)])),
            keys(&[])
        );
        let ticket = mirror.begin();
        mirror.publish(ticket, map(&[("a", 1), ("c", 1)]));
        assert_eq!(
            mirror.entries.len(),
            2,
            "what is gone is forgotten in the end"
        );
    }

    #[test]
    fn what_we_wrote_wins_over_a_read_that_began_before() {
        let mut mirror = Mirror::default();
        let ticket = mirror.begin();
        mirror.publish(ticket, map(&[("a", 1), ("b", 1)]));
        let ticket = mirror.begin();
        mirror.wrote("a".into(), Some(2));
        mirror.wrote("b".into(), None);
        mirror.wrote("c".into(), Some(3));
        assert_eq!(
            mirror.publish(ticket, map(&[("a", 1), ("b", 1)])),
            keys(&[])
        );
        assert_eq!(shown(&mirror), map(&[("a", 2), ("c", 3)]));
        let ticket = mirror.begin();
        assert_eq!(
            mirror.publish(ticket, map(&[("a", 2), ("b", 1)])),
            keys(&["b", "c"])
        );
    }

    #[test]
    fn a_write_without_an_answer_is_in_doubt_until_it_is_read() {
        let mut mirror = Mirror::default();
        let ticket = mirror.begin();
        mirror.publish(ticket, map(&[("x/a", 1)]));
        let before = mirror.begin();
        mirror.invalidate("x/a".into());
        assert_eq!(mirror.invalidated(&keys(&["y", "x/"])), keys(&["x/a"]));
        assert!(mirror.invalidated(&keys(&["y", "x/b"])).is_empty());
        mirror.publish(before, map(&[("x/a", 1)]));
        assert!(
            !mirror.invalidated(&keys(&["x/"])).is_empty(),
            "the read began before the write ended"
        );
        let ticket = mirror.begin();
        assert_eq!(
            mirror.publish_some(ticket, &keys(&["x/a"]), map(&[("x/a", 2)])),
            keys(&["x/a"])
        );
        assert!(mirror.invalidated(&keys(&["x/"])).is_empty());
    }

    /// What nobody asks for any more may well be there, and whoever reads it by name is believed.
    #[test]
    fn what_was_not_asked_for_is_not_gone() {
        let mut mirror = Mirror::default();
        let (both, one): (BTreeSet<_>, BTreeSet<_>) =
            (["x/".into(), "y/".into()].into(), ["x/".into()].into());
        let ticket = mirror.begin();
        mirror.publish_under(ticket, &both, map(&[("x/a", 1), ("y/b", 1)]));
        let by_name = mirror.begin();
        let ticket = mirror.begin();
        let changed = mirror.publish_under(ticket, &one, map(&[("x/a", 1)]));
        assert_eq!(changed, BTreeSet::new());
        let y = "y/".to_owned();
        assert_eq!(mirror.under([&y]).len(), 0, "nothing is known of it");
        mirror.publish_some(by_name, &["y/b".to_owned()].into(), map(&[("y/b", 1)]));
        assert_eq!(mirror.under([&y]).len(), 1);
    }

    #[test]
    fn a_read_by_name_wins_over_a_whole_one_that_began_before() {
        let mut mirror = Mirror::default();
        let whole = mirror.begin();
        let by_name = mirror.begin();
        mirror.publish_some(by_name, &keys(&["a", "b"]), map(&[("b", 2)]));
        mirror.publish(whole, map(&[("a", 1), ("b", 1), ("c", 1)]));
        assert_eq!(shown(&mirror), map(&[("b", 2), ("c", 1)]));
    }

    #[test]
    fn what_was_not_kept_up_to_date_is_read_again() {
        let mut mirror = Mirror::default();
        let ticket = mirror.begin();
        mirror.publish(ticket, map(&[("a", 1), ("b", 1)]));
        mirror.wrote("b".into(), None);
        let under_way = mirror.begin();
        mirror.wrote("c".into(), Some(1));
        mirror.expire();
        assert_eq!(shown(&mirror), map(&[]));
        assert_eq!(mirror.invalidated([&String::new()]), keys(&["a", "c"]));
        let changed = mirror.publish(under_way, map(&[("a", 1)]));
        assert_eq!(
            changed,
            keys(&["a"]),
            "nobody knew any more that it is there"
        );
        assert_eq!(mirror.invalidated([&String::new()]), keys(&["c"]));
    }

    /// One thing that happens, to the outside or to the mirror.
    #[derive(Clone, Debug)]
    enum Event {
        /// Somebody else changes or removes a thing.
        Foreign(u8, Option<u8>),
        /// We write, and learn what came of it.
        Ours(u8, Option<u8>),
        /// We write, and do not learn what came of it.
        Cut(u8, Option<u8>),
        /// Nobody keeps it up to date for a while.
        Expire,
        /// A whole read begins, or the one under way sees the outside as it is now, or ends.
        Begin,
        See,
        End,
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let value = || proptest::option::of(0..4_u8);
        let event = prop_oneof![
            (0..4_u8, value()).prop_map(|(key, value)| Event::Foreign(key, value)),
            (0..4_u8, value()).prop_map(|(key, value)| Event::Ours(key, value)),
            (0..4_u8, value()).prop_map(|(key, value)| Event::Cut(key, value)),
            Just(Event::Expire),
            Just(Event::Begin),
            Just(Event::See),
            Just(Event::End),
        ];
        proptest::collection::vec(event, 0..40)
    }

    fn set(outside: &mut BTreeMap<String, u8>, key: u8, value: Option<u8>) {
        match value {
            Some(value) => drop(outside.insert(key.to_string(), value)),
            None => drop(outside.remove(&key.to_string())),
        }
    }

    proptest! {
        /// Whatever happens in whatever order: nobody's knowledge of our own write is lost to an older
        /// read, everything that differs from what was known is told, and a read at rest is the truth.
        #[test]
        fn every_interleaving_ends_in_the_truth(events in events()) {
            let (mut outside, mut mirror) = (BTreeMap::new(), Mirror::default());
            let mut reading: Option<(Ticket, Option<BTreeMap<String, u8>>)> = None;
            // What we wrote since the read under way began: the read says nothing about these.
            let mut written = BTreeMap::new();
            for event in events {
                match event {
                    Event::Foreign(key, value) => set(&mut outside, key, value),
                    Event::Ours(key, value) => {
                        set(&mut outside, key, value);
                        mirror.wrote(key.to_string(), value);
                        written.insert(key.to_string(), Some(value));
                    }
                    Event::Cut(key, value) => {
                        set(&mut outside, key, value);
                        mirror.invalidate(key.to_string());
                        written.insert(key.to_string(), None);
                    }
                    Event::Expire => {
                        mirror.expire();
                        // That something went by a write of ours is still known.
                        let there = written.values_mut().filter(|value| **value != Some(None));
                        there.for_each(|value| *value = None);
                    }
                    Event::Begin => {
                        reading = Some((mirror.begin(), None));
                        written.clear();
                    }
                    Event::See => if let Some((_, seen)) = &mut reading { *seen = Some(outside.clone()) },
                    Event::End => {
                        let Some((ticket, Some(seen))) = reading.take() else { continue };
                        let before = shown(&mirror);
                        let changed = mirror.publish(ticket, seen.clone());
                        let after = shown(&mirror);
                        for key in (0..4_u8).map(|key| key.to_string()) {
                            match written.get(&key) {
                                Some(Some(value)) => prop_assert_eq!(after.get(&key), value.as_ref()),
                                Some(None) => prop_assert!(!mirror.invalidated([&key]).is_empty()),
                                None => prop_assert_eq!(after.get(&key), seen.get(&key)),
                            }
                            prop_assert!(before.get(&key) == after.get(&key) || changed.contains(&key));
                        }
                    }
                }
            }
            let ticket = mirror.begin();
            mirror.publish(ticket, outside.clone());
            prop_assert_eq!(shown(&mirror), outside);
            prop_assert!(mirror.invalidated([&String::new()]).is_empty());
        }
    }
}
