//! Rows and statements on their way to workers.
#pragma once

#include "herd_bridge.hpp"
#include "herd_placement.hpp"

namespace herd {

//! Rows on their way into a table; dropped before its end, it is broken off and nothing of it stays.
class Write {
public:
	Write() = default;
	~Write() {
		if (raw) {
			Api().write_free(raw);
		}
	}
	Write(const Write &) = delete;
	Write &operator=(const Write &) = delete;

	explicit operator bool() const {
		return raw != nullptr;
	}

	//! Rows of `types` into a table of the workers of `placement`.
	void Start(duckdb::ClientContext &context, const HerdWriteTarget &target, ArrowSchema &schema,
	           const duckdb::vector<duckdb::LogicalType> &types);
	//! Hands a batch over, waiting for room. `worker`: which one of the placement's; of a replicated one, all get it.
	void Push(duckdb::ClientContext &context, duckdb::idx_t worker, ArrowArray &batch);
	//! Waits until all rows are in the tables, not yet committed; their number.
	duckdb::idx_t Finish(duckdb::ClientContext &context);

private:
	HerdWrite *raw = nullptr;
};

//! Exact types, and the layouts that every Arrow implementation reads.
duckdb::ClientProperties ArrowProperties(duckdb::ClientContext &context);

//! Runs a statement on each of `workers`, in the session's transaction there; the rows that each has changed.
duckdb::vector<duckdb::idx_t> ExecuteOn(duckdb::ClientContext &context, const duckdb::vector<duckdb::string> &workers,
                                        const duckdb::string &sql);

//! Runs a `HerdQuery`, as JSON, that changes rows and returns some.
Source RunReturning(duckdb::ClientContext &context, const duckdb::string &query);

//! A column of a table whose rows may move.
struct MovedColumn {
	duckdb::string name;
	//! Whether an UPDATE of it leaves rows where they are on their worker. Of other columns DuckDB makes a DELETE and an INSERT.
	bool in_place;
};

//! Sends the rows of a table that are on a worker where they do not belong to the one where they do. `columns`: those
//! that hold values.
void MoveRows(duckdb::ClientContext &context, const duckdb::string &schema, const duckdb::string &table,
              const duckdb::string &placement, const duckdb::vector<MovedColumn> &columns);

} // namespace herd
