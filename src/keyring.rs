//! An immutable, indexed set of key records that answers "whose key is this?" with a principal or the reason there is
//! none. Swapped whole at a reload; a request loads it once.

pub mod file;
pub mod reload;
