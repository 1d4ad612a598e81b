//! Types that Arrow has no exact counterpart of, and travel as what DuckDB keeps them in.
//!
//! Arrow's union cannot tell a NULL from a member that is NULL, and Parquet's variant knows neither unsigned and 128-bit
//! integers nor intervals. In DuckDB both are structs (`UnionVector`, `VariantVector`). Arrow's interval counts nanoseconds in 64
//! bits, which are 292 years; DuckDB's has months, days and microseconds (`interval_t`). Between a duckling and this extension, and
//! between the nodes of a herd, they go as such structs, wherever they are nested in a column.
#pragma once

#include "duckdb.hpp"

namespace duckherder {

//! What a column of type `type` travels as: the type itself, with a struct for each UNION, VARIANT and INTERVAL in it. That of a UNION
//! is (tag UTINYINT, then the members as "0", "1" …), that of a VARIANT has its own fields.
duckdb::LogicalType StoredType(const duckdb::LogicalType &type);
duckdb::vector<duckdb::LogicalType> StoredTypes(const duckdb::vector<duckdb::LogicalType> &types);

//! The same values as their stored type. Nothing is copied but the entries of lists, and intervals.
duckdb::Vector ToStored(const duckdb::Vector &vector);

//! Values that arrived as the stored type of `type`. They are checked: DuckDB believes what is in its own vectors.
//! Throws InvalidInputException.
duckdb::Vector FromStored(const duckdb::Vector &vector, const duckdb::LogicalType &type);

//! Makes `result` of what arrived as Arrow: the same, what is cast to it, or its stored type.
void FromArriving(duckdb::ClientContext &context, duckdb::Vector &arrived, duckdb::Vector &result);

//! The columns of a chunk as their stored types; the chunk itself if nothing in it differs.
class StoredChunk {
public:
	explicit StoredChunk(duckdb::DataChunk &chunk);

	duckdb::DataChunk &Get() {
		return differs ? stored : chunk;
	}

private:
	duckdb::DataChunk &chunk;
	duckdb::DataChunk stored;
	bool differs;
};

} // namespace duckherder
