"""nginx before the endpoint, as serving/config/nginx.conf has it."""

import shutil
import socket
import subprocess
import urllib.parse

import numpy as np
import pytest
import urllib3

from serving.client import EmbeddingClient, RequestError
from serving.serve import CONFIG
from tests.serving.endpoint import PICTURES, TOLERANCE, encoded, wait_for

pytestmark = pytest.mark.slow
TOKEN = {"Authorization": "Bearer let-me-in"}
CERTIFICATE = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
               "-addext", "subjectAltName=DNS:localhost"]  # fmt: skip


@pytest.fixture(scope="module")
def proxy(endpoint, tmp_path_factory):
    """Its port, and the folder with its certificate and logs."""
    for program in ("nginx", "openssl"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program}")
    folder = tmp_path_factory.mktemp("nginx")
    files = ["-keyout", folder / "tls.key", "-out", folder / "tls.crt"]
    subprocess.run(["openssl", *CERTIFICATE, *files], check=True, capture_output=True)
    (folder / "tokens.map").write_text('"Bearer let-me-in" tester;\n')
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    text = (CONFIG / "nginx.conf").read_text()
    ports = [("8501", endpoint.url), ("8500", endpoint.address("grpc"))]
    for documented, address in ports:
        assert f"server 127.0.0.1:{documented};" in text
        text = text.replace(f"127.0.0.1:{documented};", f"{urllib.parse.urlsplit(address).netloc};")
    assert text.count("listen 8443 ssl") == 1
    (folder / "nginx.conf").write_text(text.replace("listen 8443", f"listen 127.0.0.1:{port}"))
    words = ["-p", folder, "-c", "nginx.conf", "-e", "error.log", "-g", "daemon off; user root;"]
    process = subprocess.Popen(["nginx", *words], stderr=subprocess.PIPE)
    try:
        wait_for(lambda: process.poll() is not None or is_open(port))
        assert process.poll() is None, process.stderr.read().decode()
        yield port, folder
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()


def is_open(port):
    """Whether anybody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def trusted(proxy, monkeypatch):
    """Its certificate is one of those that this process trusts."""
    port, folder = proxy
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "tls.crt"))
    monkeypatch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(folder / "tls.crt"))
    return port


@pytest.mark.parametrize("scheme", ["https", "grpcs"])
def test_a_caller_with_a_token_gets_embeddings(endpoint, trusted, scheme):
    """By TLS, many requests at once."""
    with EmbeddingClient(
        f"{scheme}://localhost:{trusted}", endpoint.model, headers=TOKEN, batch_size=1, concurrency=8
    ) as client:
        np.testing.assert_allclose(client.embed(PICTURES), endpoint.artefact.embed(PICTURES), atol=TOLERANCE)


@pytest.mark.parametrize(("scheme", "status"), [("https", 401), ("grpcs", "UNAUTHENTICATED")])
def test_others_are_rejected(endpoint, trusted, scheme, status):
    """Without a token, and with another one."""
    for headers in ({}, {"Authorization": "Bearer x"}):
        with (
            EmbeddingClient(f"{scheme}://localhost:{trusted}", endpoint.model, headers=headers) as client,
            pytest.raises(RequestError) as rejected,
        ):
            client.embed(PICTURES[:1])
        assert rejected.value.status == status


def test_a_body_that_is_too_large_is_rejected_before_it_reaches_the_server(endpoint, trusted):
    """413, which is no overload."""
    noise = np.random.default_rng(0).integers(0, 256, [3000, 3000, 3], np.uint8)
    with (
        EmbeddingClient(f"https://localhost:{trusted}", endpoint.model, headers=TOKEN) as client,
        pytest.raises(RequestError) as rejected,
    ):
        client.embed([encoded(noise, "BMP")])
    assert rejected.value.status == 413


def test_health_is_anybodys_and_metrics_are_nobodys(trusted, proxy):
    """Whether the server is up is the one thing that needs no token."""
    with urllib3.HTTPSConnectionPool("localhost", trusted, ca_certs=str(proxy[1] / "tls.crt")) as pool:
        assert pool.request("GET", "/healthz", retries=False).status == 200
        for path in ("/", "/monitoring/prometheus/metrics", "/healthz/x", "/try"):
            assert pool.request("GET", path, retries=False, headers=TOKEN).status == 404
    log = (proxy[1] / "access.log").read_text()
    assert "let-me-in" not in log
