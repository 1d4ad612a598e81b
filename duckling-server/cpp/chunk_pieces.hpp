//! Chunks whose strings and lists are too much for one batch. Arrow's offsets reach to 2 GiB, a chunk of 2,048 long strings
//! does not fit.
#pragma once

#include "duckdb/common/types/data_chunk.hpp"

#include <functional>

namespace duckherder {

//! Takes rows into a batch. `bytes` is what their strings and lists take, about.
using TakePiece = std::function<void(duckdb::DataChunk &rows, duckdb::idx_t bytes)>;

//! Gives all rows of `chunk` to `take`, in order: at once, as a rule, or in pieces none of which has more than `bytes_max` in
//! its strings and lists, but for single rows.
void TakeInPieces(duckdb::DataChunk &chunk, duckdb::idx_t bytes_max, const TakePiece &take);

} // namespace duckherder
