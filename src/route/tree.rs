//! Paths to places: a tree of path segments, in which one walk down a path finds its exact owner or else its longest prefix.

use super::PathPattern;

/// Stands for one host and path pattern of the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlaceId(pub(super) usize);

/// How letters are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Case {
    /// Byte for byte.
    AsSent,
    /// The path in lower case; the tree's patterns must be in lower case too.
    Folded,
}

/// The patterns of one host.
#[derive(Debug, Default)]
pub(super) struct Tree {
    root: Node,
}

#[derive(Debug, Default)]
struct Node {
    /// Sorted by segment.
    children: Vec<(Box<[u8]>, Self)>,
    exact: Option<PlaceId>,
    below: Option<PlaceId>,
}

impl Tree {
    /// The place of `pattern`, to be read or filled.
    pub(super) fn slot(&mut self, pattern: &PathPattern) -> &mut Option<PlaceId> {
        match pattern {
            PathPattern::Exact(path) => &mut self.root.descend(segments(path.as_bytes())).exact,
            PathPattern::Below(path) => match path.trim_end_matches('/') {
                "" => &mut self.root.below,
                prefix => &mut self.root.descend(segments(prefix.as_bytes())).below,
            },
        }
    }

    /// The place that owns `path`: the one of exactly this path, else the one of its longest prefix.
    pub(super) fn find(&self, path: &[u8], case: Case) -> Option<PlaceId> {
        let mut node = &self.root;
        let mut longest = node.below;
        for segment in segments(path) {
            match node.child(segment, case) {
                Some(next) => node = next,
                None => return longest,
            }
            longest = node.below.or(longest);
        }
        node.exact.or(longest)
    }
}

impl Node {
    fn descend<'s>(&mut self, segments: impl Iterator<Item = &'s [u8]>) -> &mut Self {
        segments.fold(self, |node, segment| {
            let at = node.children.partition_point(|(own, _)| own.as_ref() < segment);
            if node.children.get(at).is_none_or(|(own, _)| own.as_ref() != segment) {
                node.children.insert(at, (Box::from(segment), Self::default()));
            }
            match node.children.get_mut(at) {
                Some((_, child)) => child,
                None => unreachable!("a child was put at this position"),
            }
        })
    }

    fn child(&self, segment: &[u8], case: Case) -> Option<&Self> {
        let found = match case {
            Case::AsSent => self.children.binary_search_by(|(own, _)| own.as_ref().cmp(segment)),
            Case::Folded => self
                .children
                .binary_search_by(|(own, _)| own.iter().copied().cmp(segment.iter().map(u8::to_ascii_lowercase))),
        };
        self.children.get(found.ok()?).map(|(_, child)| child)
    }
}

/// What stands between the slashes of `path`, which begins with one; a closing slash gives an empty last segment.
fn segments(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').skip(1)
}
