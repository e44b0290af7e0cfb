//! HTTP/2 towards clients: each stream becomes the same canonical head bytes as an HTTP/1 request and takes the same path.
