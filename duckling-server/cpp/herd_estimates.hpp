//! What is known of rows that are not here.
#pragma once

#include "duckdb.hpp"
#include "duckdb/storage/statistics/base_statistics.hpp"

namespace herd {

//! About how many rows there are, and how many values in their columns. Nothing that an optimizer could take for a fact
//! about the rows: no smallest or largest value, and nothing of NULL.
struct Estimates {
	//! 0 if that is not known.
	duckdb::idx_t rows = 0;
	//! Of each column, 0 if that is not known.
	duckdb::vector<duckdb::idx_t> distinct;

	//! From `{"rows": …, "distinct": […]}`.
	static Estimates FromJson(const duckdb::string &json);

	//! How many values a column has, 0 if that is not known.
	duckdb::idx_t Distinct(duckdb::idx_t column) const;
	//! A column's statistics, or null.
	duckdb::unique_ptr<duckdb::BaseStatistics> Statistics(duckdb::idx_t column, const duckdb::LogicalType &type) const;
};

} // namespace herd
