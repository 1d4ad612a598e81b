#include "arrow_append.hpp"

#include "small_dictionary.hpp"

#include "duckdb/common/arrow/appender/fixed_size_list_data.hpp"
#include "duckdb/common/arrow/appender/list.hpp"

#include <array>
#include <cstring>
#include <limits>

namespace duckling {

using namespace duckdb;

namespace {

//! Strings of a small dictionary are written with this length at most, which is a constant.
constexpr idx_t ENTRY_BYTES = duckherder::SHORT_STRING_BYTES;

//! Buffers of strings have so many bytes more than are used.
constexpr idx_t SPARE_BYTES = ENTRY_BYTES;

//! Appends validity. DuckDB's function looks at each row. `has_null` may be true if nobody has looked.
void AppendValidity(ArrowAppendData &column, UnifiedVectorFormat &format, idx_t from, idx_t to, bool has_null = true) {
	auto rows = to - from;
	auto &buffer = column.GetValidityBuffer();
	auto had = buffer.size();
	buffer.resize((column.row_count + rows + 7) / 8);
	if (buffer.size() > had) {
		memset(buffer.data() + had, 0xFF, buffer.size() - had);
	}
	if (!has_null || format.validity.CannotHaveNull()) {
		return;
	}
	if (format.sel->IsSet() || column.row_count % 8 != 0 || from % 8 != 0) {
		column.AppendValidity(format, from, to);
		return;
	}
	auto target = buffer.data() + column.row_count / 8;
	auto source = const_data_ptr_cast(format.validity.GetData()) + from / 8;
	auto bytes = (rows + 7) / 8;
	memcpy(target, source, bytes);
	if (rows % 8 != 0) {
		// Rows to come are valid unless they say otherwise.
		target[bytes - 1] |= data_t(0xFF << (rows % 8));
	}
	idx_t null_count = 0;
	for (idx_t i = 0; i < bytes; i++) {
		null_count += 8 - idx_t(__builtin_popcount(target[i]));
	}
	column.null_count += null_count;
}

template <class TGT, class SRC>
TGT Widened(SRC value) {
	return value;
}

template <>
hugeint_t Widened(int64_t value) {
	return hugeint_t(value >> 63, uint64_t(value));
}

//! `ArrowScalarData<TGT, SRC>::Append`
template <class TGT, class SRC = TGT>
void AppendFixed(ArrowAppendData &column, const Vector &input, idx_t from, idx_t to, idx_t) {
	UnifiedVectorFormat format;
	input.ToUnifiedFormat(format);
	AppendValidity(column, format, from, to);
	auto rows = to - from;
	auto &buffer = column.GetMainBuffer();
	buffer.resize(buffer.size() + rows * sizeof(TGT));
	auto source = format.GetData<SRC>();
	auto target = buffer.GetData<TGT>() + column.row_count;
	if (format.sel->IsSet()) {
		for (idx_t row = 0; row < rows; row++) {
			target[row] = Widened<TGT, SRC>(source[format.sel->get_index_unsafe(from + row)]);
		}
	} else if (std::is_same<TGT, SRC>::value) {
		memcpy(target, source + from, rows * sizeof(TGT)); // NOLINT
	} else {
		for (idx_t row = 0; row < rows; row++) {
			target[row] = Widened<TGT, SRC>(source[from + row]);
		}
	}
	column.row_count += rows;
}

using Sixteen = std::array<uint64_t, 2>;

//! Copies `length` bytes, and for short strings more: up to 16 may be written.
inline void CopyString(data_ptr_t target, const string_t &string, idx_t length) {
	if (length <= string_t::INLINE_LENGTH) {
		memcpy(target, const_data_ptr_cast(&string) + sizeof(uint32_t), string_t::INLINE_LENGTH);
		return;
	}
	auto source = const_data_ptr_cast(string.GetPointer());
	if (length < sizeof(Sixteen)) {
		memcpy(target, source, 8);
		memcpy(target + length - 8, source + length - 8, 8);
	} else if (length <= 4 * sizeof(Sixteen)) {
		// Four pieces that overlap: lengths that differ do not make the processor guess.
		auto last = length - sizeof(Sixteen);
		auto second = MinValue<idx_t>(sizeof(Sixteen), last);
		auto third = length < 2 * sizeof(Sixteen) ? 0 : length - 2 * sizeof(Sixteen);
		const Sixteen pieces[] = {Load<Sixteen>(source), Load<Sixteen>(source + second), Load<Sixteen>(source + third),
		                          Load<Sixteen>(source + last)};
		Store(pieces[0], target);
		Store(pieces[1], target + second);
		Store(pieces[2], target + third);
		Store(pieces[3], target + last);
	} else {
		memcpy(target, source, length);
	}
}

//! The strings of a dictionary that is small beside the rows, side by side.
class SmallDictionary {
public:
	//! Whether `input`, of which that many rows are wanted, has one.
	bool Load(const Vector &input, const UnifiedVectorFormat &format, idx_t rows) {
		auto size = duckherder::SmallDictionarySize(input, rows);
		if (!size.IsValid() || size.GetIndex() > ENTRIES_MAX) {
			return false;
		}
		auto strings = format.GetData<string_t>();
		for (idx_t i = 0; i < size.GetIndex(); i++) {
			auto &entry = entries[i];
			entry.is_null = !format.validity.RowIsValid(i);
			entry.length = 0;
			if (entry.is_null) {
				continue;
			}
			if (strings[i].GetSize() > ENTRY_BYTES) {
				return false;
			}
			entry.length = UnsafeNumericCast<uint32_t>(strings[i].GetSize());
			length_max = MaxValue<idx_t>(length_max, entry.length);
			memcpy(entry.bytes.data(), strings[i].GetData(), entry.length);
		}
		return true;
	}

	struct Entry {
		std::array<char, ENTRY_BYTES> bytes;
		uint32_t length;
		bool is_null;
	};

	const Entry &operator[](idx_t index) const {
		return entries[index];
	}

	//! Of the longest one.
	idx_t LengthMax() const {
		return length_max;
	}

private:
	static constexpr idx_t ENTRIES_MAX = 64;

	std::array<Entry, ENTRIES_MAX> entries;
	idx_t length_max = 0;
};

//! `ArrowVarcharData<string_t, ArrowVarcharConverter, OFFSET>`
template <class OFFSET>
struct Strings {
	using Duck = ArrowVarcharData<string_t, ArrowVarcharConverter, OFFSET>;

	static void Append(ArrowAppendData &column, const Vector &input, idx_t from, idx_t to, idx_t) {
		UnifiedVectorFormat format;
		input.ToUnifiedFormat(format);
		auto same = [](idx_t row) {
			return row;
		};
		auto selected = [&](idx_t row) {
			return format.sel->get_index_unsafe(row);
		};
		auto is_valid = [&](idx_t source) {
			return format.validity.RowIsValid(source);
		};
		SmallDictionary dictionary;
		if (dictionary.Load(input, format, to - from)) {
			AppendEntries(column, dictionary, format, from, to);
		} else if (format.sel->IsSet()) {
			AppendTo(column, format, from, to, selected, is_valid);
		} else if (format.validity.CheckAllValid(to)) {
			AppendTo(column, format, from, to, same, [](idx_t) { return true; });
		} else {
			AppendTo(column, format, from, to, same, is_valid);
		}
	}

private:
	//! Room for the offsets of rows to come. The first of them is there.
	static OFFSET *AddOffsets(ArrowAppendData &column, idx_t rows) {
		auto &buffer = column.GetMainBuffer();
		buffer.resize((column.row_count + rows + 1) * sizeof(OFFSET));
		auto offsets = buffer.GetData<OFFSET>() + column.row_count;
		if (column.row_count == 0) {
			offsets[0] = 0;
		}
		return offsets;
	}

	static void CheckEnd(idx_t end) {
		if (end > idx_t(std::numeric_limits<OFFSET>::max())) {
			throw InvalidInputException("A row of the result has more than 2 GiB of text or bytes in one column, which is "
			                            "more than Arrow's offsets reach: read it in parts, with substring() for example");
		}
	}

	//! Copies `WIDTH` bytes of each entry, which is not longer, and writes where it ends. Whether one is NULL.
	template <idx_t WIDTH>
	static bool CopyEntries(const SmallDictionary &dictionary, const SelectionVector &sel, idx_t from, idx_t rows,
	                        data_ptr_t target, OFFSET *offsets) {
		auto end = idx_t(offsets[0]);
		auto has_null = false;
		for (idx_t row = 0; row < rows; row++) {
			auto &entry = dictionary[sel.get_index_unsafe(from + row)];
			memcpy(target + end, entry.bytes.data(), WIDTH);
			has_null |= entry.is_null;
			end += entry.length;
			offsets[row + 1] = OFFSET(end);
		}
		return has_null;
	}

	static void AppendEntries(ArrowAppendData &column, const SmallDictionary &dictionary, UnifiedVectorFormat &format,
	                          idx_t from, idx_t to) {
		auto rows = to - from;
		auto offsets = AddOffsets(column, rows);
		auto length_max = dictionary.LengthMax();
		auto end_max = idx_t(offsets[0]) + rows * length_max;
		CheckEnd(end_max);
		auto &data_buffer = column.GetAuxBuffer();
		data_buffer.reserve(end_max + SPARE_BYTES);
		auto target = data_buffer.data();
		auto has_null = length_max <= 8    ? CopyEntries<8>(dictionary, *format.sel, from, rows, target, offsets)
		                : length_max <= 16 ? CopyEntries<16>(dictionary, *format.sel, from, rows, target, offsets)
		                                   : CopyEntries<ENTRY_BYTES>(dictionary, *format.sel, from, rows, target, offsets);
		data_buffer.resize(idx_t(offsets[rows]));
		AppendValidity(column, format, from, to, has_null);
		column.row_count += rows;
	}

	template <class INDEX, class VALID>
	static void AppendTo(ArrowAppendData &column, UnifiedVectorFormat &format, idx_t from, idx_t to, INDEX index,
	                     VALID is_valid) {
		auto rows = to - from;
		auto strings = format.GetData<string_t>();
		auto offsets = AddOffsets(column, rows);
		auto end = idx_t(offsets[0]);
		auto has_null = false;
		for (idx_t row = 0; row < rows; row++) {
			auto source = index(from + row);
			auto is_null = !is_valid(source);
			has_null |= is_null;
			// What stands in the place of a NULL may be anything.
			end += is_null ? 0 : strings[source].GetSize();
			offsets[row + 1] = OFFSET(end);
		}
		CheckEnd(end);
		AppendValidity(column, format, from, to, has_null);
		auto &data_buffer = column.GetAuxBuffer();
		data_buffer.reserve(end + SPARE_BYTES);
		data_buffer.resize(end);
		auto target = data_buffer.data();
		for (idx_t row = 0; row < rows; row++) {
			auto offset = offsets[row];
			CopyString(target + offset, strings[index(from + row)], idx_t(offsets[row + 1] - offset));
		}
		column.row_count += rows;
	}
};

//! `ArrowFixedSizeListData::Append` of rows that are the first of their vector. Of others it gives elements to be converted
//! (BOOLEAN, BIGNUM … have types of their own in Arrow) that are not theirs.
void AppendArrays(ArrowAppendData &column, const Vector &input, idx_t from, idx_t to, idx_t input_size) {
	if (from == 0) {
		return ArrowFixedSizeListData::Append(column, input, 0, to, input_size);
	}
	Vector rows(input, from, to);
	ArrowFixedSizeListData::Append(column, rows, 0, to - from, to - from);
}

struct Replacement {
	append_vector_t from;
	append_vector_t to;
};

template <class TGT, class SRC = TGT>
constexpr Replacement Fixed() {
	return {ArrowScalarData<TGT, SRC>::Append, AppendFixed<TGT, SRC>};
}

template <class OFFSET>
constexpr Replacement String() {
	return {Strings<OFFSET>::Duck::Append, Strings<OFFSET>::Append};
}

//! DuckDB chooses by type and settings; what it has chosen tells how the values are kept, and are to be written.
const Replacement REPLACEMENTS[] = {
    Fixed<int8_t>(),
    Fixed<int16_t>(),
    Fixed<int32_t>(),
    Fixed<int64_t>(),
    Fixed<hugeint_t>(),
    Fixed<uint8_t>(),
    Fixed<uint16_t>(),
    Fixed<uint32_t>(),
    Fixed<uint64_t>(),
    Fixed<uhugeint_t>(),
    Fixed<float>(),
    Fixed<double>(),
    Fixed<hugeint_t, int16_t>(),
    Fixed<hugeint_t, int32_t>(),
    Fixed<hugeint_t, int64_t>(),
    Fixed<int32_t, int16_t>(),
    String<int32_t>(),
    String<int64_t>(),
    {ArrowFixedSizeListData::Append, AppendArrays},
};

} // namespace

void AppendFaster(ArrowColumns &columns) {
	for (auto &column : columns) {
		for (auto &replacement : REPLACEMENTS) {
			if (column->append_vector == replacement.from) {
				column->append_vector = replacement.to;
				break;
			}
		}
		AppendFaster(column->child_data);
	}
}

ArrowSizes::ArrowSizes(ArrowColumns &columns) {
	for (auto &column : columns) {
		buffers.push_back(
		    {column->GetValidityBuffer().size(), column->GetMainBuffer().size(), column->GetAuxBuffer().size()});
		children.emplace_back(column->child_data);
	}
}

void ArrowSizes::Reserve(ArrowColumns &columns) const {
	for (idx_t i = 0; i < MinValue(buffers.size(), columns.size()); i++) {
		auto &column = *columns[i];
		column.GetValidityBuffer().reserve(buffers[i][0]);
		column.GetMainBuffer().reserve(buffers[i][1]);
		column.GetAuxBuffer().reserve(buffers[i][2] + SPARE_BYTES);
		children[i].Reserve(column.child_data);
	}
}

} // namespace duckling
