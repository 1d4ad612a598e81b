#include "herd_json.hpp"

#include "duckdb/common/exception.hpp"

#include "yyjson.hpp"

namespace herd {

using namespace duckdb;
using namespace duckdb_yyjson; // NOLINT

string JsonText(const string &text) {
	string result = "\"";
	for (auto c : text) {
		switch (c) {
		case '"':
			result += "\\\"";
			break;
		case '\\':
			result += "\\\\";
			break;
		default:
			if (static_cast<unsigned char>(c) < 0x20) {
				static constexpr const char *DIGITS = "0123456789abcdef";
				result += "\\u00";
				result += DIGITS[static_cast<unsigned char>(c) >> 4];
				result += DIGITS[static_cast<unsigned char>(c) & 15];
			} else {
				result += c;
			}
		}
	}
	return result + "\"";
}

string JsonColumns(const vector<LogicalType> &types) {
	return JsonList(types.size(), [&](idx_t i) {
		return "{\"name\":\"c" + to_string(i) + "\",\"type_text\":" + JsonText(types[i].ToString()) + "}";
	});
}

string ScanQuery(const string &placement, const string &sql, const vector<LogicalType> &types) {
	unique_ptr<yyjson_doc, void (*)(yyjson_doc *)> document(yyjson_read(placement.c_str(), placement.size(), 0),
	                                                        yyjson_doc_free);
	if (!document) {
		throw IOException("the placement of a herd's table is not readable");
	}
	auto root = yyjson_doc_get_root(document.get());
	auto replicated = yyjson_obj_get(root, "workers");
	vector<string> workers;
	idx_t index, count;
	yyjson_val *worker;
	yyjson_arr_foreach(replicated ? replicated : yyjson_obj_get(root, "partitions"), index, count, worker) {
		auto text = JsonText(yyjson_get_str(worker));
		if (std::find(workers.begin(), workers.end(), text) == workers.end()) {
			workers.push_back(std::move(text));
		}
		if (replicated) {
			break;
		}
	}
	return "{\"stages\":[{\"id\":0,\"sql\":" + JsonText(sql) + ",\"workers\":[" + StringUtil::Join(workers, ",") +
	       "],\"columns\":" + JsonColumns(types) + ",\"output\":{\"kind\":\"gather\"},\"inputs\":[]}]}";
}

} // namespace herd
