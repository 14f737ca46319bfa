"""Both programs against their own /openapi.json: thousands of requests by its schemas and beside them.

No request may be answered with 5xx, nor with a status, media type or body that the document does not have. That valid
requests are refused for what a schema cannot say (a key used before, a clip that is not there) is not held against it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.orchestrator_rig import PATIENCE_S
from tests.system.deployment import Program

CASES = 2  # of random requests an operation, besides those that cover each schema's corners
CHECKS = ("not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
          "response_schema_conformance,negative_data_rejection,missing_required_header,unsupported_method,"
          "allow_header_conformance")


@pytest.fixture(scope="module", params=["orchestrator", "worker"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    folder = tmp_path_factory.mktemp(request.param)
    # A worker that warms nothing is ready at once; its codec ends each run on the spot.
    flags = ["--warm", "raw", "--codec", "raw=tests.standin:Raw"] if request.param == "worker" else []
    made = Program(request.param, folder / request.param, "--log-level", "warning", *flags)
    yield made
    made.end()


# A worker whose slot is taken says 503, by its contract.
FINE = '[checks]\nnot_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503"]\n'


def test_no_5xx_and_no_answer_that_is_not_documented(program: Program, tmp_path: Path) -> None:
    (tmp_path / "schemathesis.toml").write_text(FINE if program.name == "worker" else "")
    done = subprocess.run(
        [str(Path(sys.executable).with_name("st")), "run", f"{program.url}/openapi.json", "--phases",
         "examples,coverage,fuzzing", "--max-examples", str(CASES), "--seed", "1", "--generation-deterministic",
         "--checks", CHECKS, "--suppress-health-check", "all", "--warnings", "off", "--no-color"],
        capture_output=True, text=True, timeout=180, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert requests.get(f"{program.url}/livez", timeout=PATIENCE_S).status_code == 200
