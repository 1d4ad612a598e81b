"""pyarrow.flight's C++ server and client: the yardstick of raw transfer.

`serve FILE ROWS` serves the Parquet file's rows from memory, in batches of ROWS; `serve-stored FILE` does the batches of an
Arrow IPC file. They answer every ticket, and every query of Flight SQL. `drain ADDRESS` reads all of them once and prints
seconds, rows and bytes.
"""

import json
import sys
import time

import pyarrow
import pyarrow.flight as flight
import pyarrow.parquet as parquet


class InMemory(flight.FlightServerBase):
    def __init__(self, schema, batches):
        super().__init__("grpc://127.0.0.1:0")
        self._schema = schema
        self._batches = batches

    def get_flight_info(self, _context, descriptor):
        if b"CommandStatementQuery" not in descriptor.command:
            raise NotImplementedError("nothing but queries is answered here")
        endpoint = flight.FlightEndpoint(b"all", [])
        return flight.FlightInfo(self._schema, descriptor, [endpoint], -1, -1)

    def do_get(self, _context, _ticket):
        # Read from C++, without a call to Python for each batch.
        return flight.RecordBatchStream(pyarrow.RecordBatchReader.from_batches(self._schema, self._batches))


def serve(file, rows):
    table = parquet.read_table(file)
    run(InMemory(table.schema, table.combine_chunks().to_batches(max_chunksize=int(rows))))


def serve_stored(file):
    # Not mapped: pages of a file are slower than memory the first time.
    with pyarrow.OSFile(file) as source:
        stored = pyarrow.ipc.open_file(source)
        run(InMemory(stored.schema, [stored.get_batch(index) for index in range(stored.num_record_batches)]))


def run(server):
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
    {"serve": serve, "serve-stored": serve_stored, "drain": drain}[sys.argv[1]](*sys.argv[2:])
