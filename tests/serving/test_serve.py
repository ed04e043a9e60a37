"""`rll serve`: which server it starts, with which words, and how it ends."""

import os
import signal
import socket
from pathlib import Path

import pytest

from serving.serve import IMAGE, Service, container_command
from tests.serving.endpoint import ServeProcess
from trainers import cli

# Fakes of the two programs: they write their words where the tests look, and then wait as a server does.
# They need no path: the shell's own words are enough.
RECORD = """#!/bin/sh
here="$(cd "${0%/*}" && pwd)/${0##*/}"
for word; do
  printf '%s\\n' "$word"
  case "$word" in --model_config_file=*) [ ! -f "${word#*=}" ] ||
    while IFS= read -r line; do printf '%s\\n' "$line"; done < "${word#*=}" > "$here.config"
  esac
done > "$here.words"
"""
WAIT = 'trap "exit 0" TERM\nwhile :; do read -r _ < FIFO; done\n'


def write_program(folder, name, script):
    """An executable."""
    file = folder / name
    file.write_text(script)
    file.chmod(0o755)
    return file


def words_of(folder, name):
    """What a fake was called with."""
    return (folder / f"{name}.words").read_text().splitlines()


@pytest.fixture
def model(tmp_path):
    """A folder that looks like one of versions."""
    (tmp_path / "the model" / "3").mkdir(parents=True)
    (tmp_path / "the model" / "3" / "saved_model.pb").touch()
    return tmp_path / "the model"


@pytest.fixture
def path(tmp_path):
    """A folder for the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder


def waiting(tmp_path):
    """A script's end: it waits for SIGTERM."""
    fifo = tmp_path / "never"
    os.mkfifo(fifo)
    return WAIT.replace("FIFO", f'"{fifo}"')


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_server_on_the_path_comes_first(model, path, tmp_path, number):
    """With the ports, the name and the folder; it ends with the command, which says one line."""
    ready = 'echo "the server says" >&2\n'
    write_program(path, "tensorflow_model_server", RECORD + ready + waiting(tmp_path))
    write_program(path, "docker", RECORD)
    words = (model, "--port", 0, "--grpc-port", 0, "--model-name", "other")
    with ServeProcess(*words, path=path, until="the server says") as server:
        assert server.end(number) == 0
    assert server.lines[-1] == "rll serve: ended"
    assert [line for line in server.lines if "Ctrl-C ends it" in line]
    assert f"{path / 'tensorflow_model_server'} serves {model}" in server.lines[0]
    given = dict(word.split("=", 1) for word in words_of(path, "tensorflow_model_server"))
    config = (path / "tensorflow_model_server.config").read_text()
    assert f'base_path: "{model}"' in config
    assert 'name: "other"' in config
    assert "latest { num_versions: 2 }" in config
    assert not Path(given["--model_config_file"]).exists()
    assert {int(given["--port"]), int(given["--rest_api_port"])} & {0, 8500, 8501} == set()
    assert not (path / "docker.words").exists()


def test_batching_parameters_reach_the_server(model, path, tmp_path, capfd):
    """By their whole path; the file must be there."""
    file = tmp_path / "batching.pbtxt"
    file.write_text("max_batch_size { value: 8 }\n")
    write_program(path, "tensorflow_model_server", RECORD + "exit 0\n")
    ports = ("--rest-port", 0, "--grpc-port", 0)
    with ServeProcess(model, *ports, "--batching-parameters", file, path=path, until="^$") as server:
        assert server.wait() == 0
    assert f"--batching_parameters_file={file}" in words_of(path, "tensorflow_model_server")
    message = rejected(capfd, model, *ports, "--batching-parameters", tmp_path / "none.pbtxt")
    assert f"--batching-parameters must be a file; {tmp_path / 'none.pbtxt'} is none" in message


def test_a_server_that_fails_is_one_line(model, path):
    """With its status; its own words stand before."""
    write_program(path, "tensorflow_model_server", '#!/bin/sh\necho "no such flag" >&2\nexit 7\n')
    with ServeProcess(model, "--port", 0, "--grpc-port", 0, path=path, until="^$") as server:
        assert server.wait() == 1
    assert server.lines[-2:] == ["no such flag", "rll: the server ended with status 7"]


def test_a_container_comes_second(model, path, tmp_path):
    """If Docker responds; the ports are this machine's alone, and the model can't be written to."""
    script = f'[ "$1" = run ] || exit 0\n{RECORD}echo "the container says" >&2\n{waiting(tmp_path)}'
    write_program(path, "docker", "#!/bin/sh\n" + script)
    words = (model, "--port", 0, "--grpc-port", 0)
    with ServeProcess(*words, path=path, until="the container says") as server:
        assert server.end() == 0
    assert server.lines[0] == f"rll serve: the container {IMAGE} serves {model} on 127.0.0.1"
    assert server.lines[-1] == "rll serve: ended"
    words = words_of(path, "docker")
    assert words[0] == "run"
    assert IMAGE in words
    assert f"--mount=type=bind,source={model},target=/models/rll_tf,readonly" in words
    assert "--model_config_file=/scratch/models.pbtxt" in words
    published = [word for word in words if word.startswith("--publish=")]
    assert len(published) == 2
    assert all(word.startswith("--publish=127.0.0.1:") for word in published)


def test_the_containers_words(model, tmp_path):
    """The host, the ports and the batching parameters, where the container sees them."""
    file = tmp_path / "batching.pbtxt"
    file.write_text("max_batch_size { value: 8 }\n")
    service = Service(model, "name", "::1", 81, 80, file)
    words = container_command("docker", service, tmp_path, "container")
    assert f"--mount=type=bind,source={model},target=/models/name,readonly" in words
    assert f"--mount=type=bind,source={tmp_path},target=/scratch,readonly" in words
    assert {"--publish=[::1]:81:8501", "--publish=[::1]:80:8500", "--name=container"} < set(words)
    assert f"--mount=type=bind,source={file},target=/batching.pbtxt,readonly" in words
    assert words[words.index(IMAGE) :].count("--batching_parameters_file=/batching.pbtxt") == 1


def test_the_development_server_comes_last(served):
    """It prints why, its version and where: on this machine alone. The fixture sees how it ends."""
    folder, server = served
    why, batching, version, page, where = server.lines[:5]
    assert why == (
        "rll serve: tensorflow_model_server is not on the path and Docker does not respond: "
        "this is the development server, not for production"
    )
    assert batching == (
        "rll serve: the development server runs each request by itself: --batching-parameters is ignored"
    )
    assert version == "rll serve: version 1 is available (6 warm-up requests)"
    assert (folder / "1").is_dir()
    url, grpc_url = server.announced.groups()
    assert page == f"rll serve: a page to try it: {url}/"
    assert where == f"rll serve: rll_tf at {url} and {grpc_url}; Ctrl-C ends it"
    assert url.startswith("http://127.0.0.1:")
    assert grpc_url.startswith("grpc://127.0.0.1:")


def rejected(capfd, *arguments):
    """A command that must fail: its one line on standard error."""
    assert cli.run(["serve", *map(str, arguments)]) == 1
    _, errors = capfd.readouterr()
    assert errors.count("\n") == 1, errors
    return errors


def test_what_can_not_be_served_is_one_line(model, tmp_path, capfd):
    """A folder without a version, a version itself, none at all, a name that is none."""
    (tmp_path / "empty" / "12abc").mkdir(parents=True)
    (tmp_path / "empty" / "12abc" / "saved_model.pb").touch()
    assert "it has no <version>/saved_model.pb" in rejected(capfd, tmp_path / "empty")
    assert "nowhere is none" in rejected(capfd, tmp_path / "nowhere")
    assert f"is a version: give {model}" in rejected(capfd, model / "3")
    assert "without / and :" in rejected(capfd, model, "--model-name", "a/b")


def test_a_taken_port_is_one_line(model, path, capfd, monkeypatch):
    """Whichever server would listen, and if both ports are the same."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("PATH", str(path))
        for option in ("--rest-port", "--grpc-port"):
            other = {"--rest-port", "--grpc-port"} - {option}
            message = rejected(capfd, model, option, port, other.pop(), 0)
            assert f"can't listen on 127.0.0.1:{port} ({option}): Address already in use" in message
        write_program(path, "tensorflow_model_server", RECORD)
        assert "Address already in use" in rejected(capfd, model, "--port", port, "--grpc-port", 0)
        assert not (path / "tensorflow_model_server.words").exists()
    assert "Address already in use" in rejected(capfd, model, "--port", port, "--grpc-port", port)


def test_a_corrupt_version_is_one_line(model, path, capfd, monkeypatch):
    """The development server does not begin without a model."""
    monkeypatch.setenv("PATH", str(path))
    assert cli.run(["serve", str(model), "--port", "0", "--grpc-port", "0"]) == 1
    _, errors = capfd.readouterr()
    first, *_, last = errors.splitlines()
    assert "there is no Docker: this is the development server" in first
    assert last.startswith(f"rll: {model / '3'}: version 3 can't be loaded")
