//! How many files the process may have open: every connection is one, and its way to the upstream another. Most systems allow
//! few at first (the soft limit) and many to those who ask (the hard one), so the gate asks, as nginx and HAProxy do.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that one connection takes: its own, and one towards the upstream.
const EACH: u64 = 2;

/// Raises the soft limit to the hard one; gives it, `None` where there is none.
///
/// # Errors
///
/// The system's, which some sandboxes give.
pub fn raise_limit() -> io::Result<Option<u64>> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    }
    Ok(limit.maximum)
}

/// The most files this process may have open once it asks; `None` where there is no limit.
pub fn hard_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// What to say when `max` connections take more files than `limit`.
pub fn shortage(max: usize, limit: Option<u64>) -> Option<String> {
    let wanted = (max as u64).saturating_mul(EACH);
    let limit = limit.filter(|limit| *limit < wanted)?;
    Some(format!("{max} connections take up to {wanted} open files, and this process may have {limit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_not_complained_of() {
        for (max, limit, short) in
            [(10, None, false), (10, Some(20), false), (10, Some(19), true), (usize::MAX, Some(u64::MAX), false)]
        {
            assert_eq!(shortage(max, limit).is_some(), short, "{max} {limit:?}");
        }
        assert_eq!(
            shortage(1000, Some(1024)).as_deref(),
            Some("1000 connections take up to 2000 open files, and this process may have 1024")
        );
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let hard = hard_limit();
        assert_eq!(raise_limit().expect("allowed"), hard);
        assert_eq!(getrlimit(Resource::Nofile).current, hard);
    }
}
