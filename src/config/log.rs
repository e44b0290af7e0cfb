//! `log`: how much, in what form, and where access lines go.

use super::certificate::path;
use super::decode::{Decoder, Section};
use super::defaults;
use super::problem::Fault;
use super::quantity::choice;
use crate::access_log::{Format, Level, Settings, Target};

/// `log`.
pub(super) fn decode(top: &mut Section<'_>) -> Settings {
    let default = Settings { level: defaults::LOG_LEVEL, format: None, access: defaults::LOG_ACCESS };
    let Some(mut section) = top.section("log") else { return default };
    let decoder = section.decoder;
    let settings = Settings {
        level: section.or("level", default.level, choice(&LEVELS)),
        format: section.or("format", default.format, choice(&FORMATS)),
        access: section.or("access", default.access, |text| access(decoder, text)),
    };
    section.finish();
    settings
}

fn access(decoder: &Decoder<'_>, text: &str) -> Result<Target, Fault> {
    match text {
        "stdout" => Ok(Target::Stdout),
        "off" => Ok(Target::Off),
        "on" | "true" | "yes" | "false" | "no" | "none" | "stderr" | "-" | "syslog" => {
            Err(Fault::new("is no place for access lines").hint("write stdout, off, or the path of a file"))
        }
        _ => path(decoder, text).map(Target::File),
    }
}

pub(super) const LEVELS: [(&str, Level); 5] = [
    ("error", Level::Error),
    ("warn", Level::Warn),
    ("info", Level::Info),
    ("debug", Level::Debug),
    ("trace", Level::Trace),
];

/// `auto` is JSON when standard output is no terminal.
pub(super) const FORMATS: [(&str, Option<Format>); 3] =
    [("auto", None), ("json", Some(Format::Json)), ("text", Some(Format::Text))];
