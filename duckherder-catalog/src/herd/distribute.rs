//! Which part of a query runs where.
