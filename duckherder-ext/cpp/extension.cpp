//! What LOAD does.

#include "functions.hpp"
#include "join_keys.hpp"
#include "local_rows.hpp"
#include "planner_hooks.hpp"
#include "remote_catalog.hpp"
#include "remote_default.hpp"
#include "remote_query.hpp"
#include "remote_transaction.hpp"
#include "subplan_pushdown.hpp"

#include "duckdb/main/attached_database.hpp"
#include "duckdb/main/config.hpp"
#include "duckdb/main/extension/extension_loader.hpp"
#include "duckdb/parser/parsed_data/attach_info.hpp"
#include "duckdb/storage/storage_extension.hpp"

namespace duckherder {

using namespace duckdb;

static unique_ptr<Catalog> Attach(optional_ptr<StorageExtensionInfo>, ClientContext &context, AttachedDatabase &db,
                                  const string &name, AttachInfo &, AttachOptions &attach_options) {
	vector<string> texts;
	for (auto &option : attach_options.options) {
		texts.push_back(option.first);
		texts.push_back(option.second.IsNull() ? string() : option.second.ToString());
	}
	vector<DhOption> options;
	for (idx_t i = 0; i < texts.size(); i += 2) {
		options.push_back(DhOption {Text(texts[i]), Text(texts[i + 1])});
	}
	auto remote = make_shared_ptr<RemoteHandle>();
	string version = DuckDB::LibraryVersion();
	Check([&](DhBuffer *error) {
		return Api().remote_attach(Text(name), Text(version), options.data(), options.size(), InterruptOf(context),
		                        remote->Slot(), error);
	});
	return make_uniq<RemoteCatalog>(db, std::move(remote));
}

static unique_ptr<TransactionManager> CreateTransactionManager(optional_ptr<StorageExtensionInfo>,
                                                               AttachedDatabase &db, Catalog &catalog) {
	return make_uniq<RemoteTransactionManager>(db, catalog.Cast<RemoteCatalog>());
}

static void Load(ExtensionLoader &loader) {
	loader.SetDescription("Work with the tables of ducklings as if they were local");
	auto storage = make_shared_ptr<StorageExtension>();
	storage->attach = Attach;
	storage->create_transaction_manager = CreateTransactionManager;
	auto &config = DBConfig::GetConfig(loader.GetDatabaseInstance());
	StorageExtension::Register(config, RemoteCatalog::TYPE, std::move(storage));
	RegisterPostBind(config);
	RegisterRemoteBind(config);
	RegisterLocalRows(config);
	RegisterSubplanPushdown(config);
	RegisterJoinKeys(config);
	RegisterRemoteQuery(loader);
	RegisterRemoteDefault(loader);
	RegisterFunctions(loader);
}

} // namespace duckherder

extern "C" void duckherder_load(void *loader, const DhApi *api) {
	duckherder::SetApi(api);
	duckherder::Load(*static_cast<duckdb::ExtensionLoader *>(loader));
}
