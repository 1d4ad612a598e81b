//! The SQL functions and pragmas of the extension.
#pragma once

namespace duckdb {
class ExtensionLoader;
}

namespace duckherder {

void RegisterFunctions(duckdb::ExtensionLoader &loader);

} // namespace duckherder
