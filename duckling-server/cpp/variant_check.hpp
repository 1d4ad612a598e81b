//! Whether vectors of VARIANT that came from elsewhere are what DuckDB takes them for.
#pragma once

#include "duckdb.hpp"

namespace duckherder {

//! Checks all valid rows of a flat vector of VARIANT: indexes, offsets and lengths, and those values that DuckDB's own
//! functions believe. Throws InvalidInputException.
//!
//! The layout is that of `VariantVectorData`: of each row the dictionary of `keys`; `values`, each a type and an offset into
//! `data`, the first being the row's own; and `children`, what objects and arrays refer to.
void CheckVariants(duckdb::Vector &variants);

} // namespace duckherder
