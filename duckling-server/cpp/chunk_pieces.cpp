#include "chunk_pieces.hpp"

#include "duckdb/common/type_visitor.hpp"
#include "duckdb/common/types/string_type.hpp"
#include "duckdb/common/vector/unified_vector_format.hpp"

namespace duckherder {

using namespace duckdb;

namespace {

//! Whether values of a type have a length of their own.
bool Varies(const LogicalType &type) {
	auto physical = type.InternalType();
	if (physical != PhysicalType::STRUCT && physical != PhysicalType::ARRAY) {
		return physical == PhysicalType::VARCHAR || physical == PhysicalType::LIST;
	}
	return TypeVisitor::Contains(type, [](const LogicalType &part) {
		auto physical = part.InternalType();
		return physical == PhysicalType::VARCHAR || physical == PhysicalType::LIST || part.id() == LogicalTypeId::VARIANT;
	});
}

//! What values take beside their columns' fixed part.
class Lengths {
public:
	explicit Lengths(const Vector &vector) : varies(Varies(vector.GetType())) {
		if (varies) {
			Vector::RecursiveToUnifiedFormat(vector, format);
		}
	}

	idx_t Of(idx_t from, idx_t to) const {
		return varies ? Of(format, from, to) : 0;
	}

private:
	static idx_t Of(const RecursiveUnifiedVectorFormat &values, idx_t from, idx_t to) {
		auto physical = values.logical_type.InternalType();
		if (physical == PhysicalType::VARCHAR) {
			return OfStrings(values.unified, from, to);
		}
		if (physical != PhysicalType::LIST && physical != PhysicalType::ARRAY && physical != PhysicalType::STRUCT) {
			return 0;
		}
		idx_t bytes = 0;
		for (auto row = from; row < to; row++) {
			auto place = values.unified.sel->get_index(row);
			// What stands in the place of a NULL may be anything.
			if (values.unified.validity.RowIsValid(place)) {
				bytes += OfNested(values, physical, place);
			}
		}
		return bytes;
	}

	static idx_t OfStrings(const UnifiedVectorFormat &values, idx_t from, idx_t to) {
		auto strings = values.GetData<string_t>();
		idx_t bytes = 0;
		if (!values.sel->IsSet() && values.validity.CannotHaveNull()) {
			for (auto row = from; row < to; row++) {
				bytes += strings[row].GetSize();
			}
			return bytes;
		}
		for (auto row = from; row < to; row++) {
			auto place = values.sel->get_index(row);
			bytes += values.validity.RowIsValid(place) ? strings[place].GetSize() : 0;
		}
		return bytes;
	}

	static idx_t OfNested(const RecursiveUnifiedVectorFormat &values, PhysicalType physical, idx_t place) {
		if (physical == PhysicalType::STRUCT) {
			idx_t bytes = 0;
			for (auto &child : values.children) {
				bytes += Of(child, place, place + 1);
			}
			return bytes;
		}
		auto &child = values.children[0];
		if (physical == PhysicalType::ARRAY) {
			auto size = ArrayType::GetSize(values.logical_type);
			return Of(child, place * size, (place + 1) * size);
		}
		auto &entry = values.unified.GetData<list_entry_t>()[place];
		auto width = GetTypeIdSize(child.logical_type.InternalType());
		return entry.length * width + Of(child, entry.offset, entry.offset + entry.length);
	}

	bool varies;
	RecursiveUnifiedVectorFormat format;
};

class Pieces {
public:
	Pieces(DataChunk &chunk, idx_t bytes_max, const TakePiece &take) : chunk(chunk), bytes_max(bytes_max), take(take) {
		for (auto &column : chunk.data) {
			columns.emplace_back(column);
		}
	}

	void Take(idx_t from, idx_t to) {
		auto bytes = Bytes(from, to);
		if (bytes > bytes_max && to - from > 1) {
			auto middle = from + (to - from) / 2;
			Take(from, middle);
			Take(middle, to);
			return;
		}
		if (to - from == chunk.size()) {
			return take(chunk, bytes);
		}
		DataChunk rows;
		rows.InitializeEmpty(chunk.GetTypes());
		rows.Slice(chunk, from, to);
		take(rows, bytes);
	}

private:
	idx_t Bytes(idx_t from, idx_t to) const {
		idx_t bytes = 0;
		for (auto &column : columns) {
			bytes += column.Of(from, to);
		}
		return bytes;
	}

	DataChunk &chunk;
	idx_t bytes_max;
	const TakePiece &take;
	vector<Lengths> columns;
};

} // namespace

void TakeInPieces(DataChunk &chunk, idx_t bytes_max, const TakePiece &take) {
	Pieces(chunk, bytes_max, take).Take(0, chunk.size());
}

} // namespace duckherder
