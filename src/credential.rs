//! Finds exactly one candidate key in a request, or says precisely why there is none, and knows every place a key could
//! sit so that it can be cut out before the request goes on (design rules 4 and 6, decisions 7-11).

use std::borrow::Cow;
use std::fmt;

use crate::http1::request::Request;
use crate::rejection::AuthFailure;

pub mod challenge;
pub mod cut;
mod query;
mod read;

use read::{Parts, Reading};

/// Where keys may come from and how refusals challenge.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The sources, in the order of the configuration.
    pub sources: Vec<Source>,
    /// Realm in `WWW-Authenticate`.
    pub realm: Box<str>,
}

/// One place where a key may sit. Header names are lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The whole value of a header.
    Header {
        /// Field name.
        name: Box<str>,
    },
    /// A header whose value is a scheme and a key; schemes match in any case and keep the operator's spelling.
    Scheme {
        /// Field name, usually `authorization`.
        name: Box<str>,
        /// Accepted schemes.
        schemes: Vec<Box<str>>,
    },
    /// A query parameter.
    Query {
        /// Decoded name.
        name: Box<str>,
        /// Whether a page opened with it is answered by a cookie and a clean link.
        browser_login: bool,
    },
    /// An item of `Sec-WebSocket-Protocol` with this prefix.
    WebSocketProtocol {
        /// The prefix; what follows is the key.
        prefix: Box<str>,
    },
    /// The password of HTTP Basic.
    Basic,
    /// A cookie: a key or a login token.
    Cookie {
        /// Cookie name.
        name: Box<str>,
    },
}

/// Where a presented key stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// A header of its own.
    Header,
    /// A header, after a scheme.
    Scheme,
    /// The query.
    Query {
        /// Whether a page opened with it is to get a login cookie.
        browser_login: bool,
    },
    /// An item of `Sec-WebSocket-Protocol`.
    WebSocketProtocol,
    /// The password of HTTP Basic.
    Basic,
    /// A cookie: a key, or a login token of [`crate::session`].
    Cookie,
}

/// The one candidate key of a request: 1 to [`crate::key::MAX_KEY_BYTES`] bytes, decoded, without surrounding blanks.
#[derive(PartialEq, Eq)]
pub struct Presented<'a> {
    key: Cow<'a, [u8]>,
    via: Via,
    source: usize,
}

/// What a route takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Accepts<'a> {
    /// The sources it reads, as indices into [`Settings::sources`]; `None` is all.
    pub sources: Option<&'a [usize]>,
    /// Whether it is public: there, what is not one of our keys in `Authorization` or the query is the upstream's.
    pub public: bool,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// The candidate, if any source held one.
    pub presented: Option<Presented<'a>>,
    /// What must reach the upstream as it came.
    pub untouched: Untouched,
}

/// The sources whose content belongs to the upstream in this request. The default is none: everything is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Untouched {
    sources: u64,
    authorization: bool,
}

/// The configured sources, made ready for looking.
#[derive(Clone, Debug)]
pub struct Sources {
    list: Vec<Source>,
    reads_authorization: bool,
    has_query: bool,
}

impl Sources {
    /// Compiles the sources of `settings`.
    pub fn new(settings: &Settings) -> Self {
        let list = settings.sources.clone();
        let reads_authorization = list.iter().any(Source::is_authorization);
        let has_query = list.iter().any(Source::is_query);
        Self { list, reads_authorization, has_query }
    }

    /// Looks at every source and gives the one candidate key.
    ///
    /// `known` tells whether bytes are one of our keys: in the key file in any state, or of our own format (decision 8).
    /// It is asked only where a credential may belong to the upstream, never with more than
    /// [`crate::key::MAX_KEY_BYTES`]. Finding nothing is no error here: whether a key is needed, the route says.
    ///
    /// # Errors
    /// [`AuthFailure::Conflict`]: a source twice, or two sources with different values. [`AuthFailure::Malformed`]: a
    /// value that cannot be a key (too long, a NUL, not base64).
    pub fn find<'a>(
        &self,
        request: Request<'a>,
        accepts: Accepts<'_>,
        known: impl Fn(&[u8]) -> bool,
    ) -> Result<Found<'a>, AuthFailure> {
        let parts = Parts::of(request);
        let mut untouched = Untouched::default();
        let mut presented = None;
        for (index, source) in self.list.iter().enumerate() {
            if source.is_authorization() || source.is_cookie() {
                continue;
            }
            let accepted = accepts.source(index);
            let surely_ours = accepted && !(accepts.public && source.is_query());
            if !surely_ours && !source.holds_key(parts, &known) {
                untouched.leave(index);
            } else if accepted {
                self.merge(&mut presented, index, parts)?;
            }
        }
        if parts.may_have("authorization") {
            untouched.authorization = if self.reads_authorization {
                self.read_authorization(&mut presented, parts, accepts, &known)?
            } else {
                // Credentials stand there by standard: a key of ours in it was meant for us and stays here.
                !read::authorization_holds_key(parts, &known)
            };
        }
        if presented.is_none() {
            // Decision 7: a cookie is sent by the browser on its own account, so any other source outranks it.
            for (index, _) in self.accepted(accepts, Source::is_cookie) {
                self.merge(&mut presented, index, parts)?;
            }
        }
        Ok(Found { presented, untouched })
    }

    /// The configured sources, in order.
    pub fn list(&self) -> &[Source] {
        &self.list
    }

    /// The cookie in which a browser login is kept on a route that takes `accepted`.
    pub fn login_cookie(&self, accepted: Option<&[usize]>) -> Option<&str> {
        let accepts = Accepts { sources: accepted, public: false };
        self.accepted(accepts, Source::is_cookie).find_map(|(_, source)| match source {
            Source::Cookie { name } => Some(&**name),
            _ => None,
        })
    }

    /// Reads the sources in `Authorization`; the answer is whether that header belongs to the upstream (design rule 6):
    /// it does when it is not one of our keys and either another source decides or no source claims it.
    fn read_authorization<'a>(
        &self,
        presented: &mut Option<Presented<'a>>,
        parts: Parts<'a>,
        accepts: Accepts<'_>,
        known: &impl Fn(&[u8]) -> bool,
    ) -> Result<bool, AuthFailure> {
        let decides = presented.is_none() && !accepts.public;
        if !decides && !read::authorization_holds_key(parts, known) {
            return Ok(true);
        }
        for (index, _) in self.accepted(accepts, Source::is_authorization) {
            self.merge(presented, index, parts)?;
        }
        Ok(presented.is_none() && !read::authorization_holds_key(parts, known))
    }

    /// Adds what source `index` holds to what the sources before it held.
    fn merge<'a>(
        &self,
        presented: &mut Option<Presented<'a>>,
        index: usize,
        parts: Parts<'a>,
    ) -> Result<(), AuthFailure> {
        let Some(source) = self.list.get(index) else { return Ok(()) };
        match (source.read(parts), presented.as_ref()) {
            (Reading::Absent, _) => Ok(()),
            (Reading::Malformed, _) => Err(AuthFailure::Malformed),
            (Reading::Twice, _) => Err(AuthFailure::Conflict),
            (Reading::One(key), None) => {
                *presented = Some(Presented { key, via: source.via(), source: index });
                Ok(())
            }
            (Reading::One(key), Some(first)) if first.key == key => Ok(()),
            (Reading::One(_), Some(_)) => Err(AuthFailure::Conflict),
        }
    }

    fn accepted<'s, 'b>(
        &'s self,
        accepts: Accepts<'b>,
        kind: fn(&Source) -> bool,
    ) -> impl Iterator<Item = (usize, &'s Source)> + use<'s, 'b> {
        self.list.iter().enumerate().filter(move |(index, source)| kind(source) && accepts.source(*index))
    }
}

impl Presented<'_> {
    /// The bytes to look up.
    pub fn expose_secret(&self) -> &[u8] {
        &self.key
    }

    /// Where it stood; the first place, when it stood in several.
    pub fn via(&self) -> Via {
        self.via
    }

    /// Index of that source in [`Settings::sources`].
    pub fn source(&self) -> usize {
        self.source
    }
}

impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Presented(.., {:?})", self.via)
    }
}

impl Accepts<'_> {
    fn source(self, index: usize) -> bool {
        self.sources.is_none_or(|list| list.contains(&index))
    }
}

impl Untouched {
    /// Whether `Authorization` passes as it came.
    pub fn authorization(self) -> bool {
        self.authorization
    }

    /// Whether what stands in source `index` passes as it came.
    pub fn source(self, index: usize) -> bool {
        u32::try_from(index).ok().and_then(|bit| self.sources.checked_shr(bit)).is_some_and(|bits| bits & 1 == 1)
    }

    /// A source past the 64th is never left: cutting too much is the safe mistake.
    fn leave(&mut self, index: usize) {
        self.sources |= u32::try_from(index).ok().and_then(|bit| 1u64.checked_shl(bit)).unwrap_or(0);
    }
}

impl Source {
    fn via(&self) -> Via {
        match self {
            Self::Header { .. } => Via::Header,
            Self::Scheme { .. } => Via::Scheme,
            Self::Query { browser_login, .. } => Via::Query { browser_login: *browser_login },
            Self::WebSocketProtocol { .. } => Via::WebSocketProtocol,
            Self::Basic => Via::Basic,
            Self::Cookie { .. } => Via::Cookie,
        }
    }

    /// Whether it is read from `Authorization`, which upstreams use too.
    fn is_authorization(&self) -> bool {
        match self {
            Self::Header { name } | Self::Scheme { name, .. } => name.eq_ignore_ascii_case("authorization"),
            Self::Basic => true,
            Self::Query { .. } | Self::WebSocketProtocol { .. } | Self::Cookie { .. } => false,
        }
    }

    fn is_query(&self) -> bool {
        matches!(self, Self::Query { .. })
    }

    fn is_cookie(&self) -> bool {
        matches!(self, Self::Cookie { .. })
    }
}

#[cfg(test)]
mod tests;
