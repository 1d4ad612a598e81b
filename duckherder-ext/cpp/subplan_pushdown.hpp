//! Parts of a mixed query that reduce what a duckling has (aggregates, DISTINCT, LIMIT) run there.
#pragma once

namespace duckdb {
struct DBConfig;
}

namespace duckherder {

void RegisterSubplanPushdown(duckdb::DBConfig &config);

} // namespace duckherder
