//! The laws of [`Store`] as one test body, for every implementation: unit tests call it for folders, the integration
//! suite for real S3 servers.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Store, StoreError};

/// Checks the laws on an empty store (or empty prefix of one).
///
/// # Panics
/// When a law does not hold; the message says which.
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc)]
pub fn check_store(store: &dyn Store) {
    let keys = |prefix: &str| store.list(prefix).unwrap().into_iter().map(|(k, _)| k).collect::<Vec<_>>();

    assert!(keys("").is_empty(), "check_store wants an empty store: {}", store.describe());
    assert_eq!(store.get("no/such").unwrap(), None);
    store.delete("no/such").unwrap();

    // put replaces
    store.put("a/one", b"1").unwrap();
    store.put("a/one", b"eleven").unwrap();
    store.put("a/empty", b"").unwrap();
    assert_eq!(store.get("a/one").unwrap().as_deref(), Some(&b"eleven"[..]));
    assert_eq!(store.get("a/empty").unwrap().as_deref(), Some(&b""[..]));
    assert_eq!(store.get_range("a/one", 2, 3).unwrap(), b"eve");
    assert_eq!(store.get_range("a/one", 4, 100).unwrap(), b"en");
    assert!(store.get_range("no/such", 0, 1).is_err());
    let large: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    store.put_many(&[("b/large".to_owned(), &large), ("a/dt=2026-01-05/x y+z%.parquet".to_owned(), b"odd name")]).unwrap();
    assert!(store.get("b/large").unwrap().as_deref() == Some(&large[..]), "large object came back changed");
    assert_eq!(store.get("a/dt=2026-01-05/x y+z%.parquet").unwrap().as_deref(), Some(&b"odd name"[..]));

    // many parts, some empty, more than one call to the system takes
    let parts: Vec<&[u8]> = large.chunks(1000).flat_map(|part| [part, b""]).collect();
    store.put_parts("b/parts", &parts).unwrap();
    assert!(store.get("b/parts").unwrap().as_deref() == Some(&large[..]), "parts came back changed");
    store.put_parts("b/parts", &[]).unwrap();
    assert_eq!(store.get("b/parts").unwrap().as_deref(), Some(&b""[..]));

    // list: by prefix of the key, not of the folder; sorted by bytes; sizes
    store.put("ab", b"-").unwrap();
    store.put(".staging/f", b"-").unwrap();
    assert_eq!(
        store.list("a").unwrap(),
        [("a/dt=2026-01-05/x y+z%.parquet".to_owned(), 8), ("a/empty".to_owned(), 0), ("a/one".to_owned(), 6), ("ab".to_owned(), 1)]
    );
    assert_eq!(keys("a/o"), ["a/one"]);
    assert_eq!(keys("a/one/"), [""; 0]);
    assert_eq!(keys("zzz/"), [""; 0]);
    assert_eq!(keys(".staging/"), [".staging/f"]);

    // put_if_absent: not over anything, and one winner of many
    assert!(!store.put_if_absent("a/one", b"other").unwrap());
    assert_eq!(store.get("a/one").unwrap().as_deref(), Some(&b"eleven"[..]));
    for round in 0..5 {
        let (key, winners) = (format!("race/{round}"), AtomicUsize::new(0));
        let won = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|n| {
                    let (key, winners) = (&key, &winners);
                    scope.spawn(move || {
                        let mine = format!("writer {n}");
                        store.put_if_absent(key, mine.as_bytes()).unwrap().then(|| {
                            winners.fetch_add(1, Ordering::Relaxed);
                            mine
                        })
                    })
                })
                .collect();
            threads.into_iter().filter_map(|t| t.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(winners.load(Ordering::Relaxed), 1, "put_if_absent: {won:?} all won");
        assert_eq!(store.get(&key).unwrap(), Some(won[0].clone().into_bytes()), "the winner's bytes are not there");
    }

    // publish: moves or copies, and again is success
    store.put(".staging/p", b"table").unwrap();
    for _ in 0..2 {
        store.publish(".staging/p", "t/dt=2026-01-05/p.parquet").unwrap();
        assert_eq!(store.get("t/dt=2026-01-05/p.parquet").unwrap().as_deref(), Some(&b"table"[..]));
    }
    store.delete(".staging/p").unwrap();
    store.publish(".staging/p", "t/dt=2026-01-05/p.parquet").unwrap();
    assert!(matches!(store.publish(".staging/never", "t/never"), Err(StoreError::Missing { .. })), "publishing nothing succeeded");

    // delete
    store.delete_many(&["a/one".to_owned(), "a/one".to_owned(), "a/empty".to_owned()]).unwrap();
    assert_eq!(store.get("a/one").unwrap(), None);
    assert_eq!(keys("a/"), ["a/dt=2026-01-05/x y+z%.parquet"]);

    // keys cannot leave the root
    for key in ["../out", "a/../../b", "/etc/x", "", "a//b"] {
        assert!(matches!(store.put(key, b"x"), Err(StoreError::BadKey { .. })), "{key:?} was taken");
        assert!(matches!(store.get(key), Err(StoreError::BadKey { .. })), "{key:?} was read");
    }
    let all = keys("");
    store.delete_many(&all).unwrap();
    assert!(keys("").is_empty());
}
