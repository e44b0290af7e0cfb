//! What an unknown setting was probably meant to be: the nearest known name, or the name that users of other gateways
//! type and ours for the same thing.

/// Advice on `name`, unknown in the section `section` (as in `routes[]`), where `known` would be settings.
pub(super) fn hint(section: &str, name: &str, known: &[&'static str]) -> String {
    let lower = name.to_ascii_lowercase().replace('-', "_");
    let advice = FOREIGN.iter().find(|(place, names, _)| *place == section && names.contains(&lower.as_str()));
    if let Some((_, _, advice)) = advice {
        return (*advice).to_owned();
    }
    match nearest(&lower, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known here: {}", known.join(", ")),
    }
}

/// The one of `known` that `name` is a slip of, if any is near enough.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = |known: &'a str| {
        let distance = strsim::osa_distance(name, known);
        let allowed = (name.chars().count().max(known.len()) / 3).max(1);
        let cut = |long: &str, short: &str| short.len() >= 3 && long.starts_with(short);
        (distance <= allowed || cut(known, name) || cut(name, known)).then_some((distance, known))
    };
    known.filter_map(near).min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

const IDENTITY_PER_ROUTE: &str = "identity headers are the same on every route; set them once in `identity`";
const NO_ANONYMOUS: &str = "there is no anonymous consumer; a route open to everybody is `access: public`";
const TIMEOUTS: &str =
    "each phase has its own: connect_timeout, response_timeout, idle_timeout, write_timeout, websocket_idle_timeout";
const KEY_SIDE: &str =
    "who may use what is written on the key, as roles and scopes; the route asks for `roles` or `scopes`";

/// Sections, names typed there, advice.
const FOREIGN: &[(&str, &[&str], &str)] = &[
    (
        "",
        &["server", "servers", "bind", "entrypoints", "http", "https", "port", "ssl", "tls"],
        "listeners go under `listen`, with their own `tls`",
    ),
    ("", &["location", "locations", "routers", "paths", "rules"], "did you mean `routes`?"),
    ("", &["services", "backends", "backend", "cluster", "clusters", "proxy_pass"], "did you mean `upstreams`?"),
    (
        "",
        &["rate_limit", "ratelimit", "rate_limiting", "limit_req", "throttle", "quota"],
        "did you mean `limits.default`?",
    ),
    ("", &["consumers", "users", "api_keys", "apikeys"], "keys live in their own file, named by `keys.file`"),
    ("", &["key_file", "keyfile", "keys_file"], "did you mean `keys.file`?"),
    ("", &["auth", "authentication", "key_auth", "sources"], "where a key may come from is `credentials`"),
    (
        "",
        &["plugins", "middlewares", "filters"],
        "there are no plugins; limits, identity and credentials are settings of their own",
    ),
    (
        "",
        &["metrics", "admin_listen", "admin_api", "prometheus", "health"],
        "/metrics, /healthz and /readyz are on `admin.address`",
    ),
    ("", &["worker_processes", "workers", "worker_threads"], "did you mean `threads`?"),
    ("", &["timeout", "timeouts"], "a client's are under `request`, an upstream's under `upstreams.NAME`"),
    ("", &["trusted_proxies", "real_ip", "set_real_ip_from", "headers"], "did you mean something under `identity`?"),
    ("", &["access_log", "error_log", "logging", "logs"], "did you mean `log`?"),
    ("", &["grace", "graceful_timeout", "drain"], "did you mean `shutdown.grace`?"),
    ("", &["cors"], "preflights pass by `cors_preflight: true` on a route; other CORS headers are the upstream's"),
    ("", &["anonymous", "anonymous_consumer"], NO_ANONYMOUS),
    ("", &["client_max_body_size", "max_body_size"], "did you mean `request.max_body_bytes`?"),
    ("", &["redis", "database", "storage"], "no other service is needed; counters live in memory"),
    ("listen[]", &["port", "host", "ip", "bind", "listen"], "write both as `address: \"127.0.0.1:8443\"`"),
    ("listen[]", &["ssl", "https", "certificates", "cert", "key"], "certificates go under `tls.certificates`"),
    ("listen[]", &["http2", "min_version"], "did you mean `tls.http2` or `tls.min_version`?"),
    ("listen[]", &["proxy_protocol"], "the PROXY protocol is not spoken; see `identity.trusted_proxies`"),
    (
        "listen[].tls",
        &["cert", "key", "certificate", "ssl_certificate", "ssl_certificate_key", "cert_file", "key_file"],
        "write `certificates: [{ cert: FILE, key: FILE }]`",
    ),
    ("listen[].tls", &["protocols", "ssl_protocols", "minversion", "tls_min_version"], "did you mean `min_version`?"),
    (
        "listen[].tls",
        &["acme", "letsencrypt", "cert_resolver", "certresolver"],
        "certificates are read from files, and again when they change; an ACME client writes them",
    ),
    (
        "listen[].tls",
        &["ciphers", "ssl_ciphers", "cipher_suites"],
        "ciphers are not settable; the library's defaults are used",
    ),
    (
        "listen[].tls.certificates[]",
        &["certificate", "chain", "cert_file", "fullchain", "certfile"],
        "did you mean `cert`?",
    ),
    ("listen[].tls.certificates[]", &["private_key", "key_file", "privkey", "keyfile"], "did you mean `key`?"),
    ("admin", &["listen", "port", "bind", "host"], "did you mean `address`?"),
    ("keys", &["path"], "did you mean `file`?"),
    ("keys", &["reload", "watch", "interval", "poll"], "the key file is always watched"),
    ("state", &["file", "db", "database"], "did you mean `path`?"),
    (
        "credentials[]",
        &["name", "key_names", "key_name", "in", "type"],
        "name the place: `header:`, `query:`, `cookie:`, `websocket_protocol:` or `basic: password`",
    ),
    ("credentials[]", &["bearer", "scheme", "prefix"], "write `header: Authorization` with `schemes: [Bearer]`"),
    (
        "credentials[]",
        &["hide_credentials", "hide", "strip", "forward"],
        "a key never goes upstream; there is no switch",
    ),
    ("credentials[]", &["body", "key_in_body", "form"], "a key is never taken from a body"),
    ("credentials[]", &["realm"], "`realm` stands at the top level"),
    ("credentials[]", &["anonymous", "anonymous_consumer"], NO_ANONYMOUS),
    ("identity", &["user", "key_id", "roles", "scopes"], "names of headers go under `identity.headers`"),
    ("identity", &["anonymous", "anonymous_consumer"], NO_ANONYMOUS),
    (
        "identity",
        &["forwarded", "trust_forwarded", "real_ip", "set_real_ip_from", "trusted_ips"],
        "did you mean `trusted_proxies`?",
    ),
    ("identity.headers", &["username", "consumer", "name", "email"], "did you mean `user`?"),
    ("identity.headers", &["id", "key", "credential"], "did you mean `key_id`?"),
    ("identity.headers", &["groups", "role"], "did you mean `roles`?"),
    ("identity.headers", &["anonymous", "anonymous_consumer"], NO_ANONYMOUS),
    (
        "limits",
        &["requests", "per", "burst", "concurrent", "websockets", "quota"],
        "limits of every key go under `limits.default`",
    ),
    ("limits", &["failed", "auth_failures", "bruteforce", "fail2ban"], "did you mean `failed_auth`?"),
    (
        "limits.default",
        &["rate", "limit", "rps", "requests_per_second", "average"],
        "write `requests: 100` and `per: 1s`",
    ),
    ("limits.default", &["window", "period", "interval", "time_window"], "did you mean `per`?"),
    ("limits.default", &["second", "minute", "hour"], "write `requests: 100` and `per: 1s`"),
    ("limits.default", &["day", "month", "year"], "write `quota: { requests: 1000000, per: 1d }`"),
    (
        "limits.default",
        &["connections", "max_connections", "in_flight", "concurrency", "conn"],
        "did you mean `concurrent`?",
    ),
    ("limits.default", &["sockets", "max_websockets", "ws"], "did you mean `websockets`?"),
    ("limits.failed_auth", &["requests", "limit", "max", "count"], "did you mean `attempts`?"),
    ("limits.failed_auth", &["window", "period", "interval", "ban", "block_for"], "did you mean `per`?"),
    ("connections", &["max_connections", "worker_connections", "limit"], "did you mean `max`?"),
    ("connections", &["per_ip", "max_per_ip", "limit_conn"], "did you mean `per_address`?"),
    ("connections", &["timeout", "tls_timeout", "ssl_handshake_timeout"], "did you mean `handshake_timeout`?"),
    ("shutdown", &["timeout", "grace_period", "graceful_timeout", "drain"], "did you mean `grace`?"),
    (
        "request",
        &["timeout", "read_timeout", "client_timeout"],
        "each phase has its own: header_timeout, body_idle_timeout, keepalive_timeout, write_timeout",
    ),
    (
        "request",
        &["client_max_body_size", "max_body", "max_body_size", "body_limit", "max_size"],
        "did you mean `max_body_bytes`?",
    ),
    (
        "request",
        &["client_header_timeout", "header_read_timeout", "read_header_timeout"],
        "did you mean `header_timeout`?",
    ),
    ("request", &["client_body_timeout", "body_timeout"], "did you mean `body_idle_timeout`?"),
    ("request", &["large_client_header_buffers", "header_size", "max_header_size"], "did you mean `max_header_bytes`?"),
    ("request", &["send_timeout"], "did you mean `write_timeout`?"),
    ("upstreams.*", &["timeout", "timeouts"], TIMEOUTS),
    (
        "upstreams.*",
        &["server", "url", "urls", "address", "nodes", "targets", "endpoints", "hosts", "backends"],
        "write `servers: [\"host:port\"]`",
    ),
    (
        "upstreams.*",
        &["read_timeout", "proxy_read_timeout", "request_timeout", "first_byte_timeout"],
        "did you mean `response_timeout` (to the first byte) or `idle_timeout` (between bytes)?",
    ),
    ("upstreams.*", &["send_timeout", "proxy_send_timeout"], "did you mean `write_timeout`?"),
    ("upstreams.*", &["proxy_connect_timeout", "dial_timeout"], "did you mean `connect_timeout`?"),
    ("upstreams.*", &["websocket_timeout", "tunnel_timeout", "ws_timeout"], "did you mean `websocket_idle_timeout`?"),
    ("upstreams.*", &["keepalive", "pool_idle_timeout", "keep_alive"], "did you mean `keepalive_timeout`?"),
    (
        "upstreams.*",
        &["load_balancer", "load_balancing", "lb_policy", "lb", "algorithm", "strategy", "policy"],
        "did you mean `balance`?",
    ),
    ("upstreams.*", &["health", "healthcheck", "health_checks", "checks"], "did you mean `health_check`?"),
    (
        "upstreams.*",
        &["retries", "retry", "max_fails", "attempts"],
        "retries are not settable: one, and only where nothing can happen twice",
    ),
    ("upstreams.*", &["sni", "ssl", "server_name", "ca", "cert", "key", "https"], "write `tls: { server_name: NAME }`"),
    (
        "upstreams.*",
        &["insecure_skip_verify", "proxy_ssl_verify", "verify"],
        "certificates are always verified; give `tls.ca` for one of your own",
    ),
    ("upstreams.*", &["protocol", "h2", "h2c", "grpc", "scheme"], "did you mean `http2: true`, or `tls`?"),
    ("upstreams.*", &["preserve_host", "host_header", "pass_host", "pass_host_header"], "did you mean `host`?"),
    ("upstreams.*", &["headers", "set_headers"], "headers are set by a route: `set_headers`"),
    ("upstreams.*.tls", &["sni", "name", "servername", "host"], "did you mean `server_name`?"),
    (
        "upstreams.*.tls",
        &["insecure_skip_verify", "insecure", "verify", "skip_verify"],
        "certificates are always verified; give `ca` for one of your own",
    ),
    ("upstreams.*.tls", &["ca_file", "root", "roots", "cafile"], "did you mean `ca`?"),
    ("upstreams.*.health_check", &["uri", "url", "http_path", "endpoint"], "did you mean `path`?"),
    ("upstreams.*.health_check", &["rise", "passes", "healthy_threshold"], "did you mean `healthy_after`?"),
    ("upstreams.*.health_check", &["fall", "fails", "unhealthy_threshold"], "did you mean `unhealthy_after`?"),
    (
        "upstreams.*.health_check",
        &["timeout"],
        "a check has the upstream's connect_timeout and the interval to answer in",
    ),
    (
        "routes[]",
        &["timeout", "timeouts"],
        "timeouts are the upstream's: `upstreams.NAME.response_timeout` and the like",
    ),
    ("routes[]", &["rate_limit", "ratelimit", "limit", "limit_req"], "did you mean `limits`?"),
    (
        "routes[]",
        &["prefix", "path_prefix", "location", "uri", "paths", "match", "rule", "pathprefix"],
        "did you mean `path` (it and all below) or `exact` (it alone)?",
    ),
    (
        "routes[]",
        &["proxy_pass", "service", "backend", "to", "url", "target", "upstreams"],
        "did you mean `upstream`, by its name under `upstreams`?",
    ),
    ("routes[]", &["hosts", "server_name", "domain", "hostname"], "write `host: NAME`; one route for each host"),
    ("routes[]", &["method"], "write `methods: [GET, POST]`"),
    ("routes[]", &["role", "groups", "allow_groups"], "write `roles: [NAME]`"),
    ("routes[]", &["scope"], "write `scopes: [NAME]`"),
    ("routes[]", &["strip_path", "rewrite", "strip", "stripprefix"], "write `strip_prefix: /path`"),
    (
        "routes[]",
        &["auth", "auth_required", "public", "require_key", "key_auth", "authentication"],
        "write `access: public` or `access: key`",
    ),
    ("routes[]", &["cors", "run_on_preflight", "preflight"], "write `cors_preflight: true`"),
    ("routes[]", &["headers", "add_headers", "proxy_set_header", "request_headers"], "did you mean `set_headers`?"),
    ("routes[]", &["identity", "identity_headers", "trusted_proxies"], IDENTITY_PER_ROUTE),
    ("routes[]", &["anonymous", "anonymous_consumer", "consumer"], NO_ANONYMOUS),
    ("routes[]", &["users", "allow_users", "user", "keys", "allow", "deny", "whitelist"], KEY_SIDE),
    (
        "routes[]",
        &["allow_from", "ip_restriction", "allowlist"],
        "addresses are bound to a key: `allow_from` in the key file",
    ),
    (
        "routes[]",
        &["plugins", "middlewares", "filters"],
        "there are no plugins; see `limits`, `set_headers`, `strip_prefix`",
    ),
    (
        "routes[]",
        &["websocket", "websockets", "upgrade", "enable_websocket"],
        "WebSockets pass on every route; a bound on them is `limits.default.websockets`",
    ),
    (
        "routes[]",
        &["priority", "order", "weight"],
        "order does not count: the most specific host, then exact, then the longest path",
    ),
    (
        "routes[]",
        &["max_body_bytes", "client_max_body_size"],
        "one bound holds for all routes: `request.max_body_bytes`",
    ),
    (
        "routes[].limits",
        &["concurrent", "websockets", "quota"],
        "a route bounds `requests` only; this one goes on the key or under `limits.default`",
    ),
    (
        "routes[].limits",
        &["rate", "limit", "rps", "requests_per_second", "second", "minute", "average"],
        "write `requests: 10` and `per: 1s`",
    ),
    ("routes[].limits", &["window", "period", "interval"], "did you mean `per`?"),
    ("log", &["file", "path", "output", "access_log", "target"], "did you mean `access`?"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_find_their_name_and_strangers_do_not() {
        let known = ["address", "tls"];
        assert_eq!(nearest("adress", known.into_iter()), Some("address"));
        assert_eq!(nearest("addr", known.into_iter()), Some("address"));
        assert_eq!(nearest("add", ["log"].into_iter()), None);
        assert_eq!(hint("listen[]", "Adress", &known), "did you mean `address`?");
        assert_eq!(hint("listen[]", "zzzzzzz", &known), "known here: address, tls");
        assert!(hint("listen[]", "port", &known).contains("address:"));
    }

    #[test]
    fn no_advice_is_given_twice_for_one_name() {
        for (index, (section, names, _)) in FOREIGN.iter().enumerate() {
            for name in *names {
                let twin = |(s, n, _): &&(&str, &[&str], &str)| s == section && n.contains(name);
                assert_eq!(FOREIGN[..index].iter().find(twin), None, "{section} {name}");
            }
        }
    }
}
