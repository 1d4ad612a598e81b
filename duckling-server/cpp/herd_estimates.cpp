#include "herd_estimates.hpp"

#include "yyjson.hpp"

namespace herd {

using namespace duckdb;
using namespace duckdb_yyjson; // NOLINT

Estimates Estimates::FromJson(const string &json) {
	unique_ptr<yyjson_doc, void (*)(yyjson_doc *)> document(yyjson_read(json.c_str(), json.size(), 0), yyjson_doc_free);
	if (!document) {
		throw IOException("the estimates of a herd's table are not readable");
	}
	auto root = yyjson_doc_get_root(document.get());
	Estimates result;
	result.rows = yyjson_get_uint(yyjson_obj_get(root, "rows"));
	idx_t index, count;
	yyjson_val *distinct;
	yyjson_arr_foreach(yyjson_obj_get(root, "distinct"), index, count, distinct) {
		result.distinct.push_back(yyjson_get_uint(distinct));
	}
	return result;
}

idx_t Estimates::Distinct(idx_t column) const {
	return column < distinct.size() ? distinct[column] : 0;
}

unique_ptr<BaseStatistics> Estimates::Statistics(idx_t column, const LogicalType &type) const {
	auto count = Distinct(column);
	if (count == 0) {
		return nullptr;
	}
	auto result = BaseStatistics::CreateUnknown(type);
	result.SetDistinctCount(count);
	return result.ToUnique();
}

} // namespace herd
