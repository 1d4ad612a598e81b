//! Chunks to Arrow: DuckDB's own appender, with functions of ours where most of its time goes.
#pragma once

#include "duckdb/common/arrow/appender/append_data.hpp"
#include "duckdb/common/types/data_chunk.hpp"

namespace duckling {

using ArrowColumns = duckdb::vector<duckdb::unique_ptr<duckdb::ArrowAppendData>>;

//! Has the columns, and what is nested in them, append values of fixed width and strings with functions of ours, which write
//! what DuckDB's do.
void AppendFaster(ArrowColumns &columns);

//! How much memory the buffers of an array take, and those of its children.
class ArrowSizes {
public:
	ArrowSizes() = default;
	explicit ArrowSizes(ArrowColumns &columns);

	//! Takes as much memory for columns of the same types.
	void Reserve(ArrowColumns &columns) const;

private:
	duckdb::vector<duckdb::vector<duckdb::idx_t>> buffers;
	duckdb::vector<ArrowSizes> children;
};

} // namespace duckling
