//! Work in many parts for all threads.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Calls `work` for every number below `count`, on all threads of the pool, each with its own buffers. A free thread
/// takes the next number: parts that are handed out beforehand leave threads idle at the end. So neighbouring memory is
/// also read at one time.
pub(super) fn in_turn<S: Default>(count: usize, work: impl Fn(&mut S, usize) + Sync) {
    let next = AtomicUsize::new(0);
    let take = || {
        let mut scratch = S::default();
        while let Some(number) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|number| *number < count) {
            work(&mut scratch, number);
        }
    };
    rayon::scope(|scope| {
        for _ in 1..rayon::current_num_threads().min(count) {
            scope.spawn(|_| take());
        }
        take();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_taken_once() {
        for count in [0, 1, 2, 1000] {
            let taken: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
            in_turn(count, |seen: &mut usize, number| {
                *seen += 1;
                assert!(*seen <= count);
                taken[number].fetch_add(1, Ordering::Relaxed);
            });
            assert!(taken.iter().all(|times| times.load(Ordering::Relaxed) == 1), "{count}");
        }
    }
}
