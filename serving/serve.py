"""`rll serve`: TensorFlow Serving where there is one, else the development server."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import itertools
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from serving.client import SERVER_TIMEOUT_S
from serving.versions import (
    CONFIG_FILE,
    labels_of,
    loaded,
    replace_config,
    served_versions,
    server_config,
    verify_manifest,
    versions_of,
)

CONFIG = Path(__file__).parent / "config"
MONITORING_FILE = CONFIG / "monitoring.pbtxt"
MODEL_SERVER = "tensorflow_model_server"
IMAGE = "tensorflow/serving:2.20.0"
DOCKER_TIMEOUT_S = 10
END_GRACE_S = 20
POLL_S = 1
# By default the server tries a corrupt version six times, a minute apart, before it rejects it.
LOAD_RETRIES = 0


@dataclasses.dataclass(frozen=True)
class Service:
    """What is served where.

    Args:
        model: the folder of versions.
        name: the model's name in requests.
        host: where to listen.
        rest_port: for REST; 0 takes a free one.
        grpc_port: for gRPC; 0 takes a free one.
        batching_file: TensorFlow Serving's `BatchingParameters` as text, to join requests on the server.
        access_log: the development server logs every request, not only those that it refuses.
        page: the development server shows its page to other machines too.

    Raises:
        FileNotFoundError: the folder holds no version, or there is no such batching file.
        ValueError: the name can't be one.
    """

    model: Path
    name: str = "rll_tf"
    host: str = "127.0.0.1"
    rest_port: int = 8501
    grpc_port: int = 8500
    batching_file: Path | None = None
    access_log: bool = False
    page: bool = False

    def __post_init__(self) -> None:
        served_versions(self.model)
        if not self.name or set(self.name) & set("/:"):
            raise ValueError(f"the model's name must be a name without / and :; got {self.name!r}")
        if self.batching_file is not None and not self.batching_file.is_file():
            raise FileNotFoundError(f"--batching-parameters must be a file; {self.batching_file} is none")

    @property
    def is_local(self) -> bool:
        """Whether it listens to this machine alone."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def shown_host(self) -> str:
        """The host as an address holds it."""
        return f"[{self.host}]" if ":" in self.host else self.host


def model_server_command(program: str, service: Service, scratch: Path) -> list[str]:
    """What starts TensorFlow Serving's own server from the path; `scratch` holds the model configuration."""
    batching = service.batching_file and service.batching_file.absolute()
    flags = _flags(service.rest_port, service.grpc_port, scratch, MONITORING_FILE, batching)
    return [program, *flags]


def container_command(docker: str, service: Service, scratch: Path, container: str) -> list[str]:
    """What starts the official container; the model and the configuration are mounted read-only."""
    config, scratch_there, batching = Path("/config"), Path("/scratch"), None
    mounts = [(service.model, _base_there(service)), (CONFIG, config), (scratch, scratch_there)]
    if service.batching_file is not None:
        batching = Path("/batching.pbtxt")
        mounts.append((service.batching_file, batching))
    return [
        docker,
        "run",
        "--rm",
        "--init",
        f"--name={container}",
        f"--publish={service.shown_host}:{service.rest_port}:8501",
        f"--publish={service.shown_host}:{service.grpc_port}:8500",
        *(
            f"--mount=type=bind,source={source.resolve()},target={target},readonly"
            for source, target in mounts
        ),
        # The image's own entry point is a shell, which keeps signals from the server.
        f"--entrypoint={MODEL_SERVER}",
        IMAGE,
        *_flags(8501, 8500, scratch_there, config / MONITORING_FILE.name, batching),
    ]


def serve(service: Service) -> int:
    """Serve until SIGINT or SIGTERM; print which server it is.

    Returns:
        0 where a signal ended it, otherwise the server's exit status.

    Raises:
        OSError: a port is taken, or the address is not this machine's.
        ValueError: a version is not as it was exported, or the development server can't load the model.
    """
    program = shutil.which(MODEL_SERVER)
    service = _with_ports(service, "" if program is not None else service.host)
    with _ended_by_signal() as ending:
        status = _serve(service, program, ending)
    if ending.is_set():
        _log("ended")
    return status


def _serve(service: Service, program: str | None, ending: threading.Event) -> int:
    docker = shutil.which("docker")
    if program is not None:
        _log(f"{program} serves {service.model} on every address of this machine (it has no --host)")
        with _following(service, str(service.model.resolve())) as (scratch, follow):
            return _run(model_server_command(program, service, scratch), ending, follow)
    if docker is not None and _is_running(docker):
        _log(f"the container {IMAGE} serves {service.model} on {service.host}")
        container = f"rll_tf-serving-{os.getpid()}"
        with _following(service, str(_base_there(service))) as (scratch, follow):
            try:
                return _run(container_command(docker, service, scratch, container), ending, follow)
            finally:  # ends one whose client was killed; it does not matter if it has ended
                subprocess.run([docker, "rm", "--force", container], capture_output=True, check=False)
    why = "Docker does not respond" if docker is not None else "there is no Docker"
    _log(f"{MODEL_SERVER} is not on the path and {why}: this is the development server, not for production")
    return _develop(service, ending)


def _with_ports(service: Service, host: str) -> Service:
    """The service with a free port for each 0.

    Raises:
        OSError: a port is taken, or the address is not this machine's.
    """
    ports = {"rest_port": service.rest_port, "grpc_port": service.grpc_port}
    with contextlib.ExitStack() as probes:  # both at once, so that they differ
        for name, port in ports.items():
            probe = probes.enter_context(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET))
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that ended don't count
            try:
                probe.bind((host, port))
            except OSError as error:
                option = f"--{name.replace('_', '-')}"
                raise OSError(f"can't listen on {host or '*'}:{port} ({option}): {error.strerror}") from error
            probe.listen()
            ports[name] = int(probe.getsockname()[1])
    return dataclasses.replace(service, rest_port=ports["rest_port"], grpc_port=ports["grpc_port"])


def _base_there(service: Service) -> Path:
    """Where the container has the folder of versions."""
    return Path("/models", service.name)


@contextlib.contextmanager
def _following(service: Service, base_path: str) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A folder with the model configuration, verified, and what brings it up to the folder of versions."""
    _verify(service.model)
    if service.access_log or service.page:
        _log("--access-log and --page are the development server's alone and ignored")
    with tempfile.TemporaryDirectory(prefix="rll_tf-serving-") as name:
        scratch = Path(name)
        scratch.chmod(0o755)  # the container runs as another user
        file = scratch / CONFIG_FILE

        def follow() -> None:
            text = server_config(service.model, service.name, base_path)
            if not file.is_file() or file.read_text(encoding="utf-8") != text:
                replace_config(file, text)

        follow()
        _log_addresses(service)
        yield scratch, follow


def _verify(folder: Path) -> None:
    for version in loaded(versions_of(folder), labels_of(folder)):
        if not verify_manifest(folder / str(version)):
            _log(f"version {version} was exported before there were manifests: its files are not verified")


def _flags(
    rest_port: int, grpc_port: int, scratch: Path, monitoring: Path, batching: Path | None
) -> list[str]:
    flags = [
        f"--port={grpc_port}",
        f"--rest_api_port={rest_port}",
        f"--rest_api_timeout_in_ms={1000 * SERVER_TIMEOUT_S}",
        f"--model_config_file={scratch / CONFIG_FILE}",
        f"--model_config_file_poll_wait_seconds={POLL_S}",
        "--allow_version_labels_for_unavailable_models=true",
        "--enable_grpc_healthcheck_service=true",
        f"--monitoring_config_file={monitoring}",
        f"--file_system_poll_wait_seconds={POLL_S}",
        f"--max_num_load_retries={LOAD_RETRIES}",
    ]
    if batching is not None:
        flags += ["--enable_batching=true", f"--batching_parameters_file={batching}"]
    return flags


def _is_running(docker: str) -> bool:
    command = [docker, "version", "--format", "{{.Server.Version}}"]
    try:
        subprocess.run(command, capture_output=True, timeout=DOCKER_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _run(command: list[str], ending: threading.Event, follow: Callable[[], None]) -> int:
    """Run a server as a child: a signal to this process ends it, and this process ends with it.

    `follow` is called about every second meanwhile.
    """
    # A group of its own: Ctrl-C reaches this process alone, which passes it on once.
    child = subprocess.Popen(command, stderr=sys.stderr, start_new_session=True)
    try:
        for tenth in itertools.count(1):
            if child.poll() is not None:
                break
            if ending.wait(0.1):
                return 0
            if tenth % (10 * POLL_S) == 0:
                with contextlib.suppress(OSError):  # a folder that is away for a while
                    follow()
        return child.returncode
    finally:
        child.terminate()  # nothing where it has ended
        try:
            child.wait(END_GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _develop(service: Service, ending: threading.Event) -> int:
    from serving.development import development_server

    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it calls the C++ server's way of loading old
    if service.batching_file is not None:
        _log("the development server runs each request by itself: --batching-parameters is ignored")
    ports = service.rest_port, service.grpc_port
    has_page = service.page or service.is_local
    served = development_server(
        service.model,
        service.name,
        service.host,
        *ports,
        _log,
        logs_all=service.access_log,
        has_page=has_page,
    )
    with served:
        if has_page:
            _log(f"a page to try it: http://{service.shown_host}:{service.rest_port}/")
        _log_addresses(service)
        ending.wait()
    return 0


def _log_addresses(service: Service) -> None:
    rest, grpc = (f"{service.shown_host}:{port}" for port in (service.rest_port, service.grpc_port))
    _log(f"{service.name} at http://{rest} and grpc://{grpc}; Ctrl-C ends it")


def _log(line: str) -> None:
    print(f"rll serve: {line}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _ended_by_signal() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, while this lasts."""
    ending = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: ending.set()) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield ending
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
