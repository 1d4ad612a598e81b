#include "functions.hpp"

#include "arrow_scan.hpp"
#include "remote_catalog.hpp"
#include "remote_query.hpp"

#include "duckdb/catalog/catalog_search_path.hpp"
#include "duckdb/execution/expression_executor.hpp"
#include "duckdb/function/pragma_function.hpp"
#include "duckdb/function/scalar_function.hpp"
#include "duckdb/main/attached_database.hpp"
#include "duckdb/main/client_data.hpp"
#include "duckdb/main/database_manager.hpp"
#include "duckdb/main/extension/extension_loader.hpp"
#include "duckdb/parser/tableref.hpp"

namespace duckherder {

using namespace duckdb;

namespace {

//===--------------------------------------------------------------------===//
// Which duckling is meant
//===--------------------------------------------------------------------===//

RemoteCatalog &NamedCatalog(ClientContext &context, const string &name) {
	auto catalog = Catalog::GetCatalogEntry(context, Identifier(name));
	if (!catalog || catalog->GetCatalogType() != RemoteCatalog::TYPE) {
		throw InvalidInputException("\"%s\" is not an attached duckling; attach it first: ATTACH '%s' (TYPE duckherder, "
		                            "server_host '…', server_port …)",
		                            name, name);
	}
	return catalog->Cast<RemoteCatalog>();
}

//! The default catalog if it is a duckling, else the only one that is attached.
RemoteCatalog &MeantCatalog(ClientContext &context) {
	auto default_name = ClientData::Get(context).catalog_search_path->GetDefault().GetCatalog();
	auto default_catalog = Catalog::GetCatalogEntry(context, default_name);
	if (default_catalog && default_catalog->GetCatalogType() == RemoteCatalog::TYPE) {
		return default_catalog->Cast<RemoteCatalog>();
	}
	vector<string> names;
	for (auto &database : DatabaseManager::Get(context).GetDatabases(context)) {
		if (database->GetCatalog().GetCatalogType() == RemoteCatalog::TYPE) {
			names.push_back(database->GetName().GetIdentifierName());
		}
	}
	if (names.empty()) {
		throw InvalidInputException("no duckling is attached; attach one first: ATTACH 'dh' (TYPE duckherder, "
		                            "server_host 'localhost', server_port 8815)");
	}
	if (names.size() > 1) {
		throw InvalidInputException("several ducklings are attached (%s): name the one that is meant as the last "
		                            "argument, or make it the default with USE",
		                            StringUtil::Join(names, ", "));
	}
	return NamedCatalog(context, names[0]);
}

//! By name if there is an argument at `index`.
RemoteCatalog &CatalogOf(ClientContext &context, const vector<Value> &arguments, idx_t index) {
	if (arguments.size() > index && !arguments[index].IsNull()) {
		return NamedCatalog(context, StringValue::Get(arguments[index]));
	}
	return MeantCatalog(context);
}

//===--------------------------------------------------------------------===//
// Pragmas
//===--------------------------------------------------------------------===//

string NameArgument(const FunctionParameters &parameters, idx_t index) {
	auto &value = parameters.values[index];
	if (value.IsNull()) {
		throw InvalidInputException("a table name must not be NULL");
	}
	return StringValue::Get(value);
}

void RegisterRemoteTable(ClientContext &context, const FunctionParameters &parameters) {
	auto &catalog = CatalogOf(context, parameters.values, 2);
	auto local_name = NameArgument(parameters, 0);
	auto remote_name = NameArgument(parameters, 1);
	Check([&](DhBuffer *error) {
		return Api().alias_register(catalog.Remote()->Get(), Text(local_name), Text(remote_name), error);
	});
}

void UnregisterRemoteTable(ClientContext &context, const FunctionParameters &parameters) {
	auto &catalog = CatalogOf(context, parameters.values, 1);
	auto local_name = NameArgument(parameters, 0);
	Check([&](DhBuffer *error) {
		return Api().alias_unregister(catalog.Remote()->Get(), Text(local_name), error);
	});
}

void RegisterPragmas(ExtensionLoader &loader) {
	const LogicalType text = LogicalType::VARCHAR;
	PragmaFunctionSet set(Identifier("duckherder_register_remote_table"));
	set.AddFunction(PragmaFunction::PragmaCall(Identifier("duckherder_register_remote_table"), RegisterRemoteTable, {text, text}));
	set.AddFunction(PragmaFunction::PragmaCall(Identifier("duckherder_register_remote_table"), RegisterRemoteTable, {text, text, text}));
	loader.RegisterFunction(set);
	PragmaFunctionSet unset(Identifier("duckherder_unregister_remote_table"));
	unset.AddFunction(PragmaFunction::PragmaCall(Identifier("duckherder_unregister_remote_table"), UnregisterRemoteTable, {text}));
	unset.AddFunction(PragmaFunction::PragmaCall(Identifier("duckherder_unregister_remote_table"), UnregisterRemoteTable, {text, text}));
	loader.RegisterFunction(unset);
}

//===--------------------------------------------------------------------===//
// Scalar functions: actions, one a row
//===--------------------------------------------------------------------===//

using Action = string (*)(ClientContext &context, const vector<Value> &arguments);

//! Runs the action for every row; never at bind time, since it is volatile.
template <Action ACTION>
void RunAction(DataChunk &arguments, ExpressionState &state, Vector &result) {
	auto &context = state.GetContext();
	for (idx_t row = 0; row < arguments.size(); row++) {
		vector<Value> values;
		for (idx_t column = 0; column < arguments.ColumnCount(); column++) {
			values.push_back(arguments.GetValue(column, row));
		}
		result.SetValue(row, Value(ACTION(context, values)));
	}
}

string StartLocalServer(ClientContext &context, const vector<Value> &arguments) {
	if (arguments[0].IsNull() || (arguments.size() > 1 && arguments[1].IsNull())) {
		throw InvalidInputException("duckherder_start_local_server: port and workers must not be NULL");
	}
	auto port = arguments[0].GetValue<int32_t>();
	if (port < 0 || port > 65535) {
		throw InvalidInputException("duckherder_start_local_server: %d is no port; use 1 to 65535, or 0 for a free one", port);
	}
	auto workers = arguments.size() > 1 ? arguments[1].GetValue<int32_t>() : 0;
	if (workers < 0) {
		throw InvalidInputException("duckherder_start_local_server: the number of workers must not be negative");
	}
	Buffer address;
	Check([&](DhBuffer *error) {
		return Api().local_server_start(static_cast<uint16_t>(port), static_cast<uint32_t>(workers), InterruptOf(context),
		                             address.Slot(), error);
	});
	return "local server started at " + address.ToString();
}

string StopLocalServer(ClientContext &context, const vector<Value> &) {
	Buffer address;
	Check([&](DhBuffer *error) { return Api().local_server_stop(InterruptOf(context), address.Slot(), error); });
	return "local server at " + address.ToString() + " stopped";
}

string LoadExtension(ClientContext &context, const vector<Value> &arguments) {
	if (arguments[0].IsNull()) {
		throw InvalidInputException("duckherder_load_extension: the extension's name must not be NULL");
	}
	auto &catalog = CatalogOf(context, arguments, 1);
	auto name = StringValue::Get(arguments[0]);
	Check([&](DhBuffer *error) {
		return Api().load_extension(catalog.Session(context), Text(name), InterruptOf(context), error);
	});
	return "extension '" + name + "' loaded on " + catalog.GetConnectDisplay();
}

string ClearQueryRecorderStats(ClientContext &, const vector<Value> &) {
	Check([&](DhBuffer *error) { return Api().history_clear(error); });
	return "query history cleared";
}

template <Action ACTION>
void RegisterAction(ExtensionLoader &loader, const char *name, const vector<vector<LogicalType>> &overloads) {
	ScalarFunctionSet set {Identifier(name)};
	for (auto &arguments : overloads) {
		ScalarFunction function(arguments, LogicalType::VARCHAR, RunAction<ACTION>);
		function.SetVolatile();
		function.SetFallible();
		function.SetNullHandling(FunctionNullHandling::SPECIAL_HANDLING);
		set.AddFunction(function);
	}
	loader.RegisterFunction(set);
}

void RegisterActions(ExtensionLoader &loader) {
	const LogicalType text = LogicalType::VARCHAR;
	const LogicalType number = LogicalType::INTEGER;
	RegisterAction<StartLocalServer>(loader, "duckherder_start_local_server", {{number}, {number, number}});
	RegisterAction<StopLocalServer>(loader, "duckherder_stop_local_server", {{}});
	RegisterAction<LoadExtension>(loader, "duckherder_load_extension", {{text}, {text, text}});
	RegisterAction<ClearQueryRecorderStats>(loader, "duckherder_clear_query_recorder_stats", {{}});
}

//===--------------------------------------------------------------------===//
// The query history
//===--------------------------------------------------------------------===//

unique_ptr<FunctionData> HistoryBind(ClientContext &context, TableFunctionBindInput &,
                                     vector<LogicalType> &return_types, vector<Identifier> &names) {
	ScanHandle scan;
	Check([&](DhBuffer *error) { return Api().scan_history(scan.Slot(), error); });
	ArrowResultColumns(context, scan.Get(), return_types, names);
	return nullptr;
}

unique_ptr<GlobalTableFunctionState> HistoryInit(ClientContext &context, TableFunctionInitInput &) {
	ScanHandle scan;
	Check([&](DhBuffer *error) { return Api().scan_history(scan.Slot(), error); });
	vector<LogicalType> types;
	vector<Identifier> names;
	ArrowResultColumns(context, scan.Get(), types, names);
	return MakeArrowScan(context, std::move(scan), std::move(types));
}

//! The history that a duckling keeps, of all its clients: read there.
unique_ptr<TableRef> ServerHistoryBind(ClientContext &context, TableFunctionBindInput &input) {
	return MakeRemoteQuery(CatalogOf(context, input.inputs, 0), "FROM duckling_history()", QueryShape::ROWS);
}

void RegisterHistory(ExtensionLoader &loader) {
	TableFunction function(Identifier("duckherder_get_query_history"), {}, nullptr, HistoryBind, HistoryInit);
	SetUpArrowScan(function);
	loader.RegisterFunction(std::move(function));
	TableFunctionSet server {Identifier("duckherder_server_history")};
	for (auto &arguments : {vector<LogicalType> {}, vector<LogicalType> {LogicalType::VARCHAR}}) {
		TableFunction overload(arguments, nullptr, nullptr);
		overload.bind_replace = ServerHistoryBind;
		server.AddFunction(std::move(overload));
	}
	loader.RegisterFunction(std::move(server));
}

} // namespace

void RegisterFunctions(ExtensionLoader &loader) {
	RegisterPragmas(loader);
	RegisterActions(loader);
	RegisterHistory(loader);
}

} // namespace duckherder
