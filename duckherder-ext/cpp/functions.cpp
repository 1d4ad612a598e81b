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

using Action = Value (*)(ClientContext &context, const vector<Value> &arguments);

//! Runs the action for every row; never at bind time, since it is volatile.
template <Action ACTION>
void RunAction(DataChunk &arguments, ExpressionState &state, Vector &result) {
	auto &context = state.GetContext();
	for (idx_t row = 0; row < arguments.size(); row++) {
		vector<Value> values;
		for (idx_t column = 0; column < arguments.ColumnCount(); column++) {
			values.push_back(arguments.GetValue(column, row));
		}
		result.SetValue(row, ACTION(context, values));
	}
}

uint16_t PortArgument(const char *function, const Value &argument) {
	auto port = argument.GetValue<int32_t>();
	if (port < 0 || port > 65535) {
		throw InvalidInputException("%s: %d is no port; use 1 to 65535, or 0 for a free one", function, port);
	}
	return static_cast<uint16_t>(port);
}

//! "4 workers", "1 worker".
string CountOfWorkers(uint64_t workers) {
	return to_string(workers) + (workers == 1 ? " worker" : " workers");
}

Value StartLocalServer(ClientContext &context, const vector<Value> &arguments) {
	if (arguments[0].IsNull() || (arguments.size() > 1 && arguments[1].IsNull())) {
		throw InvalidInputException("duckherder_start_local_server: port and workers must not be NULL");
	}
	auto port = PortArgument("duckherder_start_local_server", arguments[0]);
	auto workers = arguments.size() > 1 ? arguments[1].GetValue<int32_t>() : 0;
	if (workers < 0) {
		throw InvalidInputException("duckherder_start_local_server: the number of workers must not be negative");
	}
	Buffer address;
	Check([&](DhBuffer *error) {
		return Api().local_server_start(port, static_cast<uint32_t>(workers), InterruptOf(context), address.Slot(), error);
	});
	auto with = workers == 0 ? "" : " with " + CountOfWorkers(static_cast<uint64_t>(workers));
	return "local server started at " + address.ToString() + with;
}

Value StopLocalServer(ClientContext &context, const vector<Value> &) {
	Buffer address;
	uint64_t workers = 0;
	Check([&](DhBuffer *error) {
		return Api().local_server_stop(InterruptOf(context), address.Slot(), &workers, error);
	});
	auto server = address.ToString();
	if (server.empty()) {
		return CountOfWorkers(workers) + " stopped";
	}
	return "local server at " + server + (workers == 0 ? "" : " and " + CountOfWorkers(workers)) + " stopped";
}

Value StartStandaloneWorker(ClientContext &context, const vector<Value> &arguments) {
	if (arguments[0].IsNull()) {
		throw InvalidInputException("duckherder_start_standalone_worker: the port must not be NULL");
	}
	auto port = PortArgument("duckherder_start_standalone_worker", arguments[0]);
	Buffer address;
	Check([&](DhBuffer *error) {
		return Api().local_worker_start(port, InterruptOf(context), address.Slot(), error);
	});
	return "standalone worker started at " + address.ToString();
}

Value RegisterOrReplaceDriver(ClientContext &context, const vector<Value> &arguments) {
	if (arguments[0].IsNull() || arguments[1].IsNull()) {
		throw InvalidInputException("duckherder_register_or_replace_driver: id and address must not be NULL");
	}
	auto id = StringValue::Get(arguments[0]);
	auto coordinator = StringValue::Get(arguments[1]);
	Buffer address;
	Check([&](DhBuffer *error) {
		return Api().local_worker_join(Text(id), Text(coordinator), InterruptOf(context), address.Slot(), error);
	});
	return address.ToString() + " is worker " + id + " of the coordinator at " + coordinator;
}

Value RegisterWorker(ClientContext &context, const vector<Value> &arguments) {
	if (arguments[0].IsNull()) {
		throw InvalidInputException("duckherder_register_worker: the worker's address must not be NULL");
	}
	auto &catalog = CatalogOf(context, arguments, 1);
	auto worker = StringValue::Get(arguments[0]);
	Buffer id, address;
	Check([&](DhBuffer *error) {
		return Api().worker_register(catalog.Remote()->Get(), Text(worker), InterruptOf(context), id.Slot(),
		                             address.Slot(), error);
	});
	return "worker " + id.ToString() + " at " + address.ToString() + " registered";
}

//! "worker … at …", which is none any more.
string TakeWorkerOut(ClientContext &context, const vector<Value> &arguments, const char *function, bool lost) {
	if (arguments[0].IsNull()) {
		throw InvalidInputException("%s: the worker's id or address must not be NULL", function);
	}
	auto &catalog = CatalogOf(context, arguments, 1);
	auto worker = StringValue::Get(arguments[0]);
	Buffer id, address;
	Check([&](DhBuffer *error) {
		return Api().worker_unregister(catalog.Remote()->Get(), Text(worker), lost, InterruptOf(context), id.Slot(),
		                               address.Slot(), error);
	});
	return "worker " + id.ToString() + " at " + address.ToString();
}

Value UnregisterWorker(ClientContext &context, const vector<Value> &arguments) {
	return TakeWorkerOut(context, arguments, "duckherder_unregister_worker", false) + " unregistered";
}

Value ForgetWorker(ClientContext &context, const vector<Value> &arguments) {
	return TakeWorkerOut(context, arguments, "duckherder_forget_worker", true) + " forgotten";
}

Value GetWorkerCount(ClientContext &context, const vector<Value> &arguments) {
	auto &catalog = CatalogOf(context, arguments, 0);
	uint64_t count = 0;
	Check([&](DhBuffer *error) {
		return Api().worker_count(catalog.Remote()->Get(), InterruptOf(context), &count, error);
	});
	return Value::BIGINT(static_cast<int64_t>(count));
}

Value LoadExtension(ClientContext &context, const vector<Value> &arguments) {
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

Value ClearQueryRecorderStats(ClientContext &, const vector<Value> &) {
	Check([&](DhBuffer *error) { return Api().history_clear(error); });
	return "query history cleared";
}

template <Action ACTION>
void RegisterAction(ExtensionLoader &loader, const char *name, const vector<vector<LogicalType>> &overloads,
                    const LogicalType &result = LogicalType::VARCHAR) {
	ScalarFunctionSet set {Identifier(name)};
	for (auto &arguments : overloads) {
		ScalarFunction function(arguments, result, RunAction<ACTION>);
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
	RegisterAction<StartStandaloneWorker>(loader, "duckherder_start_standalone_worker", {{number}});
	RegisterAction<RegisterOrReplaceDriver>(loader, "duckherder_register_or_replace_driver", {{text, text}});
	RegisterAction<RegisterWorker>(loader, "duckherder_register_worker", {{text}, {text, text}});
	RegisterAction<UnregisterWorker>(loader, "duckherder_unregister_worker", {{text}, {text, text}});
	RegisterAction<ForgetWorker>(loader, "duckherder_forget_worker", {{text}, {text, text}});
	RegisterAction<GetWorkerCount>(loader, "duckherder_get_worker_count", {{}, {text}}, LogicalType::BIGINT);
	RegisterAction<LoadExtension>(loader, "duckherder_load_extension", {{text}, {text, text}});
	RegisterAction<ClearQueryRecorderStats>(loader, "duckherder_clear_query_recorder_stats", {{}});
}

//===--------------------------------------------------------------------===//
// The query history, and what ducklings tell about themselves
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
	return MakeArrowScan(context, std::move(scan), std::move(types), string());
}

//! What a duckling tells about itself, read there: `FROM duckling_…()`, with the first ARGUMENTS of ours.
template <const char *FUNCTION, idx_t ARGUMENTS>
unique_ptr<TableRef> ServerTableBind(ClientContext &context, TableFunctionBindInput &input) {
	auto &catalog = CatalogOf(context, input.inputs, ARGUMENTS);
	vector<string> arguments;
	for (idx_t i = 0; i < ARGUMENTS; i++) {
		arguments.push_back(input.inputs[i].ToSQLString());
	}
	auto sql = string("FROM ") + FUNCTION + "(" + StringUtil::Join(arguments, ", ") + ")";
	return MakeRemoteQuery(catalog, sql, QueryShape::ROWS);
}

//! `name(ARGUMENTS of VARCHAR [, database])`
template <const char *FUNCTION, idx_t ARGUMENTS = 0>
void RegisterServerTable(ExtensionLoader &loader, const char *name) {
	TableFunctionSet set {Identifier(name)};
	for (idx_t count : {ARGUMENTS, ARGUMENTS + 1}) {
		TableFunction overload(vector<LogicalType>(count, LogicalType::VARCHAR), nullptr, nullptr);
		overload.bind_replace = ServerTableBind<FUNCTION, ARGUMENTS>;
		set.AddFunction(std::move(overload));
	}
	loader.RegisterFunction(std::move(set));
}

constexpr char HISTORY[] = "duckling_history";
constexpr char WORKERS[] = "duckling_workers";
constexpr char PARTITIONS[] = "duckling_partitions";
constexpr char EXECUTION_STATS[] = "duckling_execution_stats";

void RegisterServerTables(ExtensionLoader &loader) {
	RegisterServerTable<HISTORY>(loader, "duckherder_server_history");
	RegisterServerTable<WORKERS>(loader, "duckherder_workers");
	RegisterServerTable<PARTITIONS, 1>(loader, "duckherder_partitions");
	RegisterServerTable<EXECUTION_STATS>(loader, "duckherder_get_query_execution_stats");
}

void RegisterHistory(ExtensionLoader &loader) {
	TableFunction function(Identifier("duckherder_get_query_history"), {}, nullptr, HistoryBind, HistoryInit);
	SetUpArrowScan(function);
	loader.RegisterFunction(std::move(function));
}

} // namespace

void RegisterFunctions(ExtensionLoader &loader) {
	RegisterPragmas(loader);
	RegisterActions(loader);
	RegisterHistory(loader);
	RegisterServerTables(loader);
}

} // namespace duckherder
