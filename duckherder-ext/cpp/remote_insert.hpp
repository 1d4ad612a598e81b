//! Rows of this process into a duckling's table.
#pragma once

#include "bridge.hpp"

#include "duckdb/execution/physical_operator.hpp"

namespace duckherder {

class RemoteCatalog;

using UploadHandle = Handle<DhUpload, &DhApi::upload_free>;

//! Which table, and what to do about it.
struct UploadTarget {
	//! Of no meaning for temporary tables.
	duckdb::vector<duckdb::Identifier> schema_path = {duckdb::Identifier::DefaultSchema()};
	duckdb::string table_name;
	DhIngestMode mode;
	//! What stands behind the columns of a table that is made: PARTITIONED BY, WITH.
	duckdb::string table_clauses;
	duckdb::vector<duckdb::string> column_names;
};

//! Whether a plan, as far as it is below `op`, reads from the duckling.
bool ReadsDuckling(const duckdb::PhysicalOperator &op, const RemoteCatalog &catalog);

//! The sink of INSERT and CREATE TABLE AS, whole or not at all; as a source, it yields the number of rows.
class RemoteInsert : public duckdb::PhysicalOperator {
public:
	RemoteInsert(duckdb::PhysicalPlan &plan, RemoteCatalog &catalog, UploadTarget target,
	             duckdb::idx_t estimated_cardinality);

	duckdb::string GetName() const override;
	duckdb::InsertionOrderPreservingMap<duckdb::string> ParamsToString() const override;

	bool IsSink() const override {
		return true;
	}
	duckdb::unique_ptr<duckdb::GlobalSinkState> GetGlobalSinkState(duckdb::ClientContext &context) const override;
	duckdb::SinkResultType Sink(duckdb::ExecutionContext &context, duckdb::DataChunk &chunk,
	                            duckdb::OperatorSinkInput &input) const override;
	duckdb::SinkFinalizeType Finalize(duckdb::Pipeline &pipeline, duckdb::Event &event, duckdb::ClientContext &context,
	                                  duckdb::OperatorSinkFinalizeInput &input) const override;

	bool IsSource() const override {
		return true;
	}
	duckdb::unique_ptr<duckdb::GlobalSourceState> GetGlobalSourceState(duckdb::ClientContext &context) const override;

protected:
	duckdb::SourceResultType GetDataInternal(duckdb::ExecutionContext &context, duckdb::DataChunk &chunk,
	                                         duckdb::OperatorSourceInput &input) const override;

private:
	bool CollectsFirst(duckdb::ClientContext &context) const;

	RemoteCatalog &catalog;
	UploadTarget target;
};

} // namespace duckherder
