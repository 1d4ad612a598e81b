"""pyarrow.flight's C++ server and client: the yardstick of raw transfer.

`serve FILE ROWS` serves the Parquet file's rows from memory, in batches of ROWS. `drain ADDRESS` reads all of them once and
prints seconds, rows and bytes.
"""

import json
import sys
import time

import pyarrow
import pyarrow.flight as flight
import pyarrow.parquet as parquet


class InMemory(flight.FlightServerBase):
    def __init__(self, table, rows):
        super().__init__("grpc://127.0.0.1:0")
        self._schema = table.schema
        self._batches = table.combine_chunks().to_batches(max_chunksize=rows)

    def do_get(self, _context, _ticket):
        # Read from C++, without a call to Python for each batch.
        return flight.RecordBatchStream(pyarrow.RecordBatchReader.from_batches(self._schema, self._batches))


def serve(file, rows):
    server = InMemory(parquet.read_table(file), int(rows))
    print(f"127.0.0.1:{server.port}", flush=True)
    server.serve()


def drain(address):
    client = flight.connect(f"grpc://{address}")
    started = time.perf_counter()
    rows = size = 0
    for chunk in client.do_get(flight.Ticket(b"all")):
        rows += chunk.data.num_rows
        size += chunk.data.nbytes
    print(json.dumps({"seconds": time.perf_counter() - started, "rows": rows, "bytes": size}))


if __name__ == "__main__":
    {"serve": serve, "drain": drain}[sys.argv[1]](*sys.argv[2:])
