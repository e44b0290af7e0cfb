//! The compiled routes: host, path and method in, one route out, or a refusal when the path can be read in two ways.
//! Immutable; a reload makes a new one.
//!
//! Which route: the most specific host (a name, then the longest wildcard, then none), then the exact path, then the
//! longest prefix. A host whose routes own no such path passes the request on to the next less specific host. The method
//! is looked at last and never widens the search (decision 3).

use std::sync::Arc;

use super::host::{GroupId, Hosts};
use super::path::{self, Shape};
use super::tree::{Case, PlaceId, Tree};
use super::{Access, PathPattern, Route};
use crate::rejection::Rejection;

/// Stands for one route of a router; the order is that of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(u32);

impl RouteId {
    /// Position among the configured routes.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A route and the name it has in its router.
#[derive(Clone, Copy, Debug)]
pub struct Found<'r> {
    /// Stands for the route in this router.
    pub id: RouteId,
    /// The route.
    pub route: &'r Arc<Route>,
}

/// Where a request belongs.
#[derive(Clone, Copy, Debug)]
pub enum Matched<'r> {
    /// This route takes it.
    Route(Found<'r>),
    /// A route owns the path and takes other methods: 405, after the key was checked as `route` asks (decision 3).
    WrongMethod {
        /// Decides who may learn that: the first route here that needs a key, else the first.
        route: Found<'r>,
        /// The value of `Allow`.
        allow: &'r str,
    },
    /// No route: 401 without a good key, 404 with one (decision 4).
    None,
}

/// Why a set of routes makes no router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The pattern is one that no request could match in all its readings.
    #[error(
        "a route's path begins with `/` and is plain: no `%`, `;`, `?`, `#`, `\\`, `//`, blank, `.` or `..` segment, \
         and nothing but ASCII; paths are compared decoded as well as as sent"
    )]
    PathNotPlain,
    /// The pattern and that of another route of the host are alike but for case.
    #[error("the path differs only in case from that of another route of this host: every request would be ambiguous")]
    DiffersInCase {
        /// Position of the other.
        other: usize,
    },
    /// Another route has this host and path, and takes some of the same methods.
    #[error("another route has this host and path and takes the same method")]
    MethodTaken {
        /// Position of the other.
        other: usize,
    },
    /// `strip_prefix` is not a leading part of the path.
    #[error("`strip_prefix` must be the route's path or whole leading segments of it")]
    StripPrefixOutside,
    /// Another route has this name and other limits: they would share buckets.
    #[error("another route has this name and different limits; give each its own `name`")]
    NameTaken {
        /// Position of the other.
        other: usize,
    },
}

/// The compiled routes.
#[derive(Debug)]
pub struct Router {
    routes: Vec<Arc<Route>>,
    places: Vec<Place>,
    groups: Vec<Group>,
    hosts: Hosts,
    /// Whether any pattern has an upper-case letter.
    mixed_case: bool,
}

/// The routes that share a host and a path and differ in method.
#[derive(Debug, Default)]
struct Place {
    routes: Vec<(RouteId, Arc<Route>)>,
    allow: String,
}

/// The paths of one host pattern.
#[derive(Debug, Default)]
struct Group {
    as_written: Tree,
    folded: Tree,
    wider: Option<GroupId>,
}

impl Router {
    /// Compiles `routes`; on failure, every problem with the position of the route that has it.
    pub fn new(routes: Vec<Route>) -> Result<Self, Vec<(usize, Problem)>> {
        let routes: Vec<_> = routes.into_iter().map(Arc::new).collect();
        let mut router = Self {
            routes: Vec::with_capacity(routes.len()),
            places: Vec::new(),
            groups: vec![Group::default()],
            hosts: Hosts::default(),
            mixed_case: routes.iter().any(|route| path_of(&route.path).bytes().any(|byte| byte.is_ascii_uppercase())),
        };
        let mut problems = Vec::new();
        for (index, route) in routes.into_iter().enumerate() {
            if let Err(problem) = router.add(&route) {
                problems.push((index, problem));
            }
            router.routes.push(route);
        }
        router.link_hosts();
        if problems.is_empty() { Ok(router) } else { Err(problems) }
    }

    /// The route of a request.
    ///
    /// `host` is the value of `Host` (or `:authority`), `None` for HTTP/1.0 without one; `path` the target up to its
    /// first `?`, as sent; `method` as sent. Errors with [`Rejection::AmbiguousPath`] when an upstream could read the
    /// path as that of another route, and with [`Rejection::Malformed`] for what is refused whatever the routes are.
    pub fn find(&self, host: Option<&[u8]>, path: &[u8], method: &[u8]) -> Result<Matched<'_>, Rejection> {
        let Some(place) = self.place(host, path)? else { return Ok(Matched::None) };
        if let Some(found) = place.taking(method) {
            return Ok(Matched::Route(found));
        }
        let deciding = place.found().find(|found| found.route.access == Access::Key).or_else(|| place.found().next());
        Ok(deciding.map_or(Matched::None, |route| Matched::WrongMethod { route, allow: &place.allow }))
    }

    /// The route that lets a CORS preflight for `requested` (the value of `Access-Control-Request-Method`) pass without
    /// a key, if there is one. Its list of methods need not name `OPTIONS`. Errors as [`Router::find`] does.
    pub fn find_preflight(
        &self,
        host: Option<&[u8]>,
        path: &[u8],
        requested: &[u8],
    ) -> Result<Option<Found<'_>>, Rejection> {
        let Some(place) = self.place(host, path)? else { return Ok(None) };
        Ok(match place.taking(requested) {
            Some(found) => found.route.cors_preflight.then_some(found),
            None => place.found().find(|found| found.route.cors_preflight),
        })
    }

    /// The route that `id` stands for; `None` when it is of another router.
    pub fn route(&self, id: RouteId) -> Option<&Arc<Route>> {
        self.routes.get(id.index())
    }

    /// All routes, in the order of the configuration.
    pub fn routes(&self) -> &[Arc<Route>] {
        &self.routes
    }

    fn place(&self, host: Option<&[u8]>, path: &[u8]) -> Result<Option<&Place>, Rejection> {
        let shape = path::inspect(path)?;
        let group = self.hosts.find(host)?;
        let landed = self.land(group, path, Case::AsSent);
        let place = landed.and_then(|id| self.places.get(id.0));
        match shape {
            Shape::Plain if !self.mixed_case => {}
            Shape::Plain | Shape::MixedCase => {
                if self.land(group, path, Case::Folded) != landed {
                    return Err(Rejection::AmbiguousPath);
                }
            }
            Shape::Tricky => self.check_readings(group, path, landed, place)?,
        }
        Ok(place)
    }

    fn check_readings(
        &self,
        group: GroupId,
        path: &[u8],
        landed: Option<PlaceId>,
        place: Option<&Place>,
    ) -> Result<(), Rejection> {
        let lands_alike = |reading: &[u8]| {
            self.land(group, reading, Case::AsSent) == landed && self.land(group, reading, Case::Folded) == landed
        };
        path::every_reading(path, lands_alike)?;
        // Cut short, a path can be read in new ways: dot segments then stop at another root, a slash becomes the first.
        let mut whole = Vec::new();
        for found in place.into_iter().flat_map(Place::found).filter(|found| !found.route.cut().is_empty()) {
            path::every_reading(found.route.forward_path(path)?, |reading| {
                whole.clear();
                whole.extend_from_slice(found.route.cut());
                whole.extend_from_slice(reading);
                lands_alike(&whole)
            })?;
        }
        Ok(())
    }

    fn land(&self, first: GroupId, path: &[u8], case: Case) -> Option<PlaceId> {
        let groups = std::iter::successors(self.groups.get(first), |group| self.groups.get(group.wider?));
        groups.map(|group| group.tree(case)).find_map(|tree| tree.find(path, case))
    }

    fn add(&mut self, route: &Arc<Route>) -> Result<(), Problem> {
        let id = RouteId(u32::try_from(self.routes.len()).unwrap_or(u32::MAX));
        if !matches!(path::inspect(path_of(&route.path).as_bytes()), Ok(Shape::Plain | Shape::MixedCase)) {
            return Err(Problem::PathNotPlain);
        }
        if !strips_inside(route) {
            return Err(Problem::StripPrefixOutside);
        }
        if let Some(other) = self.routes.iter().position(|own| own.name == route.name && own.limits != route.limits) {
            return Err(Problem::NameTaken { other });
        }
        let place = self.place_of(route)?;
        place.add(id, route)
    }

    /// The place of a new route: the one of its host and path, or a new one.
    fn place_of(&mut self, route: &Route) -> Result<&mut Place, Problem> {
        let group = self.hosts.group(route.host.as_ref());
        if self.groups.len() <= group {
            self.groups.resize_with(group + 1, Group::default);
        }
        let next = PlaceId(self.places.len());
        let Some(group) = self.groups.get_mut(group) else { return Err(Problem::PathNotPlain) };
        let as_written = *group.as_written.slot(&route.path).get_or_insert(next);
        let folded = *group.folded.slot(&lower_case(&route.path)).get_or_insert(next);
        if as_written == next {
            self.places.push(Place::default());
        }
        if as_written != folded {
            let twin = self.places.get(folded.0).and_then(|place| place.found().next());
            return Err(Problem::DiffersInCase { other: twin.map_or(0, |found| found.id.index()) });
        }
        self.places.get_mut(as_written.0).ok_or(Problem::PathNotPlain)
    }

    fn link_hosts(&mut self) {
        for route in &self.routes {
            let Some(pattern) = &route.host else { continue };
            let wider = self.hosts.wider(pattern);
            let group = self.hosts.group(Some(pattern));
            if let Some(group) = self.groups.get_mut(group) {
                group.wider = Some(wider);
            }
        }
    }
}

impl Group {
    fn tree(&self, case: Case) -> &Tree {
        match case {
            Case::AsSent => &self.as_written,
            Case::Folded => &self.folded,
        }
    }
}

impl Place {
    fn found(&self) -> impl Iterator<Item = Found<'_>> {
        self.routes.iter().map(|(id, route)| Found { id: *id, route })
    }

    /// The route that takes `method`: one that lists it, one that lists `GET` for a `HEAD` (RFC 9110 section 9.3.2), and
    /// last the one that takes all.
    fn taking(&self, method: &[u8]) -> Option<Found<'_>> {
        self.found()
            .find(|found| found.route.lists(method))
            .or_else(|| self.found().find(|found| method == b"HEAD" && found.route.lists(b"GET")))
            .or_else(|| self.found().find(|found| found.route.methods.is_none()))
    }

    fn add(&mut self, id: RouteId, route: &Arc<Route>) -> Result<(), Problem> {
        let clash = |own: &Route| match &route.methods {
            None => own.methods.is_none(),
            Some(methods) => methods.iter().any(|method| own.lists(method.as_bytes())),
        };
        if let Some(found) = self.found().find(|found| clash(found.route)) {
            return Err(Problem::MethodTaken { other: found.id.index() });
        }
        for method in route.methods.iter().flatten() {
            self.allow(method);
            if &**method == "GET" {
                self.allow("HEAD");
            }
        }
        self.routes.push((id, Arc::clone(route)));
        Ok(())
    }

    fn allow(&mut self, method: &str) {
        if self.allow.split(", ").any(|listed| listed == method) {
            return;
        }
        if !self.allow.is_empty() {
            self.allow.push_str(", ");
        }
        self.allow.push_str(method);
    }
}

fn path_of(pattern: &PathPattern) -> &str {
    match pattern {
        PathPattern::Exact(path) | PathPattern::Below(path) => path,
    }
}

fn lower_case(pattern: &PathPattern) -> PathPattern {
    match pattern {
        PathPattern::Exact(path) => PathPattern::Exact(path.to_ascii_lowercase().into()),
        PathPattern::Below(path) => PathPattern::Below(path.to_ascii_lowercase().into()),
    }
}

/// Whether `strip_prefix` is empty, or leading segments of the route's path.
fn strips_inside(route: &Route) -> bool {
    let rest = path_of(&route.path).as_bytes().strip_prefix(route.cut());
    matches!(rest.map(<[u8]>::first), Some(None | Some(b'/')))
}
