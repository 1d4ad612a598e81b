//! Arrow batches out of the herd, as DuckDB's vectors.
#pragma once

#include "herd_bridge.hpp"

#include "duckdb/function/table_function.hpp"

namespace herd {

//! The state of a scan that yields columns of `types`, cast from what arrives where that is of another type.
duckdb::unique_ptr<duckdb::GlobalTableFunctionState> MakeSourceScan(duckdb::ClientContext &context, Source source,
                                                                    duckdb::vector<duckdb::LogicalType> types);

//! Reads such a scan from beginning to end, in one thread.
class SourceReader {
public:
	SourceReader(duckdb::ClientContext &context, Source source, duckdb::vector<duckdb::LogicalType> types);

	//! The next rows; none at the end.
	void Read(duckdb::ClientContext &context, duckdb::DataChunk &chunk);

private:
	duckdb::unique_ptr<duckdb::GlobalTableFunctionState> global;
	duckdb::unique_ptr<duckdb::LocalTableFunctionState> local;
};

//! Sets the callbacks that read such a state: any number of threads, in no order.
void SetUpSourceScan(duckdb::TableFunction &function);

//! `duckherder_exchange(stage)`, which a worker's stages read the rows of earlier ones with.
duckdb::TableFunction ExchangeFunction();

//! `duckherder_upload()`, which an INSERT reads the rows of a client's upload with, in their order.
duckdb::TableFunction UploadFunction();

} // namespace herd
