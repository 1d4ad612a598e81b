#include "bind_aside.hpp"

#include "duckdb/main/client_context.hpp"
#include "duckdb/main/client_data.hpp"
#include "duckdb/main/prepared_statement_data.hpp"
#include "duckdb/parser/parser.hpp"
#include "duckdb/parser/statement/execute_statement.hpp"
#include "duckdb/parser/statement/prepare_statement.hpp"
#include "duckdb/planner/bound_parameter_map.hpp"

namespace duckherder {

using namespace duckdb;

BoundStatement BindAside(ClientContext &context, Binder &binder, SQLStatement &statement,
                         optional_ptr<StatementProperties> properties) {
	auto aside = Binder::CreateBinder(context);
	if (binder.GetParameters()) {
		aside->SetParameters(*binder.GetParameters());
	}
	aside->SetBindingMode(binder.GetBindingMode());
	auto bound = aside->Bind(statement);
	auto used = aside->GenerateTableIndex();
	while (binder.GenerateTableIndex() < used) {
	}
	if (properties) {
		*properties = aside->GetStatementProperties();
	}
	return bound;
}

static unique_ptr<SQLStatement> ParseText(ClientContext &context, const string &text) {
	Parser parser(context);
	parser.ParseQuery(text);
	if (parser.statements.size() != 1) {
		return nullptr;
	}
	auto again = std::move(parser.statements[0]);
	if (again->type == StatementType::PREPARE_STATEMENT) {
		again = std::move(again->Cast<PrepareStatement>().statement);
	} else if (again->type == StatementType::EXECUTE_STATEMENT) {
		auto &prepared = ClientData::Get(context).prepared_statements;
		auto entry = prepared.find(again->Cast<ExecuteStatement>().name);
		again = entry != prepared.end() && entry->second->unbound_statement ? entry->second->unbound_statement->Copy()
		                                                                   : nullptr;
	} else {
		return again;
	}
	if (again) {
		// That of PREPARE or EXECUTE around it.
		again->query.clear();
	}
	return again;
}

unique_ptr<SQLStatement> ParseCurrent(ClientContext &context) {
	return ParseText(context, context.GetCurrentQuery());
}

unique_ptr<SQLStatement> ParseAgain(ClientContext &context, const SQLStatement &statement) {
	auto again = statement.query.empty() ? ParseCurrent(context) : ParseText(context, statement.query);
	return again && again->type == statement.type ? std::move(again) : nullptr;
}

} // namespace duckherder
