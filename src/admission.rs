//! The decision: a request, the keyring, the limits and the time give `Admitted` or a refusal. Only this room can make an
//! `Admitted`, and only an `Admitted` request can be forwarded (design rule 1). Pure: every input is an argument.

use std::net::IpAddr;

use crate::credential::{Accepts, Presented, Sources, Untouched, Via};
use crate::http1::request::Request;
use crate::key::{KeyHash, is_own_format};
use crate::keyring::{Keyring, Principal};
use crate::limit::Limits;
use crate::limit::fields::Fields;
use crate::limit::limiter::{self, Ask, Limiter, Refusal};
use crate::limit::permit::Permit;
use crate::limit::throttle::Throttle;
use crate::moment::Now;
use crate::rejection::{AuthFailure, Limited, Rejection};
use crate::route::router::{Found, Matched, RouteId, Router};
use crate::route::{Access, Route, is_preflight};
use crate::session::{self, Login, SessionSecret};

/// What admission decides by: one configuration, one keyring and the state of the limits.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// Routes.
    pub router: &'a Router,
    /// Where keys may be.
    pub sources: &'a Sources,
    /// Limits of keys that name none of their own.
    pub default_limits: Limits,
    /// The keys.
    pub keyring: &'a Keyring,
    /// What every key and address has used.
    pub limiter: &'a Limiter,
    /// Bad keys per address, where that is bounded.
    pub throttle: Option<&'a Throttle>,
    /// Signs login tokens, where there is a cookie source.
    pub session: Option<&'a SessionSecret>,
}

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
pub struct ClientSide<'a> {
    /// The client's address, past trusted proxies; none on a unix socket.
    pub address: Option<IpAddr>,
    /// `https` or `http`: what the client spoke.
    pub scheme: &'a str,
    /// The host it asked for, as it knows it: past trusted proxies, empty on HTTP/1.0 without one.
    pub host: &'a [u8],
}

/// A request that may be forwarded. Cannot be made outside this room.
#[derive(Debug)]
pub struct Admitted {
    route: RouteId,
    caller: Caller,
    untouched: Untouched,
    permit: Permit,
    login: Option<BrowserLogin>,
    cookie: Option<Box<str>>,
}

/// On whose account a request was admitted.
#[derive(Debug)]
pub enum Caller {
    /// A good key.
    Key(Principal),
    /// Nobody in particular, on a public route.
    Anonymous,
    /// A browser asking whether it may ask: nobody, and nothing of the route's secrets goes with it (decision 24).
    Preflight,
}

/// A page opened with its key in the link: it is answered by a cookie and the clean link.
#[derive(Debug)]
pub struct BrowserLogin {
    /// Name of the cookie.
    pub cookie: Box<str>,
    /// The token.
    pub token: String,
    /// The target without the key.
    pub location: Vec<u8>,
}

/// A refusal and what its answer needs.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub rejection: Rejection,
    /// What was wrong with the key, also where the answer is about the address's many bad keys.
    pub failure: Option<AuthFailure>,
    /// The route it was for, once one is known.
    pub route: Option<RouteId>,
    /// Whose key it was, if the key was good.
    pub principal: Option<Principal>,
    /// How the limits stand, if one of them was met.
    pub limits: Option<Fields>,
    /// `Allow` of a 405.
    pub allow: Option<Box<str>>,
    /// Name of a login cookie that was bad and is to be cleared (decision 7).
    pub clear_cookie: Option<Box<str>>,
}

/// Decides on one request.
///
/// The order is that of design section 4: route, credential, key, role and scope, throttle (failures only), limits. What a
/// stranger may learn without a key is 400 and 401: there are no routes for those who have no key (decision 4).
pub fn decide(
    rules: Rules<'_>,
    request: Request<'_>,
    client: ClientSide<'_>,
    now: Now,
) -> Result<Admitted, Box<Refused>> {
    if let Some(admitted) = preflight(rules, request, client, now) {
        return admitted;
    }
    let matched = rules.router.find(request.host(), request.path(), request.method()).map_err(Refused::plain)?;
    let found = match &matched {
        Matched::Route(found) | Matched::WrongMethod { route: found, .. } => Some(*found),
        Matched::None => None,
    };
    let route = found.map(|found| &**found.route);
    let accepts = Accepts {
        sources: route.and_then(|route| route.credentials.as_deref()),
        public: route.is_some_and(|route| route.access == Access::Public),
    };
    let refuse = |rejection| Box::new(Refused { route: found.map(|found| found.id), ..*Refused::plain(rejection) });
    let known = |key: &[u8]| is_own_format(key) || rules.keyring.knows(&KeyHash::of(key));
    let refuse_bad =
        |failure| Box::new(Refused { failure: Some(failure), ..*refuse(fail(rules, client, failure, now)) });
    let credential = rules.sources.find(request, accepts, known).map_err(refuse_bad)?;
    let Some(presented) = &credential.presented else {
        let (Some(found), true) = (found, accepts.public) else {
            return Err(refuse_bad(AuthFailure::Missing));
        };
        if let Matched::WrongMethod { allow, .. } = matched {
            return Err(Box::new(Refused { allow: Some(Box::from(allow)), ..*refuse(Rejection::MethodNotAllowed) }));
        }
        return admit_anonymous(rules, found, Caller::Anonymous, credential.untouched, client, now);
    };
    let cookie = cookie_name(rules.sources, presented);
    let principal = identify(rules, presented, client.address, now)
        .map_err(|failure| Box::new(Refused { clear_cookie: cookie.clone(), ..*refuse_bad(failure) }))?;
    let refuse_known = |rejection| Box::new(Refused { principal: Some(principal.clone()), ..*refuse(rejection) });
    let foreign = match presented.via() {
        Via::Cookie => !session::origin_allowed(request, client.scheme, client.host),
        // Where the route is open to pages of other origins, they may send Basic on purpose.
        Via::Basic if !route.is_some_and(|route| route.cors_preflight) => {
            session::is_foreign_page(request, client.host)
        }
        _ => false,
    };
    if foreign {
        return Err(refuse_known(Rejection::ForeignOrigin));
    }
    let Some(found) = found else { return Err(refuse_known(Rejection::NoRoute)) };
    if let Matched::WrongMethod { allow, .. } = matched {
        return Err(Box::new(Refused { allow: Some(Box::from(allow)), ..*refuse_known(Rejection::MethodNotAllowed) }));
    }
    if !may_use(&principal, found.route) {
        return Err(refuse_known(Rejection::Forbidden));
    }
    let limits = principal.limits().or(rules.default_limits);
    let ask = Ask {
        caller: limiter::Caller::Key(principal.id(), &limits),
        route: found.route.limits.map(|rate| (&found.route.name, rate)),
        websocket: request.is_websocket(),
    };
    let permit =
        rules.limiter.admit(&ask, now).map_err(|refusal| limited(refusal, refuse_known(Rejection::Internal)))?;
    let login = rules.session.and_then(|secret| {
        let Login { cookie, location, .. } =
            session::browser_login(request, rules.sources, accepts.sources, &credential)?;
        let token = session::issue(secret, principal.id(), principal.hash(), now.wall);
        Some(BrowserLogin { cookie: Box::from(cookie), token, location })
    });
    Ok(Admitted {
        route: found.id,
        caller: Caller::Key(principal),
        untouched: credential.untouched,
        permit,
        login,
        cookie,
    })
}

/// Whether a key that was admitted to `route` would be again: its credential still good, its roles still enough. Open
/// connections ask this after every change and end when the answer is an error (design rule 8, decision 26).
pub fn still_admitted(
    keyring: &Keyring,
    principal: &Principal,
    route: &Route,
    address: Option<IpAddr>,
    now: Now,
) -> Result<Principal, AuthFailure> {
    let principal = keyring.still_holds(principal, address, now.wall)?;
    if may_use(&principal, route) { Ok(principal) } else { Err(AuthFailure::Disabled) }
}

impl Admitted {
    /// The route it takes.
    pub fn route(&self) -> RouteId {
        self.route
    }

    /// On whose account.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The principal, if a key was presented.
    pub fn principal(&self) -> Option<&Principal> {
        match &self.caller {
            Caller::Key(principal) => Some(principal),
            Caller::Anonymous | Caller::Preflight => None,
        }
    }

    /// The sources whose content belongs to the upstream.
    pub fn untouched(&self) -> Untouched {
        self.untouched
    }

    /// What it holds of the limits.
    pub fn permit(&self) -> &Permit {
        &self.permit
    }

    /// Name of the cookie that the key or its login token came by, if it did.
    pub fn cookie(&self) -> Option<&str> {
        self.cookie.as_deref()
    }

    /// The browser login to answer with instead of forwarding.
    pub fn login(&self) -> Option<&BrowserLogin> {
        self.login.as_ref()
    }

    /// At the upstream's 101, before the client hears of it: its next request must not find this one in flight.
    #[must_use]
    pub fn into_websocket(self) -> Self {
        Self { permit: self.permit.into_websocket(), ..self }
    }

    /// The permit alone, for what outlives the request: a tunnel.
    pub fn into_permit(self) -> Permit {
        self.permit
    }
}

impl Refused {
    /// A refusal before anything is known.
    pub fn plain(rejection: Rejection) -> Box<Self> {
        let (route, principal, limits) = (None, None, None);
        Box::new(Self { rejection, failure: None, route, principal, limits, allow: None, clear_cookie: None })
    }
}

/// A CORS preflight on a route that lets it pass; `None` for every other request.
fn preflight(
    rules: Rules<'_>,
    request: Request<'_>,
    client: ClientSide<'_>,
    now: Now,
) -> Option<Result<Admitted, Box<Refused>>> {
    if request.method() != b"OPTIONS" {
        return None;
    }
    let fields = request.fields();
    let requested = fields.first("access-control-request-method");
    if !is_preflight(request.method(), fields.first("origin").is_some(), requested.is_some()) {
        return None;
    }
    match rules.router.find_preflight(request.host(), request.path(), requested.unwrap_or_default()) {
        Ok(found) => Some(admit_anonymous(rules, found?, Caller::Preflight, Untouched::default(), client, now)),
        Err(rejection) => Some(Err(Refused::plain(rejection))),
    }
}

fn admit_anonymous(
    rules: Rules<'_>,
    found: Found<'_>,
    caller: Caller,
    untouched: Untouched,
    client: ClientSide<'_>,
    now: Now,
) -> Result<Admitted, Box<Refused>> {
    let ask = Ask {
        caller: limiter::Caller::Address(client.address.into()),
        route: found.route.limits.map(|rate| (&found.route.name, rate)),
        websocket: false,
    };
    let refuse = || Box::new(Refused { route: Some(found.id), ..*Refused::plain(Rejection::Internal) });
    let permit = rules.limiter.admit(&ask, now).map_err(|refusal| limited(refusal, refuse()))?;
    Ok(Admitted { route: found.id, caller, untouched, permit, login: None, cookie: None })
}

fn identify(
    rules: Rules<'_>,
    presented: &Presented<'_>,
    address: Option<IpAddr>,
    now: Now,
) -> Result<Principal, AuthFailure> {
    let key = presented.expose_secret();
    if presented.via() == Via::Cookie && session::is_token(key) {
        let secret = rules.session.ok_or(AuthFailure::Unknown)?;
        let claim = session::verify(secret, key, now.wall)?;
        let bound = |hash: &KeyHash| claim.is_bound_to(secret, hash);
        return rules.keyring.principal_for_session(&claim.id, bound, address, now.wall);
    }
    let hash = KeyHash::of_presented(key).ok_or(AuthFailure::Malformed)?;
    rules.keyring.identify(&hash, address, now.wall)
}

fn cookie_name(sources: &Sources, presented: &Presented<'_>) -> Option<Box<str>> {
    match sources.list().get(presented.source()) {
        Some(crate::credential::Source::Cookie { name }) => Some(name.clone()),
        _ => None,
    }
}

/// The refusal of a bad key: 401 until its address is throttled, then 429 (decision 10).
fn fail(rules: Rules<'_>, client: ClientSide<'_>, failure: AuthFailure, now: Now) -> Rejection {
    if failure.is_guess()
        && let Some(throttle) = rules.throttle
        && let Err(wait) = throttle.fail(client.address.into(), now)
    {
        return Rejection::TooManyRequests(Limited::FailedAuth, wait);
    }
    Rejection::Unauthorized(failure)
}

fn limited(refusal: Refusal, mut refused: Box<Refused>) -> Box<Refused> {
    refused.limits = Some(refusal.fields);
    refused.rejection = refusal.into();
    refused
}

/// One of the route's roles, and all of its scopes.
pub(crate) fn may_use(principal: &Principal, route: &Route) -> bool {
    let role = route.roles.is_empty() || principal.roles().any(|held| route.roles.iter().any(|role| **role == *held));
    role && route.scopes.iter().all(|scope| principal.scopes().any(|held| *held == **scope))
}

#[cfg(test)]
mod tests;
