//! The on-disk key file: strict read, all problems at once.
