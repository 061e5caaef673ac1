//! Event source mapping.
