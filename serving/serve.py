"""`rll serve`: TensorFlow Serving where there is one, else the development server."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

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

    def __post_init__(self) -> None:
        if (self.model / "saved_model.pb").is_file():
            raise FileNotFoundError(
                f"MODEL must be a folder of versions; {self.model} is a version: serve {self.model.parent}"
            )
        if not any(file.parent.name.isdigit() for file in self.model.glob("*/saved_model.pb")):
            raise FileNotFoundError(
                f"{self.model} holds no exported model: it has no <version>/saved_model.pb"
            )
        if not self.name or set(self.name) & set("/:"):
            raise ValueError(f"the model's name must be a name without / and :; got {self.name!r}")
        if self.batching_file is not None and not self.batching_file.is_file():
            raise FileNotFoundError(f"--batching-parameters must be a file; {self.batching_file} is none")

    @property
    def shown_host(self) -> str:
        """The host as an address holds it."""
        return f"[{self.host}]" if ":" in self.host else self.host


def model_server_command(program: str, service: Service) -> list[str]:
    """What starts TensorFlow Serving's own server from the path."""
    model, batching = service.model.resolve(), service.batching_file and service.batching_file.absolute()
    flags = _flags(service, service.rest_port, service.grpc_port, model, MONITORING_FILE, batching)
    return [program, *flags]


def container_command(docker: str, service: Service, container: str) -> list[str]:
    """What starts the official container; the model and the configuration are mounted read-only."""
    model, config, batching = Path("/models", service.name), Path("/config"), None
    mounts = [(service.model, model), (CONFIG, config)]
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
        *_flags(service, 8501, 8500, model, config / MONITORING_FILE.name, batching),
    ]


def serve(service: Service) -> int:
    """Serve until SIGINT or SIGTERM; print which server it is.

    Returns:
        0 where a signal ended it, otherwise the server's exit status.

    Raises:
        OSError: a port is taken, or the address is not this machine's.
        ValueError: the development server can't load the model; see `DevelopmentServer`.
    """
    program = shutil.which(MODEL_SERVER)
    service = _with_ports(service, "" if program is not None else service.host)
    with _ended_by_signal() as ending:
        status = _serve(service, program, ending)
    if ending.is_set():
        _log("ended")
    return status


def _serve(service: Service, program: str | None, ending: threading.Event) -> int:
    if program is not None:
        _log(f"{program} serves {service.model} on every address of this machine (it has no --host)")
        _log_addresses(service)
        return _run(model_server_command(program, service), ending)
    docker = shutil.which("docker")
    if docker is not None and _is_running(docker):
        _log(f"the container {IMAGE} serves {service.model} on {service.host}")
        _log_addresses(service)
        container = f"rll_tf-serving-{os.getpid()}"
        try:
            return _run(container_command(docker, service, container), ending)
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


def _flags(
    service: Service, rest_port: int, grpc_port: int, model: Path, monitoring: Path, batching: Path | None
) -> list[str]:
    flags = [
        f"--port={grpc_port}",
        f"--rest_api_port={rest_port}",
        f"--model_name={service.name}",
        f"--model_base_path={model}",
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


def _run(command: list[str], ending: threading.Event) -> int:
    """Run a server as a child: a signal to this process ends it, and this process ends with it."""
    # A group of its own: Ctrl-C reaches this process alone, which passes it on once.
    child = subprocess.Popen(command, stderr=sys.stderr, start_new_session=True)
    try:
        while child.poll() is None:
            if ending.wait(0.1):
                return 0
        return child.returncode
    finally:
        child.terminate()  # nothing where it has ended
        try:
            child.wait(END_GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _develop(service: Service, ending: threading.Event) -> int:
    from serving.development import DevelopmentServer

    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it calls the C++ server's way of loading old
    if service.batching_file is not None:
        _log("the development server runs each request by itself: --batching-parameters is ignored")
    with DevelopmentServer(
        service.model,
        model_name=service.name,
        host=service.host,
        rest_port=service.rest_port,
        grpc_port=service.grpc_port,
        log=_log,
    ):
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
