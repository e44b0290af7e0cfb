//! Integration tests: the real binary between bytes on sockets. Each module is one theme; what every test needs is in
//! `support`, and what must always hold is checked there on every response.

mod support;

mod auth; // who passes, who does not, and what each is told
