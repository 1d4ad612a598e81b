#include "stored_types.hpp"

#include "variant_check.hpp"

#include "duckdb/common/vector/array_vector.hpp"
#include "duckdb/common/vector/flat_vector.hpp"
#include "duckdb/common/vector/list_vector.hpp"
#include "duckdb/common/vector/struct_vector.hpp"
#include "duckdb/common/vector/union_vector.hpp"
#include "duckdb/common/vector_operations/vector_operations.hpp"

namespace duckherder {

using namespace duckdb;

namespace {

//! A field for each vector of a UNION.
child_list_t<LogicalType> StoredUnion(const LogicalType &type) {
	child_list_t<LogicalType> fields;
	fields.emplace_back("tag", LogicalType::UTINYINT);
	for (idx_t i = 0; i < UnionType::GetMemberCount(type); i++) {
		fields.emplace_back(to_string(i), StoredType(UnionType::GetMemberType(type, i)));
	}
	return fields;
}

//! The types of the vectors that a struct, or what DuckDB keeps as one, consists of.
vector<LogicalType> FieldTypes(const LogicalType &type) {
	vector<LogicalType> types;
	if (type.id() == LogicalTypeId::UNION) {
		types.push_back(LogicalType::UTINYINT);
		for (idx_t i = 0; i < UnionType::GetMemberCount(type); i++) {
			types.push_back(UnionType::GetMemberType(type, i));
		}
		return types;
	}
	for (auto &field : StructType::GetChildTypes(type)) {
		types.push_back(field.second);
	}
	return types;
}

void CheckUnion(Vector &vector) {
	auto reason = UnionVector::CheckUnionValidity(vector, vector.size(), *FlatVector::IncrementalSelectionVector());
	if (reason != UnionInvalidReason::VALID) {
		throw InvalidInputException("a malformed UNION value");
	}
}

//! The fields of an INTERVAL.
LogicalType StoredInterval() {
	return LogicalType::STRUCT(
	    {{"months", LogicalType::INTEGER}, {"days", LogicalType::INTEGER}, {"micros", LogicalType::BIGINT}});
}

Vector StoredIntervals(const Vector &from) {
	auto count = from.size();
	auto intervals = FlatVector::GetData<interval_t>(from);
	Vector result(StoredInterval(), capacity_t(MaxValue<idx_t>(count, 1)));
	auto &fields = StructVector::GetEntries(result);
	auto months = FlatVector::GetDataMutable<int32_t>(fields[0]);
	auto days = FlatVector::GetDataMutable<int32_t>(fields[1]);
	auto micros = FlatVector::GetDataMutable<int64_t>(fields[2]);
	for (idx_t row = 0; row < count; row++) {
		months[row] = intervals[row].months;
		days[row] = intervals[row].days;
		micros[row] = intervals[row].micros;
	}
	return result;
}

Vector IntervalsOf(const Vector &stored) {
	auto count = stored.size();
	auto &fields = StructVector::GetEntries(stored);
	for (auto &field : fields) {
		field.Flatten();
	}
	auto months = FlatVector::GetData<int32_t>(fields[0]);
	auto days = FlatVector::GetData<int32_t>(fields[1]);
	auto micros = FlatVector::GetData<int64_t>(fields[2]);
	Vector result(LogicalType::INTERVAL, capacity_t(MaxValue<idx_t>(count, 1)));
	auto intervals = FlatVector::GetDataMutable<interval_t>(result);
	for (idx_t row = 0; row < count; row++) {
		intervals[row].months = months[row];
		intervals[row].days = days[row];
		intervals[row].micros = micros[row];
	}
	return result;
}

//! `from` as a vector of `type`, which has the same layout, or is what an INTERVAL is stored as, or an INTERVAL.
Vector Converted(const Vector &from, const LogicalType &type) {
	if (from.GetType() == type) {
		return Vector::Ref(from);
	}
	from.Flatten();
	auto count = from.size();
	if (from.GetType().id() == LogicalTypeId::INTERVAL || type.id() == LogicalTypeId::INTERVAL) {
		auto is_stored = type.id() == LogicalTypeId::INTERVAL;
		if ((is_stored ? from.GetType() : type) != StoredInterval()) {
			throw InvalidInputException("a value of type %s does not have its layout", type.ToString());
		}
		auto result = is_stored ? IntervalsOf(from) : StoredIntervals(from);
		FlatVector::SetValidity(result, FlatVector::Validity(from));
		FlatVector::SetSize(result, count_t(count));
		return result;
	}
	Vector result(type, capacity_t(MaxValue<idx_t>(count, 1)));
	switch (type.InternalType()) {
	case PhysicalType::STRUCT: {
		auto types = FieldTypes(type);
		auto &fields = StructVector::GetEntries(from);
		auto &result_fields = StructVector::GetEntries(result);
		if (fields.size() != types.size()) {
			throw InvalidInputException("a value of type %s does not have its layout", type.ToString());
		}
		for (idx_t i = 0; i < types.size(); i++) {
			result_fields[i].Reference(Converted(fields[i], types[i]));
		}
		break;
	}
	case PhysicalType::LIST: {
		auto entries = FlatVector::GetData<list_entry_t>(from);
		auto result_entries = FlatVector::GetDataMutable<list_entry_t>(result);
		std::copy(entries, entries + count, result_entries);
		auto child = Converted(ListVector::GetChild(from), ListVector::GetChild(result).GetType());
		ListVector::GetChildMutable(result).Reference(child);
		break;
	}
	case PhysicalType::ARRAY: {
		auto child = Converted(ArrayVector::GetChild(from), ArrayVector::GetChild(result).GetType());
		ArrayVector::GetChildMutable(result).Reference(child);
		break;
	}
	default:
		throw InternalException("a value of type %s where %s was expected", from.GetType().ToString(), type.ToString());
	}
	FlatVector::SetValidity(result, FlatVector::Validity(from));
	FlatVector::SetSize(result, count_t(count));
	return result;
}

//! Checks what is not memory-safe by the layout alone.
void Check(Vector &vector) {
	auto &type = vector.GetType();
	if (StoredType(type) == type) {
		return;
	}
	if (type.id() == LogicalTypeId::VARIANT) {
		return CheckVariants(vector);
	}
	switch (type.InternalType()) {
	case PhysicalType::STRUCT:
		if (type.id() == LogicalTypeId::UNION) {
			CheckUnion(vector);
		}
		for (auto &field : StructVector::GetEntries(vector)) {
			Check(field);
		}
		break;
	case PhysicalType::LIST:
		Check(ListVector::GetChildMutable(vector));
		break;
	case PhysicalType::ARRAY:
		Check(ArrayVector::GetChildMutable(vector));
		break;
	default:
		break;
	}
}

} // namespace

LogicalType StoredType(const LogicalType &type) {
	switch (type.id()) {
	case LogicalTypeId::INTERVAL:
		return StoredInterval();
	case LogicalTypeId::UNION:
		return LogicalType::STRUCT(StoredUnion(type));
	case LogicalTypeId::VARIANT:
		return LogicalType::STRUCT(StructType::GetChildTypes(type));
	case LogicalTypeId::STRUCT:
	case LogicalTypeId::TUPLE: {
		auto fields = StructType::GetChildTypes(type);
		auto changed = false;
		for (auto &field : fields) {
			auto stored = StoredType(field.second);
			changed = changed || stored != field.second;
			field.second = std::move(stored);
		}
		if (!changed) {
			return type;
		}
		return type.id() == LogicalTypeId::TUPLE ? LogicalType::TUPLE(std::move(fields))
		                                         : LogicalType::STRUCT(std::move(fields));
	}
	case LogicalTypeId::LIST: {
		auto stored = StoredType(ListType::GetChildType(type));
		return stored == ListType::GetChildType(type) ? type : LogicalType::LIST(stored);
	}
	case LogicalTypeId::ARRAY: {
		auto stored = StoredType(ArrayType::GetChildType(type));
		return stored == ArrayType::GetChildType(type) ? type : LogicalType::ARRAY(stored, ArrayType::GetSize(type));
	}
	case LogicalTypeId::MAP: {
		auto key = StoredType(MapType::KeyType(type));
		auto value = StoredType(MapType::ValueType(type));
		auto same = key == MapType::KeyType(type) && value == MapType::ValueType(type);
		return same ? type : LogicalType::MAP(key, value);
	}
	default:
		return type;
	}
}

vector<LogicalType> StoredTypes(const vector<LogicalType> &types) {
	vector<LogicalType> stored;
	for (auto &type : types) {
		stored.push_back(StoredType(type));
	}
	return stored;
}

Vector ToStored(const Vector &vector) {
	return Converted(vector, StoredType(vector.GetType()));
}

Vector FromStored(const Vector &vector, const LogicalType &type) {
	auto result = Converted(vector, type);
	Check(result);
	return result;
}

void FromArriving(ClientContext &context, Vector &arrived, Vector &result) {
	auto &from = arrived.GetType();
	auto &to = result.GetType();
	if (from == to) {
		return result.Reference(arrived);
	}
	auto stored = StoredType(to);
	// Who was not asked for stored types sends Arrow's.
	if (stored == to || StoredType(from) != from) {
		return VectorOperations::Cast(context, arrived, result, arrived.size());
	}
	if (from == stored) {
		return result.Reference(FromStored(arrived, to));
	}
	// ENUM in it, for one, arrives as text.
	Vector cast(stored, capacity_t(MaxValue<idx_t>(arrived.size(), STANDARD_VECTOR_SIZE)));
	VectorOperations::Cast(context, arrived, cast, arrived.size());
	result.Reference(FromStored(cast, to));
}

StoredChunk::StoredChunk(DataChunk &chunk) : chunk(chunk) {
	auto types = StoredTypes(chunk.GetTypes());
	differs = types != chunk.GetTypes();
	if (!differs) {
		return;
	}
	stored.InitializeEmpty(types);
	for (idx_t i = 0; i < types.size(); i++) {
		stored.data[i].Reference(ToStored(chunk.data[i]));
	}
	stored.SetChildCardinality(chunk.size());
}

} // namespace duckherder
