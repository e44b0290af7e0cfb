//! Notices a changed key file and swaps in a new keyring, or keeps the old one and complains.
