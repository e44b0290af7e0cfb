//! Deadlines for every phase of a connection, and bounds on what strangers can hold (design rule 10).
