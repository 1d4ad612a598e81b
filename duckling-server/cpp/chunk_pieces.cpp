#include "chunk_pieces.hpp"

#include "small_dictionary.hpp"

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

//! What values of a type that varies take beside their columns' fixed part.
class Lengths {
public:
	explicit Lengths(const Vector &vector) {
		Vector::RecursiveToUnifiedFormat(vector, format);
		is_short = HasShortEntries(vector);
	}

	//! That, or somewhat more.
	idx_t Of(idx_t from, idx_t to) const {
		if (is_short) {
			return (to - from) * length_max;
		}
		return Of(format, from, to);
	}

private:
	//! Whether strings come from a dictionary that is small beside the rows, and are short: they are not measured.
	bool HasShortEntries(const Vector &vector) {
		auto size = SmallDictionarySize(vector, vector.size());
		if (!size.IsValid()) {
			return false;
		}
		auto strings = format.unified.GetData<string_t>();
		for (idx_t i = 0; i < size.GetIndex(); i++) {
			if (format.unified.validity.RowIsValid(i)) {
				length_max = MaxValue<idx_t>(length_max, strings[i].GetSize());
			}
		}
		return length_max <= SHORT_STRING_BYTES;
	}

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
		if (!values.sel->IsSet() && values.validity.CheckAllValid(to)) {
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

	bool is_short = false;
	//! Of a dictionary's entries.
	idx_t length_max = 0;
	RecursiveUnifiedVectorFormat format;
};

class Pieces {
public:
	Pieces(DataChunk &chunk, idx_t bytes_max, const TakePiece &take) : chunk(chunk), bytes_max(bytes_max), take(take) {
		columns.reserve(chunk.ColumnCount());
		for (auto &column : chunk.data) {
			if (Varies(column.GetType())) {
				columns.emplace_back(column);
			}
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
	//! Of columns whose type varies.
	vector<Lengths> columns;
};

} // namespace

void TakeInPieces(DataChunk &chunk, idx_t bytes_max, const TakePiece &take) {
	Pieces(chunk, bytes_max, take).Take(0, chunk.size());
}

} // namespace duckherder
