//! Lets joins tell remote scans more of the keys they look for.
#pragma once

#include "duckdb/main/config.hpp"

namespace duckherder {

//! Registers it with DuckDB's optimizer.
void RegisterJoinKeys(duckdb::DBConfig &config);

} // namespace duckherder
