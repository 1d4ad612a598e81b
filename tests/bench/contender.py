"""One process with one DuckDB, told over standard input what to run and to time.

A request is a line of JSON, and so is its answer: `{"seconds": …}` and such, or `{"error": …}`. It runs under every
DuckDB that takes part, so it uses nothing but the `duckdb` package.
"""

import json
import sys
import threading
import time

import duckdb


class Contender:
    """The requests: every method that has no underscore."""

    def __init__(self):
        self._con = None

    def open(self, path, config, extensions):
        self._con = duckdb.connect(path, config=config)
        for extension in extensions:
            self._con.load_extension(extension)
        return {}

    def run(self, statements):
        for statement in statements:
            self._con.execute(statement)
        return {}

    def rows(self, sql):
        return {"rows": self._con.execute(sql).fetchall()}

    def time(self, statements):
        """Seconds for all statements, rows fetched."""
        started = time.perf_counter()
        for statement in statements:
            self._con.execute(statement).fetchall()
        return {"seconds": time.perf_counter() - started}

    def cpu_time(self, statements):
        """Seconds of CPU time, of all threads, for all statements, rows fetched."""
        started = time.process_time()
        for statement in statements:
            self._con.execute(statement).fetchall()
        return {"seconds": time.process_time() - started}

    def latencies(self, statements):
        """Seconds for each statement, rows fetched."""
        seconds = []
        for statement in statements:
            started = time.perf_counter()
            self._con.execute(statement).fetchall()
            seconds.append(time.perf_counter() - started)
        return {"seconds": seconds}

    def rate(self, template, threads, seconds):
        """Statements per second; `{i}` in the template is another number each time."""
        counts = [0] * threads
        failures = []
        ready = threading.Barrier(threads + 1)
        stop = threading.Event()

        def work(thread):
            cursor = self._con.cursor()
            cursor.execute(template.format(i=thread))
            ready.wait()
            i = threads
            try:
                while not stop.is_set():
                    cursor.execute(template.format(i=i * threads + thread)).fetchall()
                    i += 1
            except duckdb.Error as error:
                failures.append(str(error))
            counts[thread] = i - threads

        workers = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
        for worker in workers:
            worker.start()
        ready.wait()
        started = time.perf_counter()
        time.sleep(seconds)
        stop.set()
        for worker in workers:
            worker.join()
        elapsed = time.perf_counter() - started
        if failures:
            raise RuntimeError(failures[0])
        return {"per_second": sum(counts) / elapsed}


def main():
    contender = Contender()
    answers = sys.stdout
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(contender, request.pop("do"))(**request)
        except (duckdb.Error, RuntimeError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer, default=str), file=answers, flush=True)


if __name__ == "__main__":
    main()
