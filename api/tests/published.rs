//! Promise: no order of requests and reloads shows a request half a generation, an older one after a newer one, or keeps an old one
//! alive. The file that publishes generations is compiled here with the locks of a model checker, which tries every order of their
//! steps with at most two forced switches between threads.
#![expect(clippy::unwrap_used, reason = "tests")]

use loom::{
    model::Builder,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

mod sync {
    pub(crate) use loom::sync::{Mutex, RwLock};
    pub(crate) use std::sync::PoisonError;
}

#[path = "../src/published.rs"]
mod published;

use published::{Published, Renewed};

/// A generation: its number, and pages that must be of it. The checker reports an `Arc` that is never freed.
#[derive(Clone)]
struct Generation {
    number: u64,
    page: Arc<u64>,
}

impl Generation {
    fn new(number: u64) -> Self {
        Self { number, page: Arc::new(number) }
    }
}

/// A pool's folder, as far as a reload sees it: the number of the newest generation.
type Folder = AtomicU64;

/// What a reload does: opens the newest generation when it is another than the present one.
fn newer(folder: &Folder, present: &Generation) -> Result<Option<Generation>, ()> {
    let newest = folder.load(Ordering::SeqCst);
    Ok((newest != present.number).then(|| Generation::new(newest)))
}

fn renew(place: &Published<Generation>, folder: &Folder) -> Renewed<Generation> {
    place.renew(|present| newer(folder, present)).unwrap()
}

/// Two requests of one client, one after the other.
fn ask_twice(place: &Published<Generation>) {
    let first = place.get();
    let second = place.get();
    assert!(*first.page == first.number && *second.page == second.number, "pages of another generation");
    assert!(second.number >= first.number, "generation {} after {}", second.number, first.number);
}

/// A writer publishes two generations while `reloads` reloads run, by `reload`, and a client asks.
fn check(reloads: usize, reload: fn(&Published<Generation>, &Folder)) {
    let mut model = Builder::new();
    model.preemption_bound = Some(2);
    model.check(move || {
        let place = Arc::new(Published::new(Generation::new(1)));
        let folder = Arc::new(Folder::new(2));
        let started = |_| {
            let (place, folder) = (Arc::clone(&place), Arc::clone(&folder));
            thread::spawn(move || reload(&place, &folder))
        };
        let reloads: Vec<_> = (0..reloads).map(started).collect();
        let client = thread::spawn({
            let place = Arc::clone(&place);
            move || ask_twice(&place)
        });
        folder.store(3, Ordering::SeqCst);
        reloads.into_iter().chain([client]).for_each(|thread| thread.join().unwrap());
        let last = renew(&place, &folder);
        assert!(last.present.number == 3 && place.get().number == 3, "the newest generation is found in the end");
    });
}

#[test]
fn every_order_of_one_reload_and_requests() {
    check(1, |place, folder| {
        let renewed = renew(place, folder);
        assert!(renewed.changed && renewed.present.number >= 2 && *renewed.present.page == renewed.present.number);
    });
}

#[test]
fn two_reloads_at_once_never_go_back() {
    check(2, |place, folder| {
        renew(place, folder);
    });
}

/// The check would find a reload that looks before it is its turn: what it found may be older than what is there by then.
#[test]
#[should_panic(expected = "generation 2 after 3")]
fn a_reload_that_looks_too_early_is_found_out() {
    check(2, |place, folder| {
        let found = newer(folder, &place.get());
        let _ = place.renew(|_| found);
    });
}
