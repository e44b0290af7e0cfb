//! Every metric as a typed field of one struct over an owned registry; label values come from closed sets (design section 7).
