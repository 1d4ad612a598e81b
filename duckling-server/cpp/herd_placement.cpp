#include "herd_placement.hpp"

#include "herd_json.hpp"

#include "duckdb/common/exception.hpp"
#include "duckdb/common/types/hash.hpp"
#include "duckdb/main/database.hpp"

#include "yyjson.hpp"

namespace herd {

using namespace duckdb;
using namespace duckdb_yyjson; // NOLINT

static vector<string> Texts(yyjson_val *list) {
	vector<string> result;
	idx_t index, count;
	yyjson_val *item;
	yyjson_arr_foreach(list, index, count, item) {
		auto text = yyjson_get_str(item);
		result.emplace_back(text ? text : "");
	}
	return result;
}

//! `hash_version` of `duckherder_catalog::herd::placement`.
static string HashVersion() {
	return string(DuckDB::LibraryVersion()) + " hash(hash)";
}

hash_t PartitionHash(hash_t hash) {
	return Hash<hash_t>(hash);
}

hash_t PartitionHash(const vector<Value> &keys) {
	vector<LogicalType> types;
	for (auto &key : keys) {
		types.push_back(key.type());
	}
	DataChunk chunk;
	chunk.InitializeEmpty(types);
	for (idx_t i = 0; i < keys.size(); i++) {
		chunk.data[i].Reference(keys[i], count_t(1));
	}
	chunk.SetChildCardinality(1);
	Vector hash(LogicalType::HASH);
	chunk.Hash(hash);
	hash.Flatten();
	return PartitionHash(FlatVector::GetData<hash_t>(hash)[0]);
}

void Placement::CheckWrites(const string &table) const {
	if (!hash_is_known) {
		throw NotImplementedException("The rows of table \"%s\" were divided by another version of Duckherder or DuckDB, and "
		                              "can only be read. Make a new table of them with CREATE TABLE … AS",
		                              table);
	}
}

string Placement::WorkersJson() const {
	return JsonList(workers.size(), [&](idx_t i) { return JsonText(workers[i]); });
}

string Placement::Describe() const {
	if (IsReplicated()) {
		return "replicated on " + to_string(workers.size()) + " workers";
	}
	auto how = keys.empty() ? string("even") : "hash(" + StringUtil::Join(keys, ", ") + ")";
	return how + ", " + to_string(partitions.size()) + " partitions on " + to_string(workers.size()) + " workers";
}

Placement Placement::Parse(const string &json) {
	unique_ptr<yyjson_doc, void (*)(yyjson_doc *)> document(yyjson_read(json.c_str(), json.size(), 0), yyjson_doc_free);
	if (!document) {
		throw IOException("the placement of a herd's table is not readable");
	}
	auto root = yyjson_doc_get_root(document.get());
	Placement result;
	result.keys = Texts(yyjson_obj_get(root, "keys"));
	auto version = yyjson_get_str(yyjson_obj_get(root, "hash_version"));
	result.hash_is_known = result.keys.empty() || (version && version == HashVersion());
	auto replicated = yyjson_obj_get(root, "workers");
	for (auto &worker : Texts(replicated ? replicated : yyjson_obj_get(root, "partitions"))) {
		auto found = std::find(result.workers.begin(), result.workers.end(), worker);
		auto index = NumericCast<idx_t>(found - result.workers.begin());
		if (found == result.workers.end()) {
			result.workers.push_back(worker);
		}
		if (!replicated) {
			result.partitions.push_back(index);
		}
	}
	if (result.workers.empty()) {
		throw IOException("the placement of a herd's table names no worker");
	}
	return result;
}

} // namespace herd
