//! Header names that the gate reads or sets must not meet: a name that folds to another one would be stripped with it,
//! or pass for it at a careless upstream (design rule 3, decision 24).

use super::decode::Decoder;
use super::name::fold;
use super::place::Place;

/// A header name and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Named {
    folded: String,
    lower: String,
    place: Place,
}

impl Named {
    pub(super) fn new(name: &str, place: &Place) -> Self {
        Self { folded: fold(name), lower: name.to_ascii_lowercase(), place: place.clone() }
    }
}

/// Reports names that meet among the identity headers, the credential headers and one route's `set_headers`.
pub(super) fn check(decoder: &Decoder<'_>, identity: &[Named], credentials: &[Named], set: &[Vec<Named>]) {
    for (index, name) in identity.iter().enumerate() {
        let twin = identity.iter().take(index).find(|other| other.folded == name.folded);
        report(decoder, name, twin, "one header carries one thing");
    }
    for (index, name) in credentials.iter().enumerate() {
        // The same spelling twice is told with the sources themselves.
        let twin = |other: &&Named| other.folded == name.folded && other.lower != name.lower;
        report(decoder, name, credentials.iter().take(index).find(twin), "keep one spelling");
        let twin = identity.iter().find(|other| other.folded == name.folded);
        report(decoder, name, twin, "a client's key would pass for an identity");
    }
    for names in set {
        for (index, name) in names.iter().enumerate() {
            let same = |other: &&Named| other.folded == name.folded;
            report(decoder, name, names.iter().take(index).find(same), "set each header once");
            report(decoder, name, identity.iter().find(same), "the identity is the gate's to tell");
            // The upstream's own key may well have the name under which ours came in.
            let respelled = |other: &&Named| same(other) && other.lower != name.lower;
            report(decoder, name, credentials.iter().find(respelled), "spell it as the source does");
        }
    }
}

fn report(decoder: &Decoder<'_>, name: &Named, twin: Option<&Named>, hint: &str) {
    let Some(twin) = twin else { return };
    let (at, other) = if name.place.is_implied() { (twin, name) } else { (name, twin) };
    let path = &other.place.path;
    let which = if other.place.is_implied() {
        format!("{path}, by default {}", other.lower)
    } else {
        format!("{path} in line {}", other.place.line)
    };
    let what = format!("is the same header as {which} (case and punctuation do not count)");
    decoder.problem(&at.place, what, Some(hint));
}
