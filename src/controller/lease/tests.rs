use super::*;
use axum::{
    Router,
    body::{Body, Bytes},
    http::{Method, Response, Uri},
};
use futures::FutureExt;
use serde_json::json;
use std::sync::{Arc, Mutex};

const NAMESPACE: &str = "campanile-system";
const NAME: &str = "campanile";

// === what is decided ===

fn lease(version: &str, owner: &str, seconds: i32) -> Lease {
    let mut lease = Lease::default();
    lease.metadata.resource_version = Some(version.to_owned());
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(owner.to_owned()),
        lease_duration_seconds: Some(seconds),
        ..LeaseSpec::default()
    });
    lease
}

#[tokio::test(start_paused = true)]
async fn a_candidate_takes_only_what_nobody_may_still_believe_in() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let seen = |version: &str, until| Sighting {
        version: Some(version.to_owned()),
        owner: "b".to_owned(),
        until: at(until),
    };
    let wait = |version, until| Next::Wait(seen(version, until));
    let ours = Duration::from_secs(15);
    let table = [
        ("absent", None, None, 0, Next::Take),
        ("released", Some(lease("1", "", 15)), None, 0, Next::Take),
        (
            "released under our eyes",
            Some(lease("2", "", 15)),
            Some(seen("1", 15)),
            3,
            Next::Take,
        ),
        (
            "ours: the answer got lost",
            Some(lease("1", "a", 15)),
            None,
            0,
            Next::Take,
        ),
        (
            "seen for the first time",
            Some(lease("1", "b", 15)),
            None,
            7,
            wait("1", 22),
        ),
        (
            "unchanged, too early",
            Some(lease("1", "b", 15)),
            Some(seen("1", 15)),
            14,
            wait("1", 15),
        ),
        (
            "unchanged for its duration",
            Some(lease("1", "b", 15)),
            Some(seen("1", 15)),
            15,
            Next::Take,
        ),
        (
            "renewed meanwhile",
            Some(lease("2", "b", 15)),
            Some(seen("1", 15)),
            15,
            wait("2", 30),
        ),
        (
            "its owner counts longer",
            Some(lease("1", "b", 60)),
            None,
            0,
            wait("1", 60),
        ),
        (
            "its owner says less",
            Some(lease("1", "b", 1)),
            None,
            0,
            wait("1", 15),
        ),
        (
            "nonsense",
            Some(lease("1", "b", -1)),
            None,
            0,
            wait("1", 15),
        ),
        (
            "deleted under its owner",
            None,
            Some(seen("1", 15)),
            14,
            wait("1", 15),
        ),
        (
            "deleted long ago",
            None,
            Some(seen("1", 15)),
            15,
            Next::Take,
        ),
    ];
    for (case, found, before, now, expected) in table {
        assert_eq!(
            next(found.as_ref(), before.as_ref(), "a", ours, at(now)),
            expected,
            "{case}"
        );
    }
}

#[test]
fn a_lease_keeps_what_is_not_ours_to_change() {
    let [first, second] = [1, 2].map(|second| Timestamp::from_second(second).unwrap());
    let mut found = lease("1", "b", 15);
    found.metadata.labels = Some([("team".to_owned(), "platform".to_owned())].into());
    let taken = claimed(&found, "a", Duration::from_millis(14_500), first);
    assert_eq!(taken.metadata, found.metadata);
    let spec = taken.spec.clone().unwrap();
    assert_eq!(spec.holder_identity.as_deref(), Some("a"));
    assert_eq!(spec.lease_duration_seconds, Some(15), "rounded up");
    assert_eq!(
        (spec.acquire_time, spec.renew_time),
        (Some(MicroTime(first)), Some(MicroTime(first)))
    );
    assert_eq!(spec.lease_transitions, Some(0));

    let renewed = claimed(&taken, "a", Duration::from_secs(15), second)
        .spec
        .unwrap();
    assert_eq!(
        (renewed.acquire_time, renewed.renew_time),
        (Some(MicroTime(first)), Some(MicroTime(second)))
    );
    assert_eq!(renewed.lease_transitions, Some(0));

    let next = claimed(
        &vacated(&taken, second),
        "c",
        Duration::from_secs(15),
        second,
    )
    .spec
    .unwrap();
    assert_eq!(next.lease_transitions, Some(1));
}

// === against an API server that is no more than its rules for one Lease ===

#[derive(Default)]
struct Server(Mutex<Stored>);

#[derive(Default)]
struct Stored {
    lease: Option<Lease>,
    writes: u64,
}

/// How one candidate reaches the server.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Line {
    #[default]
    Up,
    /// Answers 500.
    Broken,
    /// Forbids.
    Denied,
    /// Never answers, and nothing arrives.
    Dead,
    /// What is sent arrives, what is answered does not.
    Mute,
    /// Answers after 12 s.
    Late,
}

#[derive(Clone, Default)]
struct Link(Arc<Mutex<Line>>);

impl Link {
    fn set(&self, line: Line) {
        *self.0.lock().unwrap() = line;
    }

    fn get(&self) -> Line {
        *self.0.lock().unwrap()
    }
}

impl Server {
    fn client(self: &Arc<Self>, link: &Link) -> Client {
        let (server, link) = (self.clone(), link.clone());
        let answer = move |method: Method, uri: Uri, body: Bytes| {
            let (server, link) = (server.clone(), link.clone());
            async move {
                // There and back again take their time, so that requests can cross.
                sleep(Duration::from_millis(fastrand::u64(1..40))).await;
                match link.get() {
                    Line::Up | Line::Mute | Line::Late => {}
                    Line::Broken => return failure(500, "InternalError"),
                    Line::Denied => return failure(403, "Forbidden"),
                    Line::Dead => std::future::pending().await,
                }
                let response = server.answer(&method, &uri, &body);
                sleep(Duration::from_millis(fastrand::u64(1..40))).await;
                match link.get() {
                    Line::Mute => std::future::pending().await,
                    Line::Late => sleep(Duration::from_secs(12)).await,
                    _ => {}
                }
                response
            }
        };
        Client::new(Router::new().fallback(answer), NAMESPACE)
    }

    fn answer(&self, method: &Method, uri: &Uri, body: &[u8]) -> Response<Body> {
        let collection = format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases");
        let mut stored = self.0.lock().unwrap();
        let sent = |stored: &mut Stored| {
            let mut lease: Lease = serde_json::from_slice(body).unwrap();
            assert_eq!(lease.metadata.name.as_deref(), Some(NAME));
            stored.writes += 1;
            lease.metadata.resource_version = Some(stored.writes.to_string());
            stored.lease = Some(lease.clone());
            reply(200, &lease)
        };
        if method == Method::POST {
            assert_eq!(uri.path(), collection);
            return if stored.lease.is_some() {
                failure(409, "AlreadyExists")
            } else {
                sent(&mut stored)
            };
        }
        assert_eq!(uri.path(), format!("{collection}/{NAME}"));
        let Some(current) = &stored.lease else {
            return failure(404, "NotFound");
        };
        if method == Method::GET {
            return reply(200, current);
        }
        assert_eq!(method, Method::PUT);
        let version = serde_json::from_slice::<Lease>(body)
            .unwrap()
            .metadata
            .resource_version;
        assert!(version.is_some(), "an update without a precondition");
        if version != current.metadata.resource_version {
            return failure(409, "Conflict");
        }
        sent(&mut stored)
    }

    fn edit(&self, edit: impl FnOnce(&mut Option<Lease>)) {
        let mut stored = self.0.lock().unwrap();
        edit(&mut stored.lease);
        stored.writes += 1;
        let version = stored.writes.to_string();
        if let Some(lease) = &mut stored.lease {
            lease.metadata.resource_version = Some(version);
        }
    }

    fn owner(&self) -> String {
        let stored = self.0.lock().unwrap();
        stored
            .lease
            .as_ref()
            .map(|lease| owner(lease).to_owned())
            .unwrap_or_default()
    }

    async fn acquire(self: &Arc<Self>, identity: &str, link: &Link) -> Result<Held> {
        acquire(
            self.client(link),
            NAMESPACE,
            NAME,
            identity,
            Timing::default(),
        )
        .await
    }
}

fn reply(code: u16, body: &impl serde::Serialize) -> Response<Body> {
    Response::builder()
        .status(code)
        .body(serde_json::to_vec(body).unwrap().into())
        .unwrap()
}

fn failure(code: u16, reason: &str) -> Response<Body> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": format!("as if {reason}"), "code": code});
    reply(code, &status)
}

/// Cuts a holder off as a crash does: no more renewals, no release.
fn crash(held: Held) -> Instant {
    drop(held);
    Instant::now()
}

#[tokio::test(start_paused = true)]
async fn an_absent_lease_is_taken_at_once_and_kept() {
    let (server, link) = (Arc::new(Server::default()), Link::default());
    let start = Instant::now();
    let held = server.acquire("a", &link).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(1));
    assert!(server.owner().starts_with("a_"));
    for _ in 0..100 {
        sleep(Duration::from_secs(1)).await;
        assert!(
            held.remaining() > Duration::from_secs(8),
            "{:?}",
            held.remaining()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn exactly_one_of_two_gets_it() {
    for _ in 0..20 {
        let (server, link) = (Arc::new(Server::default()), Link::default());
        let both = [(); 2].map(|()| {
            let (server, link) = (server.clone(), link.clone());
            tokio::spawn(async move { server.acquire("same-name", &link).await })
        });
        sleep(Duration::from_secs(100)).await;
        assert_eq!(both.iter().filter(|one| one.is_finished()).count(), 1);
        both.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_the_successor_waits_for_the_duration_and_no_longer() {
    let (server, link) = (Arc::new(Server::default()), Link::default());
    let held = server.acquire("a", &link).await.unwrap();
    let next = tokio::spawn({
        let (server, link) = (server.clone(), link.clone());
        async move { server.acquire("b", &link).await }
    });
    sleep(Duration::from_secs(60)).await;
    assert!(!next.is_finished());
    let valid_until = Instant::now() + held.remaining();
    let crashed = crash(held);
    let _next = next.await.unwrap().unwrap();
    assert!(
        Instant::now() > valid_until,
        "before the crashed one's time was up"
    );
    let took = crashed.elapsed();
    assert!(
        took >= Duration::from_secs(10) && took < Duration::from_secs(17),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_cut_off_holder_knows_before_anybody_else_can_take_over() {
    for line in [Line::Broken, Line::Denied, Line::Dead] {
        let (server, link) = (Arc::new(Server::default()), Link::default());
        let held = server.acquire("a", &link).await.unwrap();
        let next = tokio::spawn({
            let server = server.clone();
            async move {
                server
                    .acquire("b", &Link::default())
                    .await
                    .map(|held| (held, Instant::now()))
            }
        });
        sleep(Duration::from_secs(60)).await;
        link.set(line);
        timeout(Duration::from_secs(60), held.lost()).await.unwrap();
        assert_eq!(held.remaining(), Duration::ZERO);
        assert!(server.owner().starts_with("a_"), "{line:?}");
        let lost = Instant::now();
        let (_held, taken) = next.await.unwrap().unwrap();
        assert!(taken > lost + Duration::from_secs(1), "{line:?}");
        link.set(Line::Up);
        sleep(Duration::from_secs(60)).await;
        assert_eq!(held.remaining(), Duration::ZERO, "a lost lease stays lost");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_too_late_brings_nothing_back() {
    let (server, link) = (Arc::new(Server::default()), Link::default());
    let timing = Timing {
        call: Duration::from_secs(60),
        ..Timing::default()
    };
    let held = acquire(server.client(&link), NAMESPACE, NAME, "a", timing)
        .await
        .unwrap();
    let deadline = Instant::now() + held.remaining();
    link.set(Line::Late);
    timeout(Duration::from_secs(60), held.lost()).await.unwrap();
    assert!(Instant::now() < deadline + Duration::from_millis(10));
    sleep(Duration::from_secs(10)).await;
    assert_eq!(held.remaining(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn trouble_that_passes_is_ridden_out() {
    let (server, link) = (Arc::new(Server::default()), Link::default());
    let held = server.acquire("a", &link).await.unwrap();
    let lost = tokio::spawn(held.lost());
    for line in [Line::Broken, Line::Dead, Line::Mute, Line::Denied] {
        sleep(Duration::from_secs(20)).await;
        link.set(line);
        sleep(Duration::from_millis(7_500)).await;
        link.set(Line::Up);
    }
    // Somebody's label moves the version; the lease is still ours.
    server.edit(|lease| {
        lease.as_mut().unwrap().metadata.labels =
            Some([("seen".to_owned(), "yes".to_owned())].into());
    });
    sleep(Duration::from_secs(60)).await;
    assert!(!lost.is_finished() && held.remaining() > Duration::from_secs(8));
    assert!(
        server
            .0
            .lock()
            .unwrap()
            .lease
            .as_ref()
            .unwrap()
            .metadata
            .labels
            .is_some()
    );
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_taken_away_or_deleted_is_lost_at_the_next_renewal() {
    let taken = |lease: &mut Option<Lease>| {
        lease
            .as_mut()
            .unwrap()
            .spec
            .as_mut()
            .unwrap()
            .holder_identity = Some("thief".to_owned());
    };
    let deleted = |lease: &mut Option<Lease>| *lease = None;
    for edit in [taken as fn(&mut Option<Lease>), deleted] {
        let (server, link) = (Arc::new(Server::default()), Link::default());
        let held = server.acquire("a", &link).await.unwrap();
        server.edit(edit);
        let edited = Instant::now();
        timeout(Duration::from_secs(60), held.lost()).await.unwrap();
        assert!(
            edited.elapsed() < Duration::from_secs(5),
            "{:?}",
            edited.elapsed()
        );
        assert!(!server.owner().starts_with("a_"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_release_lets_the_successor_in_at_once() {
    let (server, link) = (Arc::new(Server::default()), Link::default());
    let held = server.acquire("a", &link).await.unwrap();
    let other_handle = held.clone();
    let next = tokio::spawn({
        let (server, link) = (server.clone(), link.clone());
        async move { server.acquire("b", &link).await }
    });
    sleep(Duration::from_secs(30)).await;
    held.release().await;
    assert_eq!(other_handle.remaining(), Duration::ZERO);
    other_handle.lost().await;
    let released = Instant::now();
    next.await.unwrap().unwrap();
    assert!(
        released.elapsed() < Duration::from_secs(2),
        "{:?}",
        released.elapsed()
    );
    other_handle.release().await;
    assert!(
        server.owner().starts_with("b_"),
        "a second release does nothing"
    );
}

#[tokio::test(start_paused = true)]
async fn a_release_ends_although_nobody_answers() {
    let (server, link) = (Arc::new(Server::default()), Link::default());
    let held = server.acquire("a", &link).await.unwrap();
    link.set(Line::Dead);
    let start = Instant::now();
    held.release().await;
    assert!(
        start.elapsed() <= Duration::from_millis(3_100),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn what_waiting_cannot_mend_is_said() {
    let (server, link) = (Arc::new(Server::default()), Link::default());
    link.set(Line::Denied);
    let error = server.acquire("a", &link).await.unwrap_err();
    assert_eq!(error.class, Class::Denied);
    assert!(
        error
            .message
            .contains("get, create and update on leases in campanile-system"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_candidate_outlasts_an_absent_api_server() {
    for line in [Line::Broken, Line::Dead, Line::Mute] {
        let (server, link) = (Arc::new(Server::default()), Link::default());
        link.set(line);
        let held = tokio::spawn({
            let (server, link) = (server.clone(), link.clone());
            async move { server.acquire("a", &link).await }
        });
        sleep(Duration::from_secs(60)).await;
        assert!(!held.is_finished());
        link.set(Line::Up);
        sleep(Duration::from_secs(6)).await;
        assert!(
            held.await.unwrap().unwrap().remaining() > Duration::ZERO,
            "{line:?}"
        );
    }
}

/// Candidates that come, lose their lines, crash, release and come back, by chance: there is never more
/// than one that believes it leads, and one as soon as the lines are up.
#[tokio::test(start_paused = true)]
async fn there_is_never_more_than_one() {
    for seed in 0..30 {
        fastrand::seed(seed);
        let server = Arc::new(Server::default());
        let mut candidates: Vec<_> = (0..3).map(|_| Candidate::new(&server)).collect();
        let mut led = 0;
        for tick in 0..6_000 {
            sleep(Duration::from_millis(50)).await;
            let leading = candidates
                .iter_mut()
                .filter_map(Candidate::remaining)
                .count();
            assert!(leading <= 1, "seed {seed}, tick {tick}: {leading} lead");
            led += leading;
            if fastrand::u32(..200) == 0 {
                let candidate = fastrand::choice(&mut candidates).unwrap();
                let lines = [Line::Up, Line::Up, Line::Broken, Line::Dead, Line::Mute];
                match fastrand::u32(..6) {
                    0 => *candidate = Candidate::new(&server),
                    1 => {
                        if let Some(held) = candidate.held.take() {
                            held.release().await;
                        }
                        *candidate = Candidate::new(&server);
                    }
                    _ => candidate.link.set(*fastrand::choice(&lines).unwrap()),
                }
            }
        }
        candidates
            .iter()
            .for_each(|candidate| candidate.link.set(Line::Up));
        sleep(Duration::from_secs(40)).await;
        // Those that lost the lease have ended, as the process would.
        let waiting = candidates.iter_mut().any(|candidate| !candidate.has_lost());
        let leading = candidates
            .iter_mut()
            .filter_map(Candidate::remaining)
            .count();
        assert_eq!(leading, usize::from(waiting), "seed {seed}");
        assert!(led > 1_000, "seed {seed}: somebody led in only {led} ticks");
    }
}

struct Candidate {
    link: Link,
    waiting: tokio::task::JoinHandle<Result<Held>>,
    held: Option<Held>,
}

impl Candidate {
    fn new(server: &Arc<Server>) -> Self {
        let (link, server) = (Link::default(), server.clone());
        let waiting = tokio::spawn({
            let link = link.clone();
            async move { server.acquire("candidate", &link).await }
        });
        Self {
            link,
            waiting,
            held: None,
        }
    }

    fn remaining(&mut self) -> Option<Duration> {
        if self.held.is_none() {
            let got = (&mut self.waiting).now_or_never();
            self.held = got.map(|held| held.unwrap().unwrap());
        }
        self.held
            .as_ref()
            .map(Held::remaining)
            .filter(|left| !left.is_zero())
    }

    fn has_lost(&mut self) -> bool {
        self.remaining().is_none() && self.held.is_some()
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        self.waiting.abort();
    }
}
