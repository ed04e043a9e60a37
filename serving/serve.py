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
from typing import Any

CONFIG = Path(__file__).parent / "config"
MONITORING_FILE = CONFIG / "monitoring.pbtxt"
MODEL_SERVER = "tensorflow_model_server"
IMAGE = "tensorflow/serving:2.20.0"
DOCKER_ANSWER_S = 10
END_GRACE_S = 20
POLL_S = 1
# Unless told otherwise the server tries a corrupt version six times, a minute apart, before it refuses it.
LOAD_RETRIES = 0


@dataclasses.dataclass(frozen=True)
class Service:
    """What is served where.

    Args:
        model: the folder of versions.
        name: what requests call the model.
        host: where to listen.
        rest_port: for REST; 0 takes a free one.
        grpc_port: for gRPC; 0 takes a free one.
        batching_file: a `BatchingParameters` message as text, to join requests on the server.

    Raises:
        FileNotFoundError: the folder holds no version.
        ValueError: the name or the batching parameters are none.
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
        if self.batching_file is not None:
            from serving.messages import BatchingParameters, read_text

            read_text(self.batching_file, BatchingParameters)


def model_server_command(program: str, service: Service) -> list[str]:
    """What starts TensorFlow Serving's own server from the path."""
    return [
        program,
        *_flags(service, service.rest_port, service.grpc_port, service.model.resolve(), MONITORING_FILE),
        *_batching_flags(service.batching_file),
    ]


def container_command(docker: str, service: Service, container: str) -> list[str]:
    """What starts the official container; the model and the configuration are mounted read-only."""
    model, config = f"/models/{service.name}", "/config"
    mounts = [(service.model, model), (CONFIG, config)]
    batching = None
    if service.batching_file is not None:
        batching = Path("/batching.pbtxt")
        mounts.append((service.batching_file, str(batching)))
    host = f"[{service.host}]" if ":" in service.host else service.host
    return [
        docker,
        "run",
        "--rm",
        "--init",
        f"--name={container}",
        f"--publish={host}:{service.rest_port}:8501",
        f"--publish={host}:{service.grpc_port}:8500",
        *(
            f"--mount=type=bind,source={source.resolve()},target={target},readonly"
            for source, target in mounts
        ),
        # The image's own entry point is a shell, which keeps signals from the server.
        f"--entrypoint={MODEL_SERVER}",
        IMAGE,
        *_flags(service, 8501, 8500, Path(model), Path(config, MONITORING_FILE.name)),
        *_batching_flags(batching),
    ]


def serve(service: Service) -> int:
    """Serve until SIGINT or SIGTERM; say what serves.

    Returns:
        0 where it was told to end, otherwise the server's exit status.

    Raises:
        OSError: a port is taken, or the address is not this machine's.
        ValueError: the development server can't load the model; see `DevelopmentServer`.
    """
    program = shutil.which(MODEL_SERVER)
    service = _with_ports(service, "" if program is not None else service.host)
    with _told_to_end() as ending:
        status = _serve(service, program, ending)
    if ending.is_set():
        _say("ended")
    return status


def _serve(service: Service, program: str | None, ending: threading.Event) -> int:
    if program is not None:
        _say(f"{program} serves {service.model} on every address of this machine (it has no --host)")
        _say_where(service)
        return _run(model_server_command(program, service), ending)
    docker = shutil.which("docker")
    if docker is not None and _answers(docker):
        _say(f"the container {IMAGE} serves {service.model} on {service.host}")
        _say_where(service)
        container = f"rll_tf-serving-{os.getpid()}"
        try:
            return _run(container_command(docker, service, container), ending)
        finally:  # ends one whose client was killed; an ended one is gone, and that is no matter
            subprocess.run([docker, "rm", "--force", container], capture_output=True, check=False)
    why = "Docker does not answer" if docker is not None else "there is no Docker"
    _say(f"{MODEL_SERVER} is not on the path and {why}: this is the development server, not for production")
    return _develop(service, ending)


def _with_ports(service: Service, host: str) -> Service:
    """The service with a free port for each 0; whichever server is to listen, a taken one is told here.

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


def _flags(service: Service, rest_port: int, grpc_port: int, model: Path, monitoring: Path) -> list[str]:
    return [
        f"--port={grpc_port}",
        f"--rest_api_port={rest_port}",
        f"--model_name={service.name}",
        f"--model_base_path={model}",
        f"--monitoring_config_file={monitoring}",
        f"--file_system_poll_wait_seconds={POLL_S}",
        f"--max_num_load_retries={LOAD_RETRIES}",
    ]


def _batching_flags(file: Path | None) -> list[str]:
    if file is None:
        return []
    return ["--enable_batching=true", f"--batching_parameters_file={file.absolute()}"]


def _answers(docker: str) -> bool:
    try:
        asked = subprocess.run(
            [docker, "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            timeout=DOCKER_ANSWER_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


def _run(command: list[str], ending: threading.Event) -> int:
    """Run a server as a child: it ends when this process is told to, and this process ends with it."""
    # A group of its own: Ctrl-C reaches this process alone, which passes it on once.
    child = subprocess.Popen(command, stderr=sys.stderr, start_new_session=True)
    try:
        while child.poll() is None:
            if ending.wait(0.1):
                return 0
        return child.returncode
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(END_GRACE_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _develop(service: Service, ending: threading.Event) -> int:
    from serving.development import DevelopmentServer
    from serving.messages import BatchingParameters, read_text

    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it calls the C++ server's way of loading old
    batching: Any = None
    if service.batching_file is not None:
        batching = read_text(service.batching_file, BatchingParameters)
    with DevelopmentServer(
        service.model,
        model_name=service.name,
        host=service.host,
        rest_port=service.rest_port,
        grpc_port=service.grpc_port,
        batching=batching,
        say=_say,
    ):
        _say_where(service)
        ending.wait()
    return 0


def _say_where(service: Service) -> None:
    host = f"[{service.host}]" if ":" in service.host else service.host
    _say(
        f"{service.name} at http://{host}:{service.rest_port} and grpc://{host}:{service.grpc_port}; "
        "Ctrl-C ends it"
    )


def _say(line: str) -> None:
    print(f"rll serve: {line}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _told_to_end() -> Iterator[threading.Event]:
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
