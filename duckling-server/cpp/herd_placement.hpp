//! Where the rows of a table are: `duckherder_catalog::herd::placement::Placement`.
#pragma once

#include "duckdb.hpp"

namespace herd {

//! What a table's tag says.
struct Placement {
	//! Key columns, in the order in which they are hashed; none if rows are divided evenly, or are everywhere.
	duckdb::vector<duckdb::string> keys;
	//! Of each partition, which of `workers`; none if every worker has all rows.
	duckdb::vector<duckdb::idx_t> partitions;
	//! Each once, in the order of `Placement::workers` in Rust.
	duckdb::vector<duckdb::string> workers;

	//! Whether it is known where a row belongs, by its keys.
	bool hash_is_known = true;

	bool IsReplicated() const {
		return partitions.empty();
	}
	//! The workers' ids as a JSON list.
	duckdb::string WorkersJson() const;
	//! For people who read a plan.
	duckdb::string Describe() const;

	//! Refuses to write to `table` if it was divided by another version.
	void CheckWrites(const duckdb::string &table) const;

	static Placement Parse(const duckdb::string &json);
};

//! What `hash(keys)` becomes before it is divided by the number of partitions: `hash(hash(keys))`. DuckDB's hash tables and
//! HyperLogLogs use the bits of `hash(keys)`, and rows of one worker must not have some of those in common.
duckdb::hash_t PartitionHash(duckdb::hash_t hash);
//! The same of a row's keys.
duckdb::hash_t PartitionHash(const duckdb::vector<duckdb::Value> &keys);

} // namespace herd
