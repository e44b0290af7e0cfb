//! The TLS files of an upstream, followed on disk as those of the listeners are: new ones that are good, all together, are
//! used for new connections within a second; bad ones change nothing but a line in the log.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use super::client_tls::{ClientFiles, ClientTls, FilesDigest};
use super::{TlsSettings, Upstream};
use crate::tls::reload::{keep_looking, stamp};
use crate::tls::watch::{Look, Watch};

/// Follows the files of `upstream` for ever; `told` is called when new ones came into force.
pub async fn keep_current(upstream: Arc<Upstream>, told: impl Fn() + Send) {
    let follows = upstream.settings.tls.as_ref().is_some_and(|tls| tls.ca.is_some() || tls.client.is_some());
    if follows {
        keep_looking(move || Follower::new(upstream.clone()), Follower::look, |()| told()).await;
    }
}

/// What is known of the files of one upstream.
pub(super) struct Follower {
    upstream: Arc<Upstream>,
    watch: Watch<3>,
    /// What was refused last: the same fault is not told twice.
    refused: Option<(Option<FilesDigest>, String)>,
}

impl Follower {
    /// Begins to watch; the first looks read the files once more, so that nothing since they were read is missed.
    pub(super) fn new(upstream: Arc<Upstream>) -> Self {
        Self { upstream, watch: Watch::default(), refused: None }
    }

    /// One look; puts in force what changed and is good, and then has one item. Blocks on the file system.
    pub(super) fn look(&mut self, now: Instant) -> Vec<()> {
        let upstream = self.upstream.clone();
        let settings = &upstream.settings;
        let Some(tls) = &settings.tls else { return Vec::new() };
        let seen = stamps(tls);
        if !self.watch.look(seen, now) {
            return Vec::new();
        }
        let read = ClientFiles::read(tls);
        if stamps(tls) != seen {
            // Written while it was read. The next look sees other stamps and waits for them to hold still.
            return Vec::new();
        }
        let digest = read.as_ref().ok().map(ClientFiles::digest);
        if digest.is_some() && digest == upstream.era().tls.as_ref().map(ClientTls::digest) {
            self.refused = None;
            return Vec::new();
        }
        match read.and_then(|files| ClientTls::parse(tls, settings.http2, &files)) {
            Ok(client) => {
                self.refused = None;
                upstream.renew(client);
                tracing::info!(upstream = %settings.name, "TLS files of an upstream replaced");
                vec![()]
            }
            Err(error) => {
                let refused = Some((digest, error.message));
                if self.refused != refused {
                    let error = refused.as_ref().map(|(_, message)| message.as_str());
                    tracing::error!(upstream = %settings.name, error, "TLS files of an upstream refused, the old ones stay");
                    self.refused = refused;
                }
                Vec::new()
            }
        }
    }
}

fn stamps(tls: &TlsSettings) -> Look<3> {
    let (cert, key) = tls.client.as_ref().map(|(cert, key)| (cert.as_path(), key.as_path())).unzip();
    let stamp = |path: Option<&Path>| path.and_then(stamp);
    [stamp(tls.ca.as_deref()), stamp(cert), stamp(key)]
}
