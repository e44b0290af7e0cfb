//! Watches, while an exchange or tunnel is open, whether the right to it still stands: the key still good, the route still
//! there and still open to it (design rule 8, decision 26).

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Sleep, sleep};

use super::Gate;
use super::relay::{EndReason, Revocation};
use crate::admission::{self, Admitted, Caller};
use crate::http1::request::Request;
use crate::keyring::{Keyring, Principal};
use crate::rejection::AuthFailure;
use crate::route::router::{Matched, Router};
use crate::route::{Access, Route};

/// The right of one exchange.
pub(crate) struct KeyWatch<'a> {
    gate: Arc<Gate>,
    /// The keyring asked last: to know it again, not to keep it.
    keyring: Weak<Keyring>,
    request: Request<'a>,
    /// Admitted as a CORS preflight: nothing but that lets it pass without a key where one is needed.
    preflight: bool,
    principal: Option<Principal>,
    address: Option<IpAddr>,
    route: Arc<Route>,
    /// A tunnel is also ended by a shutdown; a plain exchange may finish within the grace.
    draining: Option<Waiting>,
    /// Whether the task must be woken; until then the right is only looked at.
    awake: bool,
    changed: Option<Waiting>,
    expiry: Option<Pin<Box<Sleep>>>,
}

type Waiting = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Longest time a timer is set for: a wall clock that is set forward is noticed at the next look.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

impl<'a> KeyWatch<'a> {
    /// Watches the right by which `keyring` let `request` of `address` pass on `route`.
    pub(crate) fn new(
        gate: &Arc<Gate>,
        keyring: &Weak<Keyring>,
        request: Request<'a>,
        admitted: &Admitted,
        address: Option<IpAddr>,
        route: &Arc<Route>,
    ) -> Self {
        Self {
            gate: gate.clone(),
            keyring: keyring.clone(),
            request,
            preflight: matches!(admitted.caller(), Caller::Preflight),
            principal: admitted.principal().cloned(),
            address,
            route: route.clone(),
            draining: None,
            awake: false,
            changed: None,
            expiry: None,
        }
    }

    /// Watches for a shutdown, too, and is awake from the start: for what is meant to stay open.
    pub(crate) fn ending_with_shutdown(mut self) -> Self {
        self.awake = true;
        let draining = self.gate.draining.clone();
        self.draining = Some(Box::pin(async move {
            let mut draining = draining;
            if draining.wait_for(|draining| *draining).await.is_err() {
                std::future::pending::<()>().await;
            }
        }));
        self
    }

    /// Asks the rules as they are now.
    fn check(&mut self) -> Result<(), EndReason> {
        let policy = self.gate.policy.load();
        let found = self.find_route(&policy.router);
        let same = found.filter(|route| route.name == self.route.name && route.upstream == self.route.upstream);
        let route = same.ok_or(EndReason::RouteChanged)?;
        let keyring = self.gate.keyring.load();
        self.keyring = Arc::downgrade(&keyring);
        match &self.principal {
            None if route.access == Access::Public || self.preflight => {}
            None => return Err(EndReason::RouteChanged),
            Some(principal) => {
                let now = self.gate.clock.now();
                let still = admission::still_admitted(&keyring, principal, route, self.address, now);
                self.principal = Some(still.map_err(|failure| match failure {
                    AuthFailure::Expired => EndReason::KeyExpired,
                    _ => EndReason::KeyRevoked,
                })?);
            }
        }
        self.route = route.clone();
        Ok(())
    }

    /// The route that the request would take now.
    fn find_route<'r>(&self, router: &'r Router) -> Option<&'r Arc<Route>> {
        let request = self.request;
        if self.preflight {
            let requested = request.fields().first("access-control-request-method").unwrap_or_default();
            return Some(router.find_preflight(request.host(), request.path(), requested).ok()??.route);
        }
        match router.find(request.host(), request.path(), request.method()).ok()? {
            Matched::Route(found) => Some(found.route),
            Matched::WrongMethod { .. } | Matched::None => None,
        }
    }

    /// Whether the rules in force are those that were asked last. Two pointers, no lock: a reload makes all of a keyring and
    /// all routes anew, and the address of a keyring that is known is not given to another.
    fn is_current(&self) -> bool {
        let policy = self.gate.policy.load();
        let mut routes = policy.router.routes().iter();
        std::ptr::eq(self.keyring.as_ptr(), Arc::as_ptr(&self.gate.keyring.load()))
            && routes.any(|route| Arc::ptr_eq(route, &self.route))
    }

    fn poll_changes(&mut self, cx: &mut Context<'_>) -> Result<(), EndReason> {
        // First the ear, then the look: what is swapped after the look is told, what was swapped before it is seen.
        while self.awake {
            let epoch = &self.gate.epoch;
            let changed = self.changed.get_or_insert_with(|| {
                let mut epoch = epoch.clone();
                epoch.mark_unchanged();
                Box::pin(next_change(epoch))
            });
            if changed.as_mut().poll(cx).is_pending() {
                break;
            }
            self.changed = None;
            // What is told may be that the wall clock was set: the timer counts by the other one.
            self.expiry = None;
        }
        if !self.is_current() {
            self.check()?;
            self.expiry = None;
        }
        Ok(())
    }

    fn poll_expiry(&mut self, cx: &mut Context<'_>) -> Result<(), EndReason> {
        let Some(ends) = self.principal.as_ref().and_then(Principal::expires_at).filter(|_| self.awake) else {
            return Ok(());
        };
        loop {
            let now = self.gate.clock.now().wall;
            if now >= ends {
                return Err(EndReason::KeyExpired);
            }
            let left = Duration::try_from(ends.duration_since(now)).unwrap_or_default().min(LOOK_AGAIN);
            let expiry = self.expiry.get_or_insert_with(|| Box::pin(sleep(left)));
            if expiry.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            self.expiry = None;
        }
    }
}

impl Revocation for KeyWatch<'_> {
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<EndReason> {
        if self.draining.as_mut().is_some_and(|draining| draining.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(EndReason::Shutdown);
        }
        match self.poll_changes(cx).and_then(|()| self.poll_expiry(cx)) {
            Ok(()) => Poll::Pending,
            Err(reason) => Poll::Ready(reason),
        }
    }

    fn stay_awake(&mut self) {
        self.awake = true;
    }
}

async fn next_change(mut epoch: watch::Receiver<u64>) {
    if epoch.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
