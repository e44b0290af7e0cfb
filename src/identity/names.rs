//! Which header names the gate keeps for itself, compared folded: lower case, and every byte that is not a letter or digit
//! counted as `-`, since CGI-like upstreams read `X_Auth.User` and `X-Auth-User` as one name (design rule 3).

/// What is done with a client's header of a reserved name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Not reserved: passes.
    Free,
    /// Never passes.
    Drop,
    /// Passes in its exact spelling from a trusted proxy.
    Forwarded,
    /// A credential header: passes in its exact spelling where source n belongs to the upstream.
    Source(usize),
    /// `Authorization` as a credential source.
    Authorization,
    /// `Cookie`.
    Cookie,
    /// `Referer`.
    Referer,
    /// `Sec-WebSocket-Protocol`.
    Protocols,
    /// `TE`.
    Te,
    /// `Trailer`.
    Trailer,
    /// A method in place of the one on the request line.
    MethodOverride,
}

/// Reserved names, by length.
#[derive(Clone, Debug)]
pub(super) struct Names {
    by_length: Vec<Vec<(Box<[u8]>, Class)>>,
}

/// Families of which every member is reserved, whatever else it is called.
const FAMILIES: [(&[u8], Class); 2] = [(b"x-forwarded-", Class::Forwarded), (b"proxy-", Class::Drop)];

impl Names {
    /// These names; of two that fold alike the first counts.
    pub(super) fn new(names: impl IntoIterator<Item = (Box<str>, Class)>) -> Self {
        let mut by_length: Vec<Vec<(Box<[u8]>, Class)>> = Vec::new();
        for (name, class) in names {
            let name = name.into_boxed_bytes();
            if by_length.len() <= name.len() {
                by_length.resize_with(name.len() + 1, Vec::new);
            }
            if let Some(bucket) = by_length.get_mut(name.len())
                && !bucket.iter().any(|(known, _)| folds_to(known, &name))
            {
                bucket.push((name, class));
            }
        }
        Self { by_length }
    }

    /// What is done with `name`. A spelling that only folds to a reserved name never passes.
    pub(super) fn class(&self, name: &[u8]) -> Class {
        let bucket = self.by_length.get(name.len()).map(Vec::as_slice).unwrap_or_default();
        if let Some((reserved, class)) = bucket.iter().find(|(reserved, _)| folds_to(name, reserved)) {
            return if name.eq_ignore_ascii_case(reserved) { *class } else { Class::Drop };
        }
        for (family, class) in FAMILIES {
            if let Some(start) = name.get(..family.len())
                && folds_to(start, family)
            {
                return if start.eq_ignore_ascii_case(family) { class } else { Class::Drop };
            }
        }
        Class::Free
    }
}

/// Whether two names fold to the same.
pub(super) fn folds_to(name: &[u8], other: &[u8]) -> bool {
    name.len() == other.len() && name.iter().zip(other).all(|(a, b)| fold(*a) == fold(*b))
}

fn fold(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_reserved_name_is_known() {
        let names = Names::new([("x-auth-user".into(), Class::Drop), ("x-api-key".into(), Class::Source(3))]);
        for separator in b"!#$%&'*+-.^_`|~".iter().map(|byte| char::from(*byte)) {
            let name = format!("X{separator}aUTH{separator}User");
            assert_eq!(names.class(name.as_bytes()), Class::Drop, "{name}");
            let twin = format!("x{separator}api-KEY");
            let want = if separator == '-' { Class::Source(3) } else { Class::Drop };
            assert_eq!(names.class(twin.as_bytes()), want, "{twin}");
            let member = format!("X{separator}Forwarded{separator}Anything");
            let want = if separator == '-' { Class::Forwarded } else { Class::Drop };
            assert_eq!(names.class(member.as_bytes()), want, "{member}");
        }
        for free in ["x-auth-use", "x-auth-users", "xx-auth-user", "", "-", "x-api-kez", "proxyx"] {
            assert_eq!(names.class(free.as_bytes()), Class::Free, "{free}");
        }
    }
}
