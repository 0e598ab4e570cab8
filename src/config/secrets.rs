//! Everything secret that was read for a config, whether it is in use or not.

use std::fmt;

use super::Secret;

/// Secrets that are remembered over reloads; those that were read first go first.
const KEPT_MAX: usize = 256;

/// Filled by whatever reads a secret from the file or the environment ([`super::section`]), so that none can be
/// forgotten. It says nothing about what is configured: two configs are the same whatever stands here.
#[derive(Clone, Default)]
pub struct Secrets(Vec<Secret>);

impl Secrets {
    pub(super) fn new(secrets: Vec<Secret>) -> Self {
        Self(secrets)
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(Secret::reveal)
    }

    /// With those of an earlier config: what was written down with them is still there.
    pub(super) fn and(&self, earlier: &Self) -> Self {
        let mut all = self.0.clone();
        all.extend(earlier.0.iter().filter(|secret| !self.0.contains(secret)).cloned());
        all.truncate(KEPT_MAX);
        Self(all)
    }
}

impl PartialEq for Secrets {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} secrets", self.0.len())
    }
}
