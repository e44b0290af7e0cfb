//! Which server is next: a pure choice over the healthy ones.

use super::Balance;

/// Chooses among `count` servers. `load` gives a server's requests in flight, or `None` when it is not healthy; `turn` goes up
/// by one with each choice. `None` when no server is healthy.
pub fn choose(
    balance: Balance,
    count: usize,
    load: impl Fn(usize) -> Option<usize>,
    turn: usize,
    random: u64,
) -> Option<usize> {
    match balance {
        Balance::RoundRobin => nth_healthy(count, load, turn),
        // The low bits alone would do as well; the cast may drop the high ones on 32-bit machines.
        Balance::Random => nth_healthy(count, load, random as usize),
        Balance::LeastConnections => least_loaded(count, load, turn),
    }
}

/// The `n`-th of the healthy ones, counted round. Skipping from an unhealthy server to its neighbour would instead give that
/// neighbour a double share.
fn nth_healthy(count: usize, load: impl Fn(usize) -> Option<usize>, n: usize) -> Option<usize> {
    let healthy = (0..count).filter(|index| load(*index).is_some());
    match healthy.clone().count() {
        0 => None,
        // Health may change between the two looks: then any that is healthy still will do.
        total => healthy.clone().nth(n % total).or_else(|| healthy.clone().next()),
    }
}

/// The one with the fewest requests in flight; equals take turns.
fn least_loaded(count: usize, load: impl Fn(usize) -> Option<usize>, turn: usize) -> Option<usize> {
    (0..count)
        .map(|step| (turn % count + step) % count)
        .filter_map(|index| load(index).map(|load| (load, index)))
        .min_by_key(|(load, _)| *load)
        .map(|(_, index)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(balance: Balance, loads: &[Option<usize>], turns: &[usize], want: &[Option<usize>]) {
        let got: Vec<_> =
            turns.iter().map(|turn| choose(balance, loads.len(), |index| loads[index], *turn, *turn as u64)).collect();
        assert_eq!(got, want, "{balance:?} over {loads:?}");
    }

    #[test]
    fn the_next_server() {
        use Balance::{LeastConnections as L, Random as X, RoundRobin as R};
        let (a, b, c) = (Some(0), Some(1), Some(2));
        check(R, &[Some(9), Some(0), Some(0)], &[0, 1, 2, 3], &[a, b, c, a]);
        // An unhealthy one is left out and its share is spread, not given to its neighbour.
        check(R, &[Some(0), None, Some(0)], &[0, 1, 2, 3], &[a, c, a, c]);
        check(R, &[None, None, None], &[0, 1], &[None, None]);
        check(R, &[], &[0], &[None]);
        check(R, &[Some(0), Some(0)], &[usize::MAX, usize::MAX - 1], &[b, a]);
        check(X, &[Some(0), None, Some(0)], &[7, 8], &[c, a]);
        check(X, &[None], &[7], &[None]);
        check(L, &[Some(2), Some(1), Some(3)], &[0, 1, 2], &[b, b, b]);
        check(L, &[Some(1), Some(1), Some(1)], &[0, 1, 2, 3], &[a, b, c, a]);
        check(L, &[Some(5), None, Some(7)], &[0, 1, 2], &[a, a, a]);
        check(L, &[], &[0], &[None]);
        check(L, &[None, None], &[0], &[None]);
    }

    #[test]
    fn random_reaches_every_server() {
        let mut seen = [0; 3];
        for random in 0..300_u64 {
            seen[choose(Balance::Random, 3, |_| Some(0), 0, random).unwrap()] += 1;
        }
        assert_eq!(seen, [100, 100, 100]);
    }
}
