//! Strings from dictionaries that are small beside the rows: what holds for each entry holds for many rows.
#pragma once

#include "duckdb/common/optional_idx.hpp"
#include "duckdb/common/vector/dictionary_vector.hpp"

namespace duckherder {

//! Strings of a small dictionary that are no longer are handled by the entry.
constexpr duckdb::idx_t SHORT_STRING_BYTES = 32;

//! How many entries the dictionary of `vector` has, if that is an eighth of `rows` at most. All of them are there, used or not.
inline duckdb::optional_idx SmallDictionarySize(const duckdb::Vector &vector, duckdb::idx_t rows) {
	constexpr duckdb::idx_t ROWS_PER_ENTRY = 8;
	// Those from storage are whole; of others only the entries that rows have need be there.
	if (vector.GetVectorType() != duckdb::VectorType::DICTIONARY_VECTOR ||
	    !duckdb::DictionaryVector::CanCacheHashes(vector)) {
		return duckdb::optional_idx();
	}
	auto size = duckdb::DictionaryVector::DictionarySize(vector);
	return size.IsValid() && size.GetIndex() * ROWS_PER_ENTRY <= rows ? size : duckdb::optional_idx();
}

} // namespace duckherder
