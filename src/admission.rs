//! The decision: a request, the keyring, the limits and the time give `Admitted` or a refusal. Only this room can make an
//! `Admitted`, and only an `Admitted` request can be forwarded (design rule 1).
