//! Free ports on loopback.

use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{LazyLock, Mutex, PoisonError};

use anyhow::{Result, bail};

/// Below what kernels hand out to outgoing connections, so that none of these takes a port between our look and its use.
const RANGE: std::ops::Range<u16> = 15_000..32_000;

/// A port that was free a moment ago and that this process has not handed out before. Another process may still be faster: whoever
/// uses it tries another one when binding fails.
pub fn free() -> Result<u16> {
    static TAKEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);
    for _ in 0..1000 {
        let port = fastrand::u16(RANGE);
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if free
            && TAKEN
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(port)
        {
            return Ok(port);
        }
    }
    bail!(
        "no free port between {} and {} on loopback",
        RANGE.start,
        RANGE.end
    )
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    #[test]
    fn no_port_is_handed_out_twice() {
        let ports: HashSet<u16> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| (0..50).map(|_| super::free().unwrap()).collect::<Vec<_>>())
                })
                .collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        assert_eq!(ports.len(), 200);
    }
}
