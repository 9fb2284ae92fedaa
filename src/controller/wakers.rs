//! Routes a change that an informer has seen to the controller of the object that subscribes.

use crate::engine::informer::{Subscriber, Waker};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc};

/// By the kind and the namespace that a controller is for; `None` for all.
type ByController = HashMap<(&'static str, Option<String>), Box<dyn Fn(&Subscriber) + Send>>;

/// How the controllers of this process wake their objects.
#[derive(Clone, Default)]
pub struct Wakers(Arc<Mutex<ByController>>);

impl Wakers {
    /// Wakes whatever a controller has registered for.
    pub fn waker(&self) -> Waker {
        let wakers = self.clone();
        Arc::new(move |subscriber| wakers.wake(subscriber))
    }

    /// A controller wakes the objects of a kind, in a namespace or in all.
    pub fn register(
        &self,
        kind: &'static str,
        namespace: Option<&str>,
        wake: impl Fn(&Subscriber) + Send + 'static,
    ) {
        let mut all = self.0.lock();
        all.insert((kind, namespace.map(str::to_owned)), Box::new(wake));
    }

    /// Wakes an object, if there is a controller of its kind and namespace.
    pub fn wake(&self, subscriber: &Subscriber) {
        let all = self.0.lock();
        let own = all.get(&(subscriber.kind, Some(subscriber.namespace.clone())));
        if let Some(wake) = own.or_else(|| all.get(&(subscriber.kind, None))) {
            wake(subscriber);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controller_of_its_kind_and_namespace_wakes_an_object() {
        let (wakers, woken) = (Wakers::default(), Arc::new(Mutex::new(Vec::new())));
        for (kind, namespace) in [("A", Some("one")), ("A", Some("two")), ("B", None)] {
            let woken = woken.clone();
            wakers.register(kind, namespace, move |subscriber| {
                let told = (kind, namespace, subscriber.name.clone());
                woken.lock().push(told);
            });
        }
        let wake = wakers.waker();
        for (kind, namespace, name) in [
            ("A", "one", "a"),
            ("A", "two", "b"),
            ("A", "three", "c"),
            ("B", "one", "d"),
        ] {
            wake(&Subscriber {
                kind,
                namespace: namespace.into(),
                name: name.into(),
                uid: String::new(),
            });
        }
        let expected = [
            ("A", Some("one"), "a".to_owned()),
            ("A", Some("two"), "b".to_owned()),
            ("B", None, "d".to_owned()),
        ];
        assert_eq!(*woken.lock(), expected);
    }
}
