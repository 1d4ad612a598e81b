#include "variant_check.hpp"

#include "duckdb/common/types/decimal.hpp"
#include "duckdb/common/types/geometry.hpp"
#include "duckdb/common/types/string_heap.hpp"
#include "duckdb/common/types/value.hpp"
#include "duckdb/common/types/variant.hpp"
#include "duckdb/common/vector/flat_vector.hpp"
#include "duckdb/common/vector/list_vector.hpp"
#include "duckdb/common/vector/variant_vector.hpp"

#include <cstring>

namespace duckherder {

using namespace duckdb;

namespace {

//! Objects and arrays in each other. DuckDB's functions recurse into them.
constexpr idx_t DEPTH_MAX = 1000;

constexpr int64_t DAY_US = 24LL * 60 * 60 * 1000 * 1000;
constexpr int64_t DAY_NS = DAY_US * 1000;

//! Seconds of the largest offset of TIME WITH TIME ZONE (`dtime_tz_t::MAX_OFFSET`).
constexpr int64_t OFFSET_MAX = 16 * 60 * 60 - 1;

[[noreturn]] void Malformed(const char *what) {
	throw InvalidInputException("a malformed VARIANT value: %s", what);
}

//! What is left of a value's bytes.
class Bytes {
public:
	Bytes(const char *data, idx_t size) : data(data), size(size) {
	}

	const char *Take(idx_t count) {
		if (count > size) {
			Malformed("its data ends early");
		}
		auto taken = data;
		data += count;
		size -= count;
		return taken;
	}

	template <class T>
	T Read() {
		T value;
		memcpy(&value, Take(sizeof(T)), sizeof(T));
		return value;
	}

	//! As `VarintDecode` reads it.
	uint32_t ReadVarint() {
		uint64_t value = 0;
		for (idx_t shift = 0; shift < 35; shift += 7) {
			auto byte = Read<uint8_t>();
			value |= static_cast<uint64_t>(byte & 127) << shift;
			if ((byte & 128) == 0) {
				if (value > NumericLimits<uint32_t>::Maximum()) {
					break;
				}
				return static_cast<uint32_t>(value);
			}
		}
		Malformed("a number is too large");
	}

	//! Bytes with their length before them.
	Bytes ReadBytes() {
		auto length = ReadVarint();
		return Bytes(Take(length), length);
	}

	const char *Data() const {
		return data;
	}
	idx_t Size() const {
		return size;
	}

private:
	const char *data;
	idx_t size;
};

void CheckText(const char *data, idx_t size) {
	if (!Value::StringIsValid(data, size)) {
		Malformed("text is not UTF-8");
	}
}

void CheckTime(int64_t time, int64_t day) {
	if (time < 0 || time > day) {
		Malformed("a TIME is out of range");
	}
}

//! DuckDB makes a TIMESTAMP of it, of microseconds, to write it out.
void CheckTimestamp(int64_t timestamp, int64_t us_per_unit) {
	auto infinity = NumericLimits<int64_t>::Maximum();
	auto limit = infinity / us_per_unit;
	if (timestamp != infinity && timestamp != -infinity && (timestamp > limit || timestamp < -limit)) {
		Malformed("a TIMESTAMP is out of range");
	}
}

//! `Bit`: the number of padding bits, then the bits, behind padding of ones.
void CheckBits(const Bytes &bits) {
	auto data = reinterpret_cast<const uint8_t *>(bits.Data());
	if (bits.Size() == 1 && data[0] == 0) {
		return;
	}
	if (bits.Size() < 2 || data[0] > 7) {
		Malformed("a BIT has another length than it says");
	}
	auto padding = static_cast<uint8_t>(0xFF << (8 - data[0]));
	if ((data[1] & padding) != padding) {
		Malformed("a BIT has other padding than it says");
	}
}

//! `Bignum`: three bytes of sign and length, then the magnitude; all inverted if it is negative.
void CheckBignum(const Bytes &bignum) {
	auto data = reinterpret_cast<const uint8_t *>(bignum.Data());
	if (bignum.Size() < 4) {
		Malformed("a BIGNUM is too short");
	}
	auto header = static_cast<uint32_t>(data[0]) << 16 | static_cast<uint32_t>(data[1]) << 8 | data[2];
	auto length = (header & 0x800000) != 0 ? header & 0x7FFFFF : ~header & 0x7FFFFF;
	if (length != bignum.Size() - 3) {
		Malformed("a BIGNUM has another length than it says");
	}
}

//! WKB as DuckDB writes it itself: little-endian, without an SRID.
void CheckGeometry(const Bytes &geometry) {
	string_t wkb(geometry.Data(), NumericCast<uint32_t>(geometry.Size()));
	string_t own;
	StringHeap heap;
	if (!Geometry::FromBinary(wkb, own, heap, false) || own != wkb) {
		Malformed("a GEOMETRY is not as DuckDB writes it");
	}
}

void CheckDecimal(Bytes &bytes) {
	auto width = bytes.ReadVarint();
	auto scale = bytes.ReadVarint();
	if (width == 0 || width > Decimal::MAX_WIDTH_DECIMAL || scale > width) {
		Malformed("there is no DECIMAL of such a width or scale");
	}
	hugeint_t value;
	if (width <= Decimal::MAX_WIDTH_INT16) {
		value = bytes.Read<int16_t>();
	} else if (width <= Decimal::MAX_WIDTH_INT32) {
		value = bytes.Read<int32_t>();
	} else if (width <= Decimal::MAX_WIDTH_INT64) {
		value = bytes.Read<int64_t>();
	} else {
		value = bytes.Read<hugeint_t>();
	}
	auto limit = Hugeint::POWERS_OF_TEN[width];
	if (value >= limit || value <= -limit) {
		Malformed("a DECIMAL has more digits than its width");
	}
}

struct Entries {
	const list_entry_t *lists;
	idx_t size;

	list_entry_t operator[](idx_t row) const {
		auto entry = lists[row];
		if (entry.offset > size || entry.length > size - entry.offset) {
			Malformed("a list is longer than what it is part of");
		}
		return entry;
	}
};

Entries EntriesOf(const Vector &list) {
	return {FlatVector::GetData<list_entry_t>(list), ListVector::GetListSize(list)};
}

class Checker {
public:
	explicit Checker(Vector &variants)
	    : validity(FlatVector::Validity(variants)), keys_list(VariantVector::GetKeys(variants)),
	      children_list(VariantVector::GetChildren(variants)), values_list(VariantVector::GetValues(variants)),
	      data(VariantVector::GetData(variants)), key_texts(ListVector::GetChild(keys_list)),
	      children_entries(ListVector::GetChild(children_list)), values_entries(ListVector::GetChild(values_list)),
	      keys_index(VariantVector::GetChildrenKeysIndex(variants)),
	      values_index(VariantVector::GetChildrenValuesIndex(variants)),
	      type_ids(VariantVector::GetValuesTypeId(variants)), byte_offsets(VariantVector::GetValuesByteOffset(variants)),
	      keys(EntriesOf(keys_list)), children(EntriesOf(children_list)), values(EntriesOf(values_list)) {
	}

	void CheckRow(idx_t row) {
		if (!validity.RowIsValid(row)) {
			return;
		}
		for (auto part : {&keys_list, &children_list, &values_list, &data}) {
			RefuseNull(*part, row);
		}
		key_count = CheckKeys(row);
		auto row_children = children[row];
		auto row_values = values[row];
		if (row_values.length == 0) {
			Malformed("it has no value");
		}
		CheckChildren(row_children, row_values.length);
		depths.assign(row_values.length, 0);
		depths[0] = 1;
		found.assign(1, 0);
		for (idx_t i = 0; i < found.size(); i++) {
			CheckValue(row, row_children, row_values, found[i]);
		}
		// What the first value does not lead to need not be a tree.
		for (idx_t i = 0; i < depths.size(); i++) {
			if (depths[i] == 0) {
				CheckValue(row, row_children, row_values, i);
			}
		}
	}

private:
	static void RefuseNull(const Vector &vector, idx_t index) {
		if (!FlatVector::Validity(vector).RowIsValid(index)) {
			Malformed("a part of it is NULL");
		}
	}

	idx_t CheckKeys(idx_t row) const {
		auto row_keys = keys[row];
		auto texts = FlatVector::GetData<string_t>(key_texts);
		for (idx_t i = row_keys.offset; i < row_keys.offset + row_keys.length; i++) {
			RefuseNull(key_texts, i);
			CheckText(texts[i].GetData(), texts[i].GetSize());
		}
		return row_keys.length;
	}

	void CheckChildren(list_entry_t row_children, idx_t value_count) const {
		auto key = FlatVector::GetData<uint32_t>(keys_index);
		auto value = FlatVector::GetData<uint32_t>(values_index);
		for (idx_t i = row_children.offset; i < row_children.offset + row_children.length; i++) {
			RefuseNull(children_entries, i);
			RefuseNull(values_index, i);
			if (value[i] >= value_count || (FlatVector::Validity(keys_index).RowIsValid(i) && key[i] >= key_count)) {
				Malformed("an index leads nowhere");
			}
		}
	}

	void CheckValue(idx_t row, list_entry_t row_children, list_entry_t row_values, idx_t index) {
		auto entry = row_values.offset + index;
		RefuseNull(values_entries, entry);
		RefuseNull(type_ids, entry);
		RefuseNull(byte_offsets, entry);
		auto &blob = FlatVector::GetData<string_t>(data)[row];
		Bytes bytes(blob.GetData(), blob.GetSize());
		bytes.Take(FlatVector::GetData<uint32_t>(byte_offsets)[entry]);
		auto type = static_cast<VariantLogicalType>(FlatVector::GetData<uint8_t>(type_ids)[entry]);
		if (type == VariantLogicalType::OBJECT || type == VariantLogicalType::ARRAY) {
			CheckNested(row_children, bytes, type == VariantLogicalType::OBJECT, depths[index]);
		} else {
			CheckSimple(type, bytes);
		}
	}

	//! A value that two others lead to, or one leads to twice, could lead to itself.
	void CheckNested(list_entry_t row_children, Bytes &bytes, bool is_object, idx_t depth) {
		auto count = bytes.ReadVarint();
		auto first = count > 0 ? bytes.ReadVarint() : 0;
		if (first > row_children.length || count > row_children.length - first) {
			Malformed("it has fewer children than it says");
		}
		if (depth >= DEPTH_MAX) {
			Malformed("it is too deep");
		}
		auto value = FlatVector::GetData<uint32_t>(values_index);
		for (idx_t i = row_children.offset + first; i < row_children.offset + first + count; i++) {
			if (is_object != FlatVector::Validity(keys_index).RowIsValid(i)) {
				Malformed("fields have keys, items have none");
			}
			if (depth == 0) {
				continue;
			}
			if (depths[value[i]] != 0) {
				Malformed("it is no tree");
			}
			depths[value[i]] = depth + 1;
			found.push_back(value[i]);
		}
	}

	static void CheckSimple(VariantLogicalType type, Bytes &bytes) {
		switch (type) {
		case VariantLogicalType::VARIANT_NULL:
		case VariantLogicalType::BOOL_TRUE:
		case VariantLogicalType::BOOL_FALSE:
			break;
		case VariantLogicalType::INT8:
		case VariantLogicalType::UINT8:
			bytes.Take(1);
			break;
		case VariantLogicalType::INT16:
		case VariantLogicalType::UINT16:
			bytes.Take(2);
			break;
		case VariantLogicalType::INT32:
		case VariantLogicalType::UINT32:
		case VariantLogicalType::FLOAT:
		case VariantLogicalType::DATE:
			bytes.Take(4);
			break;
		case VariantLogicalType::INT64:
		case VariantLogicalType::UINT64:
		case VariantLogicalType::DOUBLE:
		case VariantLogicalType::TIMESTAMP_MICROS:
		case VariantLogicalType::TIMESTAMP_NANOS:
		case VariantLogicalType::TIMESTAMP_MICROS_TZ:
		case VariantLogicalType::TIMESTAMP_NANOS_TZ:
			bytes.Take(8);
			break;
		case VariantLogicalType::INT128:
		case VariantLogicalType::UINT128:
		case VariantLogicalType::UUID:
		case VariantLogicalType::INTERVAL:
			bytes.Take(16);
			break;
		case VariantLogicalType::TIMESTAMP_SEC:
			CheckTimestamp(bytes.Read<int64_t>(), 1000 * 1000);
			break;
		case VariantLogicalType::TIMESTAMP_MILIS:
			CheckTimestamp(bytes.Read<int64_t>(), 1000);
			break;
		case VariantLogicalType::TIME_MICROS:
			CheckTime(bytes.Read<int64_t>(), DAY_US);
			break;
		case VariantLogicalType::TIME_NANOS:
			CheckTime(bytes.Read<int64_t>(), DAY_NS);
			break;
		case VariantLogicalType::TIME_MICROS_TZ: {
			auto bits = bytes.Read<uint64_t>();
			CheckTime(static_cast<int64_t>(bits >> 24), DAY_US);
			if ((bits & 0xFFFFFF) > 2 * OFFSET_MAX) {
				Malformed("an offset of TIME WITH TIME ZONE is out of range");
			}
			break;
		}
		case VariantLogicalType::DECIMAL:
			CheckDecimal(bytes);
			break;
		case VariantLogicalType::VARCHAR: {
			auto text = bytes.ReadBytes();
			CheckText(text.Data(), text.Size());
			break;
		}
		case VariantLogicalType::BLOB:
			bytes.ReadBytes();
			break;
		case VariantLogicalType::BIGNUM:
			CheckBignum(bytes.ReadBytes());
			break;
		case VariantLogicalType::BITSTRING:
			CheckBits(bytes.ReadBytes());
			break;
		case VariantLogicalType::GEOMETRY:
			CheckGeometry(bytes.ReadBytes());
			break;
		default:
			Malformed("its type is unknown");
		}
	}

	const ValidityMask &validity;
	Vector &keys_list;
	Vector &children_list;
	Vector &values_list;
	Vector &data;
	const Vector &key_texts;
	const Vector &children_entries;
	const Vector &values_entries;
	Vector &keys_index;
	Vector &values_index;
	Vector &type_ids;
	Vector &byte_offsets;
	Entries keys;
	Entries children;
	Entries values;

	//! Of the row being checked: how many keys there are, how deep each value is that has been found, and these in order.
	idx_t key_count = 0;
	vector<idx_t> depths;
	vector<idx_t> found;
};

} // namespace

void CheckVariants(Vector &variants) {
	Checker checker(variants);
	for (idx_t row = 0; row < variants.size(); row++) {
		checker.CheckRow(row);
	}
}

} // namespace duckherder
