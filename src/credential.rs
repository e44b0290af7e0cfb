//! Finds exactly one candidate key in a request, or says precisely why there is none, and knows every place a key could
//! sit so that it can be cut out before the request goes on (design rules 4 and 6, decisions 7-11).

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
