"""The processes of a benchmark: contenders, servers, and what the operating system says of them."""

import json
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent


class Failed(Exception):
    """A benchmark that could not be run, and why."""


class Contender:
    """A process that runs `contender.py`; a method call there is one here."""

    def __init__(self, python, path=":memory:", config=None, extensions=()):
        self.process = subprocess.Popen(
            [python, HERE / "contender.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.open(path=str(path), config=config or {}, extensions=[str(extension) for extension in extensions])

    def __getattr__(self, request):
        def send(**arguments):
            print(json.dumps({"do": request, **arguments}), file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
            if not line:
                raise Failed(f"a contender ended ({self.process.wait()}) at {request} {arguments}"[:400])
            answer = json.loads(line)
            if "error" in answer:
                raise Failed(f"{answer['error']}\n  at {request} {arguments}"[:800])
            return answer

        return send

    def close(self):
        self.process.stdin.close()
        self.process.wait(30)


class Server:
    """A server process that prints its address on its first line."""

    def __init__(self, *command):
        self.process = subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        line = self.process.stdout.readline().strip()
        if not line:
            raise Failed(f"{command[0]} did not start ({self.process.wait()})")
        self.address = line
        self.port = int(line.rsplit(":", 1)[1])

    def resident_mib(self, what="VmRSS"):
        """Resident memory in MiB: now, or the highest since `forget_peak` (`VmHWM`)."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        kib = next(line.split()[1] for line in status.splitlines() if line.startswith(f"{what}:"))
        return int(kib) / 1024

    def cpu_seconds(self):
        """CPU time of all its threads so far."""
        # The clock of a process, as clock_getcpuclockid(3) has it on Linux.
        return time.clock_gettime(~self.process.pid << 3 | 2)

    def forget_peak(self):
        pathlib.Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def output_of(*command, timeout_s=600):
    """What a command prints, as JSON."""
    done = subprocess.run(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout_s
    )
    if done.returncode != 0:
        raise Failed(f"{command[0]} failed ({done.returncode}): {done.stderr[-800:]}")
    return json.loads(done.stdout)


if sys.platform != "linux":
    raise SystemExit("the benchmarks read /proc: they need Linux")
