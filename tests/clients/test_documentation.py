"""The examples of docs/clients.md, run as they are, with the port of a fresh server.

A block of Python or JavaScript that is followed by one of text must print that. Blocks marked `python sqlalchemy` need
the other SQLAlchemy, whose interpreter DUCKHERDER_SQLALCHEMY_PYTHON names.
"""

import os
import re
import subprocess
import sys

import pytest

from conftest import DEADLINE_S, ROOT
from test_javascript import node

FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples():
    """Language, code, and the text that it prints, if the page says so."""
    blocks = FENCE.findall((ROOT / "docs/clients.md").read_text())
    for (language, code), (next_language, text) in zip(blocks, blocks[1:] + [("", "")]):
        if language.split()[:1] in (["python"], ["javascript"]):
            yield language, code, text if next_language == "text" else None


EXAMPLES = list(examples())


def interpreter(language):
    if language == "python":
        return sys.executable
    name = f"DUCKHERDER_{language.split()[1].upper()}_PYTHON"
    if name not in os.environ:
        pytest.skip(f"{name} is not set: `cargo xtask test` sets it")
    return os.environ[name]


def run_python(executable, code):
    command = [executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3 * DEADLINE_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_examples():
    assert len(EXAMPLES) >= 10
    assert {language for language, _, _ in EXAMPLES} == {"python", "python sqlalchemy", "javascript"}
    assert all(text for _, _, text in EXAMPLES)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example(server, number, tmp_path):
    language, code, text = EXAMPLES[number]
    assert "8815" in code
    code = code.replace("localhost:8815", f"127.0.0.1:{server.port}").replace("8815", str(server.port))
    if language == "javascript":
        script = tmp_path / "example.cjs"
        script.write_text(code)
        printed = node(server, [str(script)])
    else:
        printed = run_python(interpreter(language), code)
    assert printed == text
