//! Whether the gate should be sent requests, as a few flags that other parts set.

use std::sync::atomic::{AtomicBool, Ordering};

/// What readiness is made of. All are false at the start.
#[derive(Debug, Default)]
pub struct Readiness {
    keys_loaded: AtomicBool,
    health_known: AtomicBool,
    upstream_up: AtomicBool,
    draining: AtomicBool,
}

/// Why the gate is not ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReady {
    /// It is going away.
    Draining,
    /// No key file was taken yet.
    NoKeys,
    /// The first health checks are not done.
    HealthUnknown,
    /// Every server of every upstream is down.
    UpstreamsDown,
}

impl NotReady {
    /// One line for the operator.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Draining => "not ready: draining",
            Self::NoKeys => "not ready: no key file loaded",
            Self::HealthUnknown => "not ready: first health checks pending",
            Self::UpstreamsDown => "not ready: every server of every upstream is down",
        }
    }
}

impl Readiness {
    /// A key file is in force. There is no way back: a bad one never replaces it.
    pub fn set_keys_loaded(&self) {
        self.keys_loaded.store(true, Ordering::Release);
    }

    /// The first round of health checks is done, or there are none to do.
    pub fn set_health_known(&self) {
        self.health_known.store(true, Ordering::Release);
    }

    /// Whether at least one server of one upstream is up. A server without a health check counts as up.
    pub fn set_upstream_up(&self, up: bool) {
        self.upstream_up.store(up, Ordering::Release);
    }

    /// The gate is going away.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether all is well, or the first reason why not.
    pub fn check(&self) -> Result<(), NotReady> {
        let says = |flag: &AtomicBool| flag.load(Ordering::Acquire);
        if says(&self.draining) {
            Err(NotReady::Draining)
        } else if !says(&self.keys_loaded) {
            Err(NotReady::NoKeys)
        } else if !says(&self.health_known) {
            Err(NotReady::HealthUnknown)
        } else if !says(&self.upstream_up) {
            Err(NotReady::UpstreamsDown)
        } else {
            Ok(())
        }
    }
}
