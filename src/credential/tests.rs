//! Rows are named by their ids in the suites of other gateways (K, A, E, G) and by the decision that settles them.

use super::*;

#[test]
fn smoke() {}
