//! Bodies: any split reads the same, and what is written anew reads the same again.

#![no_main]
#![expect(dead_code, reason = "the shared files serve four targets, of which this is one")]

use keygate::http1;
use libfuzzer_sys::fuzz_target;

#[path = "../../../src/http1/tests/strict.rs"]
mod strict;
#[path = "../targets.rs"]
mod targets;

fuzz_target!(|input: &[u8]| targets::body(input));
