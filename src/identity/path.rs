//! Cutting a route's prefix from a path by its raw bytes.

/// `path` without `prefix`, where it begins with it at a segment boundary; otherwise as it is. The rest keeps its bytes and
/// its leading slash; nothing left is `/`. The prefix is found encoded too, as routing finds it.
pub(super) fn without_prefix<'a>(path: &'a [u8], prefix: &str) -> &'a [u8] {
    let prefix = prefix.trim_end_matches('/').as_bytes();
    match path.strip_prefix(prefix).or_else(|| after(path, prefix)) {
        Some([]) => b"/",
        Some(rest @ [b'/', ..]) => rest,
        _ => path,
    }
}

/// What follows `prefix` in `path`, decoding `path` on the way.
fn after<'a>(mut path: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    for want in prefix {
        let (byte, rest) = match path {
            [b'%', high, low, rest @ ..] => (hex(*high)? << 4 | hex(*low)?, rest),
            [byte, rest @ ..] => (*byte, rest),
            [] => return None,
        };
        path = (byte == *want).then_some(rest)?;
    }
    Some(path)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_goes_at_a_segment_boundary() {
        for (path, prefix, want) in [
            ("/api/v1", "", "/api/v1"),
            ("/api/v1", "/", "/api/v1"),
            ("/api/v1", "/api", "/v1"),
            ("/api/v1", "/api/", "/v1"),
            ("/api", "/api", "/"),
            ("/api", "/api/", "/"),
            ("/api/", "/api", "/"),
            ("/apis/v1", "/api", "/apis/v1"),
            ("/v1/api/x", "/api", "/v1/api/x"),
            ("/%61pi/v%31", "/api", "/v%31"),
            ("/api%2Fv1", "/api", "/api%2Fv1"),
            ("/api/a%2Fb//c", "/api", "/a%2Fb//c"),
            ("/a%", "/api", "/a%"),
            ("/ap", "/api", "/ap"),
        ] {
            let got = without_prefix(path.as_bytes(), prefix);
            assert_eq!(std::str::from_utf8(got).unwrap(), want, "{path} without {prefix}");
        }
    }
}
