//! After a 101: bytes both ways, frame boundaries followed only as far as a polite close needs.
