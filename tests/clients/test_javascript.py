"""The JavaScript clients: their tests are in javascript/, and run by Node's own runner.

DUCKHERDER_NODE_MODULES names the directory with the packages; `cargo xtask test` installs them if there is an npm.
"""

import os
import pathlib
import subprocess

import pytest

from conftest import DEADLINE_S

HERE = pathlib.Path(__file__).parent / "javascript"
MODULES = os.environ.get("DUCKHERDER_NODE_MODULES")


def node(server, script):
    """Runs a script with the packages at hand and the server's port in DUCKLING_PORT."""
    if not MODULES:
        pytest.skip("no npm, so no JavaScript clients: install Node.js 20 or newer with npm")
    environment = {**os.environ, "NODE_PATH": MODULES, "DUCKLING_PORT": str(server.port)}
    done = subprocess.run(
        ["node", *script], env=environment, capture_output=True, text=True, timeout=3 * DEADLINE_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("client", sorted(path.name for path in HERE.glob("*.test.cjs")))
def test_client(server, client):
    node(server, ["--test", "--test-reporter=tap", str(HERE / client)])
