"""ADBC's Flight SQL driver (Go) as a client of any server: the yardstick of what other people's clients get.

`read URI SQL` reads a result into Arrow, and prints seconds, rows and bytes. `store URI SQL FILE` writes its batches, as
they came, to an Arrow IPC file.
"""

import json
import sys
import time

import adbc_driver_flightsql.dbapi as flight_sql
import pyarrow


def batches(connection, sql):
    """The batches, as the driver hands them out. The statement is not prepared: that is one request less."""
    with connection.cursor() as cursor:
        cursor.adbc_statement.set_sql_query(sql)
        stream, _ = cursor.adbc_statement.execute_query()
        yield from pyarrow.RecordBatchReader.from_stream(stream)


def connect(uri):
    return flight_sql.connect(uri, autocommit=True)


def read(uri, sql):
    with connect(uri) as connection:
        started = time.perf_counter()
        table = pyarrow.Table.from_batches(batches(connection, sql))
        seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "rows": table.num_rows, "bytes": table.nbytes}))


def store(uri, sql, file):
    with connect(uri) as connection:
        rows = 0
        writer = None
        for batch in batches(connection, sql):
            writer = writer or pyarrow.ipc.new_file(file, batch.schema)
            writer.write_batch(batch)
            rows += batch.num_rows
        writer.close()
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    {"read": read, "store": store}[sys.argv[1]](*sys.argv[2:])
