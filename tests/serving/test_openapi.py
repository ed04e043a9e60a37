"""The description of the REST API, and whether the endpoint keeps to it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from serving.serve import CONFIG
from tests.serving.endpoint import GOOD, b64

FILE = CONFIG / "openapi.yaml"
SCHEMA = yaml.safe_load(FILE.read_text(encoding="utf-8"))
# Not that only described requests are accepted: TensorFlow Serving passes over keys that it does not know,
# and has 400 where others have 405.
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
]


def test_every_documented_path_responds(endpoint):
    """With 200, where the model, the version and a label are there; predict in both forms."""
    version = endpoint.version()
    for path, operations in SCHEMA["paths"].items():
        if "{label}" in path:
            continue
        suffix = path.replace("/v1/models/{model}", "").replace("{version}", str(version))
        if "get" in operations:
            assert endpoint.get(suffix)[0] == 200
        else:
            for body in ({"instances": [b64(GOOD)]}, {"inputs": {"images": [b64(GOOD)]}}):
                assert endpoint.post(body, suffix)[0] == 200


@pytest.mark.slow
def test_the_description_is_valid():
    """By OpenAPI's own schema."""
    openapi_spec_validator = pytest.importorskip("openapi_spec_validator")
    openapi_spec_validator.validate(SCHEMA)


@pytest.mark.slow
def test_no_answer_is_undocumented(endpoint, tmp_path):
    """For whatever schemathesis thinks of, valid and not."""
    program = shutil.which(
        "schemathesis", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    if program is None:
        pytest.skip("schemathesis is not installed")
    # The parameters' examples are those of this endpoint.
    described = FILE.read_text(encoding="utf-8").replace("example: rll_tf", f"example: {endpoint.model}")
    file = tmp_path / "openapi.yaml"
    file.write_text(described, encoding="utf-8")
    # TensorFlow Serving has 501 for TRACE, which no path has.
    methods = '[phases.coverage]\nunexpected-methods = ["DELETE", "PATCH", "PUT"]\n'
    (tmp_path / "schemathesis.toml").write_text(methods, encoding="utf-8")
    words = ["--url", endpoint.url, "--checks", ",".join(CHECKS), "--max-examples", "60", "--seed", "1"]
    process = subprocess.run(
        [program, "run", file, *words], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stdout[-6000:]
