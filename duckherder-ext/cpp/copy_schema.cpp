#include "copy_schema.hpp"

#include "remote_catalog.hpp"
#include "remote_session.hpp"

#include "duckdb/execution/physical_operator.hpp"
#include "duckdb/execution/physical_plan_generator.hpp"
#include "duckdb/parser/parsed_data/create_table_info.hpp"
#include "duckdb/parser/parsed_data/create_view_info.hpp"
#include "duckdb/planner/operator/logical_extension_operator.hpp"

namespace duckherder {

using namespace duckdb;

namespace {

class PhysicalCopySchema : public PhysicalOperator {
public:
	PhysicalCopySchema(PhysicalPlan &plan, RemoteCatalog &catalog, vector<string> statements, vector<LogicalType> types,
	                   idx_t estimated_cardinality)
	    : PhysicalOperator(plan, PhysicalOperatorType::EXTENSION, std::move(types), estimated_cardinality),
	      catalog(catalog), statements(std::move(statements)) {
	}

	string GetName() const override {
		return "DUCKHERDER_COPY_SCHEMA";
	}
	bool IsSource() const override {
		return true;
	}

protected:
	SourceResultType GetDataInternal(ExecutionContext &context, DataChunk &, OperatorSourceInput &) const override {
		for (auto &statement : statements) {
			// All or none, also outside an explicit transaction.
			RunToEnd(context.client, catalog.Session(context.client), statement, true);
		}
		return SourceResultType::FINISHED;
	}

private:
	RemoteCatalog &catalog;
	vector<string> statements;
};

class LogicalCopySchema : public LogicalExtensionOperator {
public:
	LogicalCopySchema(RemoteCatalog &catalog, vector<string> statements)
	    : catalog(catalog), statements(std::move(statements)) {
	}

	PhysicalOperator &CreatePlan(ClientContext &, PhysicalPlanGenerator &planner) override {
		return planner.Make<PhysicalCopySchema>(catalog, statements, types, estimated_cardinality);
	}
	vector<ColumnBinding> GetColumnBindings() override {
		return {ColumnBinding(TableIndex(0), ProjectionIndex(0))};
	}
	string GetName() const override {
		return "DUCKHERDER_COPY_SCHEMA";
	}
	string GetExtensionName() const override {
		return "duckherder_copy_schema";
	}

protected:
	void ResolveTypes() override {
		types = {LogicalType::BOOLEAN};
	}

private:
	RemoteCatalog &catalog;
	vector<string> statements;
};

const char *CommentTarget(CatalogType type) {
	switch (type) {
	case CatalogType::TABLE_ENTRY:
		return "TABLE";
	case CatalogType::VIEW_ENTRY:
		return "VIEW";
	case CatalogType::INDEX_ENTRY:
		return "INDEX";
	case CatalogType::SEQUENCE_ENTRY:
		return "SEQUENCE";
	case CatalogType::TYPE_ENTRY:
		return "TYPE";
	case CatalogType::MACRO_ENTRY:
		return "MACRO";
	case CatalogType::TABLE_MACRO_ENTRY:
		return "MACRO TABLE";
	default:
		return nullptr;
	}
}

void AddComment(const string &target, const Value &comment, vector<string> &statements) {
	if (!comment.IsNull()) {
		statements.push_back("COMMENT ON " + target + " IS " + SQLString::ToString(comment.ToString()));
	}
}

//! The statement that makes an entry, and those that comment on it and its columns.
void AddStatements(const CreateInfo &info, vector<string> &statements) {
	auto copy = info.Copy();
	copy->StripCatalogQualification();
	statements.push_back(copy->ToString());
	auto name = copy->GetQualifiedName().ToString();
	auto target = CommentTarget(info.type);
	if (target) {
		AddComment(target + (" " + name), info.comment, statements);
	}
	if (info.type == CatalogType::TABLE_ENTRY) {
		for (auto &column : info.Cast<CreateTableInfo>().columns.Logical()) {
			AddComment("COLUMN " + name + "." + SQLIdentifier::ToString(column.Name()), column.Comment(), statements);
		}
	} else if (info.type == CatalogType::VIEW_ENTRY) {
		for (auto &comment : info.Cast<CreateViewInfo>().column_comments_map) {
			AddComment("COLUMN " + name + "." + SQLIdentifier::ToString(comment.first), comment.second, statements);
		}
	}
}

} // namespace

unique_ptr<LogicalOperator> PlanCopySchema(RemoteCatalog &catalog, const LogicalCopyDatabase &copy) {
	vector<string> statements;
	for (auto &entry : copy.info->entries) {
		AddStatements(*entry, statements);
	}
	return make_uniq<LogicalCopySchema>(catalog, std::move(statements));
}

} // namespace duckherder
