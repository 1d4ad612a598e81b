//! UPDATE, DELETE, MERGE, and INSERT with RETURNING or ON CONFLICT, of a duckling's table with rows of this process: the
//! rows go up into temporary tables, and one statement on the duckling does the rest.
#pragma once

namespace duckdb {
struct DBConfig;
}

namespace duckherder {

void RegisterLocalRows(duckdb::DBConfig &config);

} // namespace duckherder
