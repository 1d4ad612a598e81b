#include "bind_aside.hpp"
#include "expression_visitor.hpp"
#include "name_rewriter.hpp"
#include "planner_hooks.hpp"
#include "remote_catalog.hpp"
#include "remote_query.hpp"

#include "duckdb/catalog/catalog_entry/table_function_catalog_entry.hpp"
#include "duckdb/catalog/catalog_search_path.hpp"
#include "duckdb/main/client_data.hpp"
#include "duckdb/main/config.hpp"
#include "duckdb/main/database_manager.hpp"
#include "duckdb/main/settings.hpp"
#include "duckdb/optimizer/optimizer.hpp"
#include "duckdb/optimizer/remote_pushdown_optimizer.hpp"
#include "duckdb/parser/expression/cast_expression.hpp"
#include "duckdb/parser/expression/function_expression.hpp"
#include "duckdb/parser/expression/star_expression.hpp"
#include "duckdb/parser/expression/type_expression.hpp"
#include "duckdb/parser/query_node/insert_query_node.hpp"
#include "duckdb/parser/query_node/select_node.hpp"
#include "duckdb/parser/statement/explain_statement.hpp"
#include "duckdb/parser/statement/insert_statement.hpp"
#include "duckdb/parser/statement/select_statement.hpp"
#include "duckdb/parser/tableref/basetableref.hpp"
#include "duckdb/parser/tableref/table_function_ref.hpp"
#include "duckdb/planner/binder.hpp"
#include "duckdb/planner/operator/logical_extension_operator.hpp"
#include "duckdb/planner/operator_extension.hpp"

namespace duckherder {

using namespace duckdb;

namespace {

optional_ptr<RemoteCatalog> AsRemote(optional_ptr<Catalog> catalog) {
	if (!catalog || catalog->GetCatalogType() != RemoteCatalog::TYPE) {
		return nullptr;
	}
	return catalog->Cast<RemoteCatalog>();
}

//! Finds out whether all that a statement names may be the one duckling's.
class RemoteReferences {
public:
	explicit RemoteReferences(ClientContext &context) : context(context) {
		auto &path = *ClientData::Get(context).catalog_search_path;
		default_catalog = AsRemote(Catalog::GetCatalogEntry(context, path.GetDefault().GetCatalog()));
	}

	void Collect(SQLStatement &statement) {
		if (statement.type == StatementType::EXPLAIN_STATEMENT) {
			return Collect(*statement.Cast<ExplainStatement>().stmt);
		}
		if (statement.type == StatementType::INSERT_STATEMENT) {
			AddTable(statement.Cast<InsertStatement>().node->Cast<InsertQueryNode>().qualified_name);
		}
		VisitExpressions(
		    statement, [&](unique_ptr<ParsedExpression> &expression) { AddExpression(*expression); },
		    [&](TableRef &ref) { AddTableRef(ref); });
	}

	//! The duckling, if the statement can be meant for one.
	optional_ptr<RemoteCatalog> Result() {
		if (is_local || named.size() > 1) {
			return nullptr;
		}
		if (!named.empty()) {
			return *named.begin()->second;
		}
		return default_catalog;
	}

	//! Whether values are missing in it, also in what is left of a statement that was prepared.
	bool HasParameters() const {
		return has_parameters;
	}

	//! Whether it is named in the statement, and not only by USE.
	bool Named() const {
		return !named.empty();
	}

private:
	QualifiedName Bound(const QualifiedName &name) {
		CatalogEntryRetriever retriever(context);
		return Binder::BindTableName(retriever, name);
	}

	void AddTable(const QualifiedName &name) {
		auto entry = Catalog::GetEntry(context, EntryLookupInfo(CatalogType::TABLE_ENTRY, Bound(name)),
		                               OnEntryNotFound::RETURN_NULL);
		// What is not found is a CTE, or does not exist on the server either.
		if (entry) {
			AddCatalog(entry->ParentCatalog());
		}
	}

	void AddCatalog(Catalog &catalog) {
		auto remote = AsRemote(catalog);
		if (!remote) {
			is_local = true;
			return;
		}
		named[catalog.GetName()] = remote;
	}

	void AddTableRef(TableRef &ref) {
		switch (ref.type) {
		case TableReferenceType::BASE_TABLE:
			AddTable(ref.Cast<BaseTableRef>().GetQualifiedName());
			break;
		case TableReferenceType::TABLE_FUNCTION:
			AddTableFunction(ref.Cast<TableFunctionRef>().function->Cast<FunctionExpression>());
			break;
		default:
			break;
		}
	}

	//! A table function that is known here reads what is here, unless it only makes rows of its arguments.
	void AddTableFunction(const FunctionExpression &function) {
		EntryLookupInfo lookup(CatalogType::TABLE_FUNCTION_ENTRY, QualifiedName(function.FunctionName()));
		auto entry = Catalog::GetEntry(context, lookup, OnEntryNotFound::RETURN_NULL);
		if (!entry || entry->type != CatalogType::TABLE_FUNCTION_ENTRY) {
			return;
		}
		static const identifier_set_t ABOUT_TABLES {"pragma_storage_info", "storage_info", "index_key"};
		if (ABOUT_TABLES.find(function.FunctionName()) != ABOUT_TABLES.end()) {
			return;
		}
		for (auto &overload : entry->Cast<TableFunctionCatalogEntry>().functions.functions) {
			if (overload->return_type == TableFunctionReturnType::SET_RETURNING_FUNCTION) {
				return;
			}
		}
		is_local = true;
	}

	void AddType(const TypeExpression &type) {
		CatalogEntryRetriever retriever(context);
		auto bound = Binder::BindTableName(retriever, type.GetQualifiedName());
		auto catalog = bound.Catalog().empty() ? nullptr : Catalog::GetCatalogEntry(context, bound.Catalog());
		if (catalog && AsRemote(catalog)) {
			AddCatalog(*catalog);
		}
	}

	void AddExpression(ParsedExpression &expression) {
		has_parameters = has_parameters || expression.GetExpressionClass() == ExpressionClass::PARAMETER;
		if (expression.GetExpressionClass() == ExpressionClass::CAST) {
			return AddType(expression.Cast<CastExpression>().TargetType());
		}
		if (expression.GetExpressionClass() != ExpressionClass::FUNCTION) {
			return;
		}
		auto &function = expression.Cast<FunctionExpression>();
		if (!function.GetQualifiedName().Catalog().empty()) {
			auto catalog = Catalog::GetCatalogEntry(context, function.GetQualifiedName().Catalog());
			if (catalog && AsRemote(catalog)) {
				AddCatalog(*catalog);
			}
		}
		auto sequence = SequenceOf(context, function);
		if (!sequence.Catalog().empty()) {
			AddCatalog(Catalog::GetCatalog(context, sequence.Catalog()));
		}
	}

	ClientContext &context;
	optional_ptr<RemoteCatalog> default_catalog;
	identifier_map_t<optional_ptr<RemoteCatalog>> named;
	bool is_local = false;
	bool has_parameters = false;
};

//! Whether the statement has been handed to a duckling already, which did not like it.
bool WasRemote(const SQLStatement &statement) {
	if (statement.type == StatementType::EXPLAIN_STATEMENT) {
		return WasRemote(*statement.Cast<ExplainStatement>().stmt);
	}
	if (statement.type != StatementType::SELECT_STATEMENT) {
		return false;
	}
	auto &node = *statement.Cast<SelectStatement>().node;
	return node.type == QueryNodeType::SELECT_NODE && node.Cast<SelectNode>().from_table &&
	       IsRemoteQuery(*node.Cast<SelectNode>().from_table);
}

BoundStatement BindRemotely(ClientContext &context, Binder &binder, RemoteCatalog &catalog, const string &sql) {
	auto select = make_uniq<SelectNode>();
	select->select_list.push_back(make_uniq<StarExpression>());
	select->from_table = MakeRemoteQuery(catalog, sql, QueryShape::DESCRIBED);
	SelectStatement wrapped;
	wrapped.node = std::move(select);
	return BindAside(context, binder, wrapped, binder.GetStatementProperties());
}

//! Whether a statement of this kind can run on a duckling.
bool IsShippable(const SQLStatement &statement) {
	switch (statement.type) {
	case StatementType::SELECT_STATEMENT:
	case StatementType::INSERT_STATEMENT:
	case StatementType::UPDATE_STATEMENT:
	case StatementType::DELETE_STATEMENT:
	case StatementType::MERGE_INTO_STATEMENT:
	case StatementType::CREATE_STATEMENT:
	case StatementType::DROP_STATEMENT:
	case StatementType::ALTER_STATEMENT:
	case StatementType::EXPLAIN_STATEMENT:
		return true;
	default:
		return false;
	}
}

//! Binds a statement as it was written. The pushdown optimizer has folded the constants of the one that failed, and given
//! them names, which macros take for those of their arguments.
BoundStatement BindUnfolded(ClientContext &context, Binder &binder, const SQLStatement &statement) {
	try {
		auto again = ParseAgain(context, statement);
		if (!again) {
			return BoundStatement();
		}
		return BindAside(context, binder, *again, binder.GetStatementProperties());
	} catch (std::exception &error) { // NOLINT: the first error stands
		if (ErrorData(error).Type() == ExceptionType::INTERRUPT) {
			throw;
		}
		return BoundStatement();
	}
}

BoundStatement RemoteBind(ClientContext &context, Binder &binder, OperatorExtensionInfo *, SQLStatement &statement) {
	if (!IsShippable(statement) || WasRemote(statement) ||
	    Optimizer::OptimizerDisabled(context, OptimizerType::REMOTE_PUSHDOWN) ||
	    DatabaseManager::Get(context).GetRemoteCatalogCount() == 0) {
		return BoundStatement();
	}
	auto unfolded = BindUnfolded(context, binder, statement);
	if (unfolded.plan || !statement.named_param_map.empty()) {
		return unfolded;
	}
	try {
		auto again = ParseAgain(context, statement);
		if (!again) {
			return BoundStatement();
		}
		RemoteReferences references(context);
		references.Collect(*again);
		auto catalog = references.Result();
		if (!catalog || references.HasParameters()) {
			return BoundStatement();
		}
		auto &inner = again->type == StatementType::EXPLAIN_STATEMENT ? *again->Cast<ExplainStatement>().stmt : *again;
		RemotePushdownOptimizer::StripCatalogName(inner, catalog->GetName());
		NameRewriter(context, *catalog).Rewrite(inner);
		// A statement that names no duckling goes as it was written: not every kind of statement is written back exactly.
		auto as_written = !references.Named() && !again->query.empty();
		return BindRemotely(context, binder, *catalog, as_written ? again->query : again->ToString());
	} catch (std::exception &error) { // NOLINT: the error of binding it here says more
		if (ErrorData(error).Type() == ExceptionType::INTERRUPT) {
			throw;
		}
		return BoundStatement();
	}
}

class RemoteBindExtension : public OperatorExtension {
public:
	RemoteBindExtension() {
		Bind = RemoteBind;
	}

	std::string GetName() override {
		return "duckherder_remote_bind";
	}

	unique_ptr<LogicalExtensionOperator> Deserialize(Deserializer &) override {
		throw NotImplementedException("plans with remote statements are not serialized");
	}
};

} // namespace

void RegisterRemoteBind(DBConfig &config) {
	OperatorExtension::Register(config, make_shared_ptr<RemoteBindExtension>());
}

} // namespace duckherder
