//! What the upstream is told about the caller, and what it is not told: every credential and every header that could pass
//! for ours is dropped, then ours are set (design rules 3 and 4).

/// The identity headers and whose forwarded headers are believed.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Headers that carry the user name.
    pub user: Vec<Box<str>>,
    /// Headers that carry the key id.
    pub key_id: Vec<Box<str>>,
    /// Headers that carry the roles, comma separated.
    pub roles: Vec<Box<str>>,
    /// Headers that carry the scopes, space separated.
    pub scopes: Vec<Box<str>>,
    /// Peers whose `X-Forwarded-*` are believed.
    pub trusted_proxies: Vec<TrustedProxy>,
}

/// A peer whose forwarded headers are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustedProxy {
    /// Peers in this network.
    Net(ipnet::IpNet),
    /// Every peer on a unix listener.
    Unix,
}
