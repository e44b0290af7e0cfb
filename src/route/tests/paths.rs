//! Every path trick of the research, as rows of (path, outcome).

use super::{outcome, route, router};
use crate::route::Route;
use crate::route::router::Router;

/// A public and a private half, and the rest.
const SPLIT: &[&str] = &["/public/", "/private/", "/"];
/// One owner for everything.
const ONE: &[&str] = &["/"];
/// The contract's tree.
const CONTRACT: &[&str] = &["=/healthz", "/v1/admin/", "/v1/"];
/// A page that is open while what lies under it is not (Tiled).
const TILED: &[&str] = &["=/api/v1/", "/api/v1"];
const MIXED: &[&str] = &["/API/", "/"];

const AMBIGUOUS: &str = "ambiguous_path";
const DOTS: &str = "path_dot_segment";
const CONTROL: &str = "path_control";
const ESCAPE: &str = "path_escape";
const OVERLONG: &str = "path_overlong";

#[test]
fn every_trick_of_the_research() {
    #[rustfmt::skip]
    let rows: &[(&[&str], &str, &str)] = &[
        // Plain paths, boundaries, closing slashes.
        (SPLIT, "/", "/"),
        (SPLIT, "/public", "/public/"),
        (SPLIT, "/public/", "/public/"),
        (SPLIT, "/public/x", "/public/"),
        (SPLIT, "/publicity/secret", "/"),
        (SPLIT, "/public.evil", "/"),
        (SPLIT, "/public-x/y", "/"),
        (SPLIT, "/public/private/x", "/public/"),
        (SPLIT, "/private", "/private/"),
        (SPLIT, "/private/", "/private/"),
        (SPLIT, "/a:b@c,d=e+f$g&h!i'j(k)l*m~n_o-p.q", "/"),
        (SPLIT, "/public/...", "/public/"),
        (SPLIT, "/public/.hidden/..x/x..", "/public/"),
        (CONTRACT, "/healthz", "=/healthz"),
        (CONTRACT, "/healthz/", "-"),
        (CONTRACT, "/healthz/x", "-"),
        (CONTRACT, "/v1/admin", "/v1/admin/"),
        (CONTRACT, "/v1/admin/x", "/v1/admin/"),
        (CONTRACT, "/v1/administrator", "/v1/"),
        (CONTRACT, "/v1x", "-"),
        (CONTRACT, "/v1", "/v1/"),
        (CONTRACT, "/", "-"),
        (TILED, "/api/v1/", "=/api/v1/"),
        (TILED, "/api/v1", "/api/v1"),
        (TILED, "/api/v1/x", "/api/v1"),
        (TILED, "/api/v1//", AMBIGUOUS),
        (TILED, "/api/v1/%2e", AMBIGUOUS),
        (TILED, "/api/v1/;x", AMBIGUOUS),
        (TILED, "/api/v1/x/%2e%2e/", AMBIGUOUS),
        (&["=/public", "/public/"], "/public/x/%2e%2e", AMBIGUOUS),
        // Dot segments as sent.
        (SPLIT, "/public/../private", DOTS),
        (SPLIT, "/./private", DOTS),
        (SPLIT, "/private/.", DOTS),
        (SPLIT, "/private/..", DOTS),
        (SPLIT, "/..", DOTS),
        (SPLIT, "/public/..;x=y/private", DOTS),
        (SPLIT, "/public/..;/private", DOTS),
        (SPLIT, "/public/.;x/private", DOTS),
        (SPLIT, "/public/..\\private", DOTS),
        (SPLIT, "/public\\..\\private", DOTS),
        (ONE, "/a/../b", DOTS),
        (ONE, "/a/..;/b", DOTS),
        (ONE, "/a\\..\\b", DOTS),
        // Encoded dots and slashes.
        (SPLIT, "/public/%2e%2e/private", AMBIGUOUS),
        (SPLIT, "/public/%2E%2e/private", AMBIGUOUS),
        (SPLIT, "/public/.%2e/private", AMBIGUOUS),
        (SPLIT, "/public/%2e./private", AMBIGUOUS),
        (SPLIT, "/public/..%2fprivate", AMBIGUOUS),
        (SPLIT, "/public/..%2Fprivate", AMBIGUOUS),
        (SPLIT, "/public/..%5cprivate", AMBIGUOUS),
        (SPLIT, "/public/..%5Cprivate", AMBIGUOUS),
        (SPLIT, "/public%2f..%2fprivate", AMBIGUOUS),
        (SPLIT, "/public%2fx", AMBIGUOUS),
        (SPLIT, "/%70ublic/x", AMBIGUOUS),
        (SPLIT, "/p%72ivate", AMBIGUOUS),
        (SPLIT, "/%2fprivate", AMBIGUOUS),
        (SPLIT, "/public/%2e%2e%3bx/private", AMBIGUOUS),
        (SPLIT, "/public/%2e%2e/public/x", "/public/"),
        (ONE, "/a/%2e%2e/b", "/"),
        (SPLIT, "/public/x%2e%2ey", "/public/"),
        // Dots decoded, slashes not: URL parsers and careful servers.
        (&["/a/", "/a/b/"], "/a/x%2fy/%2e%2e/b", AMBIGUOUS),
        (&["/a/", "/a/b/"], "/a/x%2fy%3b/.%2e/b", AMBIGUOUS),
        (&["/a/", "/a/b/"], "/a/x%2fy/..%5cb", AMBIGUOUS),
        // Decoded twice and more.
        (SPLIT, "/public/%252e%252e/private", AMBIGUOUS),
        (SPLIT, "/public/%252e%252e%252fprivate", AMBIGUOUS),
        (SPLIT, "/public/..%252fprivate", AMBIGUOUS),
        (SPLIT, "/public/..%255cprivate", AMBIGUOUS),
        (SPLIT, "/public/%25252e%25252e/private", AMBIGUOUS),
        (SPLIT, "/public/%2525252e/x", AMBIGUOUS),
        (ONE, "/a%2525252eb", AMBIGUOUS),
        (ONE, "/a%25252eb", "/"),
        (SPLIT, "/public/%%32%65%%32%65/private", ESCAPE),
        (SPLIT, "/public/%25%32%65%25%32%65/private", AMBIGUOUS),
        (SPLIT, "/public/100%25", "/public/"),
        (SPLIT, "/public/100%25%20sure", "/public/"),
        // Slashes and backslashes.
        (SPLIT, "//private/x", AMBIGUOUS),
        (SPLIT, "/public//private", "/public/"),
        (SPLIT, "/public//x//", "/public/"),
        (SPLIT, "//public/private/x", AMBIGUOUS),
        (&["/private/", "/"], "//host/private/x", AMBIGUOUS),
        (&["/private/", "/"], "/\\host/private/x", AMBIGUOUS),
        (&["/private/", "/"], "///host/private/x", AMBIGUOUS),
        (&["/private/", "/"], "/%2fhost/private/x", AMBIGUOUS),
        (&["/private/", "/"], "//host/public/x", "/"),
        (ONE, "//x//y", "/"),
        (ONE, "/a\\b", "/"),
        (SPLIT, "/public\\x", AMBIGUOUS),
        (SPLIT, "/public/x\\y", "/public/"),
        (SPLIT, "\\public/x", "path_form"),
        // Parameters.
        (SPLIT, "/private;/public/x", AMBIGUOUS),
        (SPLIT, "/private;x=y", AMBIGUOUS),
        (SPLIT, "/;/private", AMBIGUOUS),
        (SPLIT, "/public;x/y", AMBIGUOUS),
        (SPLIT, "/public/a;v=1/b;w=2", "/public/"),
        (SPLIT, "/public/a%3bb", "/public/"),
        (&["=/public/a", "/public/"], "/public/a;x/b", AMBIGUOUS),
        // A question mark or fragment sign that comes out of an escape.
        (SPLIT, "/private%3fx", AMBIGUOUS),
        (SPLIT, "/private%23x", AMBIGUOUS),
        (SPLIT, "/private%253fx", AMBIGUOUS),
        (SPLIT, "/public/what%3f", "/public/"),
        // Case.
        (SPLIT, "/PRIVATE/x", AMBIGUOUS),
        (SPLIT, "/Public/x", AMBIGUOUS),
        (SPLIT, "/public/README", "/public/"),
        (SPLIT, "/Other", "/"),
        (SPLIT, "/%50rivate", AMBIGUOUS),
        (SPLIT, "/public/%2E%2E/PRIVATE", AMBIGUOUS),
        (MIXED, "/API/x", "/API/"),
        (MIXED, "/api/x", AMBIGUOUS),
        (MIXED, "/other", "/"),
        (MIXED, "/%61pi/x", AMBIGUOUS),
        // Escapes that some clients need.
        (CONTRACT, "/v1/group%2fproject", "/v1/"),
        (CONTRACT, "/v1/projects/group%2Fsub%2Fproject/issues", "/v1/"),
        (CONTRACT, "/v1/@scope%2fname", "/v1/"),
        (CONTRACT, "/v1/admin%2fx", AMBIGUOUS),
        (CONTRACT, "/v1/%61dmin/x", AMBIGUOUS),
        (CONTRACT, "/v1/x%2f..%2fadmin", AMBIGUOUS),
        (CONTRACT, "/v1/%C3%A9t%C3%A9/%E6%97%A5", "/v1/"),
        (CONTRACT, "/v1/M%FCnchen", "/v1/"),
        (CONTRACT, "/v1/a%20b", "/v1/"),
        (CONTRACT, "/healthz%2f", "-"),
        (CONTRACT, "/healthz%20", "-"),
        // Controls, fragments, broken escapes, overlong forms.
        (ONE, "/a%00b", CONTROL),
        (ONE, "/a%0d%0aX: y", CONTROL),
        (ONE, "/a%0d%0ab", CONTROL),
        (ONE, "/a%1fb", CONTROL),
        (ONE, "/a%7fb", CONTROL),
        (ONE, "/a%2500b", CONTROL),
        (ONE, "/a%252500b", CONTROL),
        (ONE, "/a b", CONTROL),
        (ONE, "/a\tb", CONTROL),
        (ONE, "/a\0b", CONTROL),
        (ONE, "/a\x7fb", CONTROL),
        (ONE, "/admin#x", "path_fragment"),
        (ONE, "/a?b", "path_form"),
        (ONE, "", "path_form"),
        (ONE, "*", "path_form"),
        (ONE, "a/b", "path_form"),
        (ONE, "http://h/public/../private", "path_form"),
        (ONE, "/%zz", ESCAPE),
        (ONE, "/%4", ESCAPE),
        (ONE, "/%", ESCAPE),
        (ONE, "/%u002e%u002e/x", ESCAPE),
        (ONE, "/% 2e", ESCAPE),
        (ONE, "/%+2e", ESCAPE),
        (SPLIT, "/public/%c0%ae%c0%ae/private", OVERLONG),
        (ONE, "/%c0%af", OVERLONG),
        (ONE, "/%c1%9c", OVERLONG),
        (ONE, "/%e0%80%ae", OVERLONG),
        (ONE, "/%f0%80%80%ae", OVERLONG),
        (ONE, "/%f8%80%80%80%ae", OVERLONG),
        (ONE, "/%fc%80%80%80%80%ae", OVERLONG),
        (ONE, "/%25c0%25ae", OVERLONG),
        (ONE, "/é", "path_not_ascii"),
    ];
    assert!(rows.len() >= 80);
    let wrong: Vec<_> = rows
        .iter()
        .map(|(routes, path, want)| (outcome(&router(routes), None, path, "GET"), *path, *want))
        .filter(|(got, _, want)| got != want)
        .collect();
    assert!(wrong.is_empty(), "(got, path, wanted): {wrong:#?}");
}

#[test]
fn raw_bytes_outside_ascii_are_refused() {
    for byte in 0x80..=0xffu8 {
        assert_eq!(outcome(&router(ONE), None, [b'/', byte], "GET"), "path_not_ascii");
    }
}

#[test]
fn every_control_is_refused_raw_and_encoded() {
    for byte in (0..=0x1fu8).chain([0x7f]) {
        assert_eq!(outcome(&router(ONE), None, [b'/', byte], "GET"), CONTROL, "{byte:#x}");
        assert_eq!(outcome(&router(ONE), None, format!("/%{byte:02x}"), "GET"), CONTROL, "{byte:#x}");
        assert_eq!(outcome(&router(ONE), None, format!("/%25{byte:02X}"), "GET"), CONTROL, "{byte:#x}");
    }
}

#[test]
fn the_work_on_one_path_is_bounded_in_readings_and_in_bytes() {
    let tricks = "x;a/b//c\\d%2fe%3ff";
    #[rustfmt::skip]
    let rows = [
        ("many readings", "//a".repeat(70), AMBIGUOUS),
        ("many readings of a long path", "//a".repeat(2000), AMBIGUOUS),
        ("several readings", format!("/{tricks}"), "/"),
        ("several readings of a long path", format!("/{}{tricks}", "a".repeat(20_000)), AMBIGUOUS),
        ("few readings of a long path", format!("/{}", "group%2fproject/".repeat(4000)), "/"),
    ];
    for (what, path, want) in rows {
        assert_eq!(outcome(&router(ONE), None, &path, "GET"), want, "{what}");
    }
}

fn stripping(path: &str, prefix: &str) -> Route {
    Route { strip_prefix: prefix.into(), ..route(path) }
}

#[test]
fn a_prefix_is_cut_at_a_segment_boundary_from_the_bytes_as_sent() {
    let rows: &[(&str, &str, Option<&str>)] = &[
        ("", "/api/x", Some("/api/x")),
        ("/", "/api/x", Some("/api/x")),
        ("/api", "/api", Some("/")),
        ("/api", "/api/", Some("/")),
        ("/api", "/api/x%2fy", Some("/x%2fy")),
        ("/api/", "/api/x", Some("/x")),
        ("/api/", "/api", Some("/")),
        ("/api", "/apix", None),
        ("/api", "/%61pi/x", None),
        ("/api", "/API/x", None),
        ("/api", "//api/x", None),
        ("/api", "/other", None),
    ];
    for (prefix, path, want) in rows {
        let got = stripping("/api/", prefix).forward_path(path.as_bytes()).ok().map(<[u8]>::to_vec);
        assert_eq!(got.as_deref(), want.map(str::as_bytes), "{prefix} from {path}");
    }
}

#[test]
fn what_is_left_after_the_cut_is_read_in_every_way_too() {
    let routes = vec![
        stripping("/api/", "/api"),
        Route { name: "other".into(), ..stripping("/api/secret/", "/api") },
        Route { name: "twice".into(), ..stripping("/api/api/", "/api") },
    ];
    let router = Router::new(routes).expect("valid");
    let rows = [
        ("/api/x", "/api/"),
        ("/api//x", "/api/"),
        ("/api/x//secret", "/api/"),
        // The upstream, which sees `//h/secret`, may take `h` for a host.
        ("/api//h/secret", AMBIGUOUS),
        // Above the gate's root the gate leaves the prefix; the upstream, whose root is there, stays.
        ("/api/%2e%2e/api/x", AMBIGUOUS),
        ("/api/x/%2e%2e/y", "/api/"),
    ];
    for (path, want) in rows {
        assert_eq!(outcome(&router, None, path, "GET"), want, "{path}");
    }
}
