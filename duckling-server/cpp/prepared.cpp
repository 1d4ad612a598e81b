//! Statements that are run again and again, with other constants, planned once: for `src/duckdb/prepared.rs`.
//!
//! What comes as text, with other constants each time, is turned into the execution of a prepared statement when its like
//! has been seen before. The constants become values of the columns' types here, by DuckDB's own casts. Whatever is not
//! sure to have the same outcome stays as it is: an INSERT that fails, for one, fails as it was written.

#include "prepared.hpp"

#include "arrow_results.hpp"
#include "herd_bridge.hpp"

#include "duckdb/catalog/catalog.hpp"
#include "duckdb/catalog/catalog_entry/table_catalog_entry.hpp"
#include "duckdb/common/arrow/arrow_converter.hpp"
#include "duckdb/logging/log_type.hpp"
#include "duckdb/logging/logger.hpp"
#include "duckdb/main/attached_database.hpp"
#include "duckdb/main/client_config.hpp"
#include "duckdb/main/client_data.hpp"
#include "duckdb/main/database_manager.hpp"
#include "duckdb/main/settings.hpp"
#include "duckdb/planner/operator/logical_execute.hpp"
#include "duckdb/planner/bound_statement.hpp"
#include "duckdb/transaction/meta_transaction.hpp"

#include <list>

namespace duckling {

using namespace duckdb;

bool IsPlain(const LogicalType &type) {
	if (type.HasAlias()) {
		return false;
	}
	switch (type.id()) {
	case LogicalTypeId::VARCHAR:
		return StringType::GetCollation(type).empty();
	case LogicalTypeId::BOOLEAN:
	case LogicalTypeId::TINYINT:
	case LogicalTypeId::SMALLINT:
	case LogicalTypeId::INTEGER:
	case LogicalTypeId::BIGINT:
	case LogicalTypeId::HUGEINT:
	case LogicalTypeId::UTINYINT:
	case LogicalTypeId::USMALLINT:
	case LogicalTypeId::UINTEGER:
	case LogicalTypeId::UBIGINT:
	case LogicalTypeId::UHUGEINT:
	case LogicalTypeId::FLOAT:
	case LogicalTypeId::DOUBLE:
	case LogicalTypeId::DECIMAL:
	case LogicalTypeId::BLOB:
	case LogicalTypeId::UUID:
	case LogicalTypeId::DATE:
	case LogicalTypeId::TIME:
	case LogicalTypeId::TIMESTAMP:
	case LogicalTypeId::TIMESTAMP_SEC:
	case LogicalTypeId::TIMESTAMP_MS:
	case LogicalTypeId::TIMESTAMP_NS:
	case LogicalTypeId::TIMESTAMP_TZ:
		return true;
	default:
		return false;
	}
}

optional_ptr<TableCatalogEntry> TableOf(ClientContext &context, const QualifiedName &name) {
	EntryLookupInfo lookup(CatalogType::TABLE_ENTRY, name);
	auto entry = Catalog::GetEntry(context, lookup, OnEntryNotFound::RETURN_NULL);
	return entry && entry->type == CatalogType::TABLE_ENTRY ? &entry->Cast<TableCatalogEntry>() : nullptr;
}

namespace {

constexpr const char *STATE = "duckling_prepared";

//! Of each connection; the ones that were used last.
constexpr idx_t PREPARED_MAX = 32;

//! So often it is tried to prepare the like of a statement.
constexpr idx_t TRIES_MAX = 4;

//! Texts that a connection knows; they are forgotten all together.
constexpr idx_t TEXTS_MAX = 64;

//! What a template makes of a text, without its literals: `Template` of `duckherder_catalog`.
struct TextTemplate {
	string text;
	//! Each with its place in the text.
	vector<Constant> literals;
};

//! Settings that make another statement of the same text.
struct ParserSettings {
	explicit ParserSettings(ClientContext &context)
	    : identifier_case(Settings::Get<PreserveIdentifierCaseSetting>(context)),
	      parser_override(Settings::Get<AllowParserOverrideExtensionSetting>(context)) {
	}
	bool operator==(const ParserSettings &other) const {
		return identifier_case == other.identifier_case && parser_override == other.parser_override;
	}

	PreserveIdentifierCaseSetting::RETURN_TYPE identifier_case;
	AllowParserOverrideExtensionSetting::RETURN_TYPE parser_override;
};

//! What statements of one template are known to be.
struct KnownText {
	ParserSettings settings;
	shared_ptr<Prepared> prepared;
	//! The constants of the one that was parsed.
	vector<Constant> constants;
	//! Which of the text's literals each of them is; invalid for one that is the same in all texts.
	vector<optional_idx> literals;
};

struct PreparedStatements : public ClientContextState {
	//! By what is the same in their like. The one used last is the first.
	std::list<std::pair<string, shared_ptr<Prepared>>> statements;
	unordered_map<string, KnownText> texts;
	//! What is being run, and whether DuckDB was about to plan it anew.
	optional_ptr<const PreparedStatementData> running;
	bool is_outdated = false;

	RebindQueryInfo OnRebindPreparedStatement(ClientContext &, BindPreparedStatementCallbackInfo &info,
	                                          RebindQueryInfo current_rebind) override {
		if (current_rebind == RebindQueryInfo::ATTEMPT_TO_REBIND && running.get() == &info.prepared_statement) {
			is_outdated = true;
			throw BinderException("the table has changed");
		}
		return RebindQueryInfo::DO_NOT_REBIND;
	}

	//! The entry of `key`, which is new if there is none.
	shared_ptr<Prepared> Find(const string &key) {
		for (auto entry = statements.begin(); entry != statements.end(); ++entry) {
			if (entry->first == key) {
				statements.splice(statements.begin(), statements, entry);
				return entry->second;
			}
		}
		if (statements.size() >= PREPARED_MAX) {
			statements.pop_back();
		}
		statements.emplace_front(key, make_shared_ptr<Prepared>());
		return statements.front().second;
	}

	//! Remembers what such a text is, if all of its literals are constants of the statement.
	void Learn(ClientContext &context, const TextTemplate &text, const Repeated &repeated,
	           const shared_ptr<Prepared> &prepared) {
		KnownText known {ParserSettings(context), prepared, repeated.GetConstants(), {}};
		idx_t found = 0;
		for (auto &constant : known.constants) {
			auto is_this = [&](const Constant &literal) {
				return constant.offset.IsValid() && literal.offset.GetIndex() == constant.offset.GetIndex() &&
				       literal.literal == constant.literal;
			};
			auto literal = std::find_if(text.literals.begin(), text.literals.end(), is_this);
			auto is_found = literal != text.literals.end();
			known.literals.push_back(is_found ? optional_idx(NumericCast<idx_t>(literal - text.literals.begin()))
			                                  : optional_idx());
			found += is_found ? 1 : 0;
		}
		if (found != text.literals.size()) {
			return;
		}
		if (texts.size() >= TEXTS_MAX) {
			texts.clear();
		}
		texts.emplace(text.text, std::move(known));
	}
};

//! Whether it would run without being planned anew. The connection may have it no more: DEALLOCATE takes whatever has
//! been prepared.
bool IsCurrent(ClientContext &context, const Prepared &prepared, ExecuteStatement &execution) {
	auto &known = ClientData::Get(context).prepared_statements;
	auto entry = known.find(execution.name);
	return entry != known.end() && entry->second == prepared.data &&
	       !prepared.data->RequireRebind(context, execution.bound_values);
}

optional<vector<Value>> ToValues(ClientContext &context, const Prepared &prepared, const vector<Constant> &constants) {
	try {
		return prepared.kind->ToValues(context, constants, prepared.types);
	} catch (std::exception &) { // NOLINT: the statement as it was written says what is wrong with it
		return {};
	}
}

//! What runs with these values; null if it is not current.
unique_ptr<ExecuteStatement> Bind(ClientContext &context, Prepared &prepared, vector<Value> values) {
	auto execution = make_uniq<ExecuteStatement>();
	execution->name = Identifier(prepared.handle->GetName());
	prepared.kind->Bind(prepared, std::move(values), *execution);
	return IsCurrent(context, prepared, *execution) ? std::move(execution) : nullptr;
}

unique_ptr<SQLStatement> Run(PreparedStatements &state, const Prepared &prepared,
                             unique_ptr<ExecuteStatement> execution, string query) {
	execution->query = std::move(query);
	state.running = prepared.data.get();
	state.is_outdated = false;
	return std::move(execution);
}

unique_ptr<SQLStatement> ExecutionOf(ClientContext &context, SQLStatement &statement,
                                     const optional<TextTemplate> &text) {
	if (!statement.named_param_map.empty()) {
		return nullptr;
	}
	auto repeated = RepeatedInsert(statement);
	if (!repeated) {
		repeated = RepeatedLookup(statement);
	}
	if (!repeated) {
		return nullptr;
	}
	auto state = context.registered_state->GetOrCreate<PreparedStatements>(STATE);
	auto prepared = state->Find(repeated->Key());
	unique_ptr<ExecuteStatement> execution;
	auto is_new = false;
	auto is_to_prepare = false;
	context.RunFunctionInTransaction([&]() {
		auto table = TableOf(context, repeated->TableName());
		if (!table) {
			return;
		}
		is_new = prepared->table != table.get();
		if (is_new || !prepared->data) {
			// Another table may be where a dropped one was; what has been prepared knows that.
			prepared->table = table.get();
			prepared->table_name = repeated->TableName();
			prepared->kind = repeated->Kind();
			prepared->types = repeated->Types(context, *table);
		}
		if (is_new || prepared->types.empty() || (!prepared->data && prepared->tries >= TRIES_MAX)) {
			return;
		}
		auto values = ToValues(context, *prepared, repeated->GetConstants());
		is_to_prepare = values && !prepared->data;
		if (values && prepared->data) {
			execution = Bind(context, *prepared, std::move(*values));
			is_new = !execution;
		}
	});
	if (is_new) {
		prepared->Forget();
	}
	if (is_to_prepare) {
		// For the next one: the table may have been changed since it was looked at, and then another one is found.
		prepared->tries++;
		repeated->Prepare(context, *prepared);
	}
	if (!execution) {
		return nullptr;
	}
	if (text) {
		state->Learn(context, *text, *repeated, prepared);
	}
	return Run(*state, *prepared, std::move(execution), statement.query);
}

vector<Constant> ConstantsOf(const KnownText &known, const TextTemplate &text) {
	auto constants = known.constants;
	for (idx_t i = 0; i < constants.size(); i++) {
		if (known.literals[i].IsValid()) {
			constants[i].literal = text.literals[known.literals[i].GetIndex()].literal;
		}
	}
	return constants;
}

//! What runs in the place of a text, if it is known what such texts are, and nothing has changed. `sql` is the text.
unique_ptr<SQLStatement> ExecutionOfText(ClientContext &context, const TextTemplate &text, string sql) {
	auto state = context.registered_state->Get<PreparedStatements>(STATE);
	auto entry = state ? state->texts.find(text.text) : decltype(state->texts.end()) {};
	if (!state || entry == state->texts.end()) {
		return nullptr;
	}
	auto &known = entry->second;
	auto &prepared = *known.prepared;
	unique_ptr<ExecuteStatement> execution;
	if (prepared.data && known.settings == ParserSettings(context)) {
		auto constants = ConstantsOf(known, text);
		context.RunFunctionInTransaction([&]() {
			auto table = TableOf(context, prepared.table_name);
			auto values = table && table.get() == prepared.table ? ToValues(context, prepared, constants)
			                                                     : optional<vector<Value>>();
			if (values) {
				execution = Bind(context, prepared, std::move(*values));
			}
		});
	}
	if (!execution) {
		// It is learnt anew from what is parsed.
		state->texts.erase(entry);
		return nullptr;
	}
	return Run(*state, prepared, std::move(execution), std::move(sql));
}

bool IsSame(const ClientProperties &left, const ClientProperties &right) {
	return left.time_zone == right.time_zone && left.arrow_offset_size == right.arrow_offset_size &&
	       left.arrow_use_list_view == right.arrow_use_list_view &&
	       left.produce_arrow_string_view == right.produce_arrow_string_view &&
	       left.arrow_lossless_conversion == right.arrow_lossless_conversion &&
	       left.arrow_output_version == right.arrow_output_version;
}

//! Whether somebody wants to know of each query, or how it is executed.
bool IsWatched(ClientContext &context) {
	return ClientConfig::GetConfig(context).enable_profiler || ClientData::Get(context).log_query_writer ||
	       Logger::Get(context).ShouldLog(QueryLogType::NAME, QueryLogType::LEVEL);
}

//! As DuckDB does it when it executes a statement that is prepared.
void ModifyDatabases(ClientContext &context, const StatementProperties &properties) {
	for (auto &modified : properties.modified_databases) {
		auto database = DatabaseManager::Get(context).GetDatabase(context, modified.first);
		if (!database || database->IsReadOnly()) {
			throw InvalidInputException("Cannot execute an INSERT on database %s which is attached in read-only mode!",
			                            modified.first);
		}
		MetaTransaction::Get(context).ModifyDatabase(*database, modified.second.modifications);
	}
}

//! Runs a statement that is short, if it is known what such texts are, and nothing has changed: its row, if there is one, goes
//! to `array`. Whether it has been run.
bool RunShort(ClientContext &context, const TextTemplate &text, ArrowArray &array, idx_t &schema_number,
              optional_idx &catalog_version) {
	static std::atomic<idx_t> schemas {0};
	auto state = context.registered_state->Get<PreparedStatements>(STATE);
	auto entry = state ? state->texts.find(text.text) : decltype(state->texts.end()) {};
	if (!state || entry == state->texts.end() || !entry->second.prepared->is_short ||
	    !context.transaction.IsAutoCommit() || IsWatched(context)) {
		return false;
	}
	auto &known = entry->second;
	auto &prepared = *known.prepared;
	if (!prepared.data || !(known.settings == ParserSettings(context))) {
		return false;
	}
	auto constants = ConstantsOf(known, text);
	auto has_run = false;
	context.RunFunctionInTransaction([&]() {
		auto table = TableOf(context, prepared.table_name);
		auto values = table && table.get() == prepared.table ? ToValues(context, prepared, constants)
		                                                     : optional<vector<Value>>();
		if (!values) {
			return;
		}
		ExecuteStatement execution;
		prepared.kind->Bind(prepared, *values, execution);
		if (prepared.data->RequireRebind(context, execution.bound_values)) {
			return;
		}
		catalog_version = table->ParentCatalog().GetCatalogVersion(context);
		ModifyDatabases(context, prepared.data->properties);
		// As for any query: what it reads is kept by those who clean up.
		context.transaction.SetActiveQuery(DatabaseManager::Get(context).GetNewQueryNumber());
		prepared.kind->RunShort(context, prepared, *values, [&](DataChunk &rows) {
			if (has_run) {
				throw InternalException("a statement that is short has yielded several rows");
			}
			array = ToArrow(context, prepared.data->types, rows);
			has_run = true;
		});
		has_run = true;
		context.transaction.ResetActiveQuery();
	});
	auto properties = context.GetClientProperties();
	if (has_run && (!prepared.properties || !IsSame(*prepared.properties, properties))) {
		prepared.properties = properties;
		prepared.schema_number = ++schemas;
	}
	schema_number = prepared.schema_number;
	return has_run;
}

//! The columns of what was run last, with that text; the types as DuckDB writes them, a line each.
string ColumnsOf(ClientContext &context, const TextTemplate &text, ArrowSchema &schema) {
	auto state = context.registered_state->Get<PreparedStatements>(STATE);
	auto &data = *state->texts.at(text.text).prepared->data;
	vector<string> names;
	for (auto &name : data.names) {
		names.push_back(name.GetIdentifierName());
	}
	auto properties = context.GetClientProperties();
	ArrowConverter::ToArrowSchema(&schema, data.types, names, properties);
	string types;
	for (auto &type : data.types) {
		types += type.ToString() + "\n";
	}
	return types;
}

//! The execution of a plan that is kept.
class ExecutionOfPlan : public LogicalExecute {
public:
	explicit ExecutionOfPlan(shared_ptr<PreparedStatementData> prepared) : LogicalExecute(std::move(prepared)) {
	}

	bool RequireOptimizer() const override {
		return false;
	}
};

} // namespace

void SkipOptimizer(BoundStatement &bound) {
	if (bound.plan->type != LogicalOperatorType::LOGICAL_EXECUTE || !bound.plan->children.empty()) {
		return;
	}
	auto &prepared = bound.plan->Cast<LogicalExecute>().prepared;
	if (prepared->physical_plan) {
		bound.plan = make_uniq<ExecutionOfPlan>(prepared);
	}
}

} // namespace duckling

extern "C" {

//! A literal of a text: where it begins, and what it means.
struct DucklingLiteral {
	size_t offset;
	bool is_string;
	HerdText text;
};

static duckling::TextTemplate ToTemplate(HerdText text, const DucklingLiteral *literals, size_t count) {
	using duckdb::Literal;
	duckling::TextTemplate result {herd::StringOf(text), {}};
	for (size_t i = 0; i < count; i++) {
		auto value = herd::StringOf(literals[i].text);
		duckling::Constant constant;
		constant.literal = literals[i].is_string ? Literal::String(value) : Literal::Number(value);
		constant.offset = literals[i].offset;
		result.literals.push_back(std::move(constant));
	}
	return result;
}

//! Puts what runs in the place of a statement into `execution`; null if it runs as it is. `text` is the template of its
//! text, null if that has none. An error, or null.
char *duckling_prepared(void *connection, void *statement, const HerdText *text, const DucklingLiteral *literals,
                        size_t count, void **execution) {
	*execution = nullptr;
	return herd::Caught([&]() {
		duckdb::optional<duckling::TextTemplate> known;
		if (text) {
			known = ToTemplate(*text, literals, count);
		}
		auto &parsed = *static_cast<duckdb::SQLStatement *>(statement);
		*execution = duckling::ExecutionOf(herd::ContextOf(connection), parsed, known).release();
	});
}

//! The same for `sql`, of which `text` is the template: null unless it is known what such texts are.
char *duckling_prepared_of_text(void *connection, HerdText sql, HerdText text, const DucklingLiteral *literals,
                                size_t count, void **execution) {
	*execution = nullptr;
	return herd::Caught([&]() {
		auto known = ToTemplate(text, literals, count);
		auto &context = herd::ContextOf(connection);
		*execution = duckling::ExecutionOfText(context, known, herd::StringOf(sql)).release();
	});
}

//! Runs a statement of which `text` is the template, if it is known to be short: then `has_run` is set, and its row goes to
//! `array`, if it has one. With another `schema` than before, ask for its columns. `catalog_version` is left alone if its table's
//! catalog has none.
char *duckling_run_short(void *connection, HerdText text, const DucklingLiteral *literals, size_t count,
                       ArrowArray *array, uint64_t *schema, uint64_t *catalog_version, bool *has_run) {
	*has_run = false;
	return herd::Caught([&]() {
		duckdb::idx_t schema_number = 0;
		duckdb::optional_idx version;
		auto known = ToTemplate(text, literals, count);
		*has_run = duckling::RunShort(herd::ContextOf(connection), known, *array, schema_number, version);
		*schema = schema_number;
		if (version.IsValid()) {
			*catalog_version = version.GetIndex();
		}
	});
}

//! The version of the default database's catalog that the open transaction sees; left alone if there is none.
char *duckling_catalog_version(void *connection, uint64_t *version) {
	return herd::Caught([&]() {
		auto &context = herd::ContextOf(connection);
		context.RunFunctionInTransaction([&]() {
			auto found = duckdb::Catalog::GetCatalog(context, duckdb::DatabaseManager::GetDefaultDatabase(context))
			                 .GetCatalogVersion(context);
			if (found.IsValid()) {
				*version = found.GetIndex();
			}
		});
	});
}

//! The columns of what was run last, with that text; `types` gets each type as DuckDB writes it, a line each, to be
//! freed.
char *duckling_short_columns(void *connection, HerdText text, ArrowSchema *schema, char **types) {
	*types = nullptr;
	return herd::Caught([&]() {
		auto known = ToTemplate(text, nullptr, 0);
		*types = strdup(duckling::ColumnsOf(herd::ContextOf(connection), known, *schema).c_str());
	});
}

//! Whether texts of that template are known to be statements that yield one row at most, and take no time.
bool duckling_prepared_is_short(void *connection, HerdText text) {
	using duckling::PreparedStatements;
	try {
		auto state = herd::ContextOf(connection).registered_state->Get<PreparedStatements>(duckling::STATE);
		auto entry = state ? state->texts.find(herd::StringOf(text)) : decltype(state->texts.end()) {};
		return state && entry != state->texts.end() && entry->second.prepared->data && entry->second.prepared->is_short;
	} catch (...) { // NOLINT: nothing may be thrown into Rust
		return false;
	}
}

//! Whether what was given last was not run, as the table has changed in between.
bool duckling_prepared_is_outdated(void *connection) {
	using duckling::PreparedStatements;
	try {
		auto state = herd::ContextOf(connection).registered_state->Get<PreparedStatements>(duckling::STATE);
		return state && state->is_outdated;
	} catch (...) { // NOLINT: nothing may be thrown into Rust
		return false;
	}
}
}
