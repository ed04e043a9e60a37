"""The configuration of TensorFlow Serving: every file parses, and they agree with each other and the code."""

import re

import pytest
import yaml
from tensorflow_serving.config import model_server_config_pb2

from serving.guard import Limits
from serving.serve import CONFIG, IMAGE, Service, container_command, model_server_command
from tests.conftest import ROOT
from tests.serving.messages import BatchingParameters, MonitoringConfig, read_text

# The flags of tensorflow_model_server that are used here.
FLAGS = {
    "port",
    "rest_api_port",
    "model_name",
    "model_base_path",
    "model_config_file",
    "monitoring_config_file",
    "enable_batching",
    "batching_parameters_file",
    "file_system_poll_wait_seconds",
    "max_num_load_retries",
}
GRPC_PORT, REST_PORT = 8500, 8501


def flags(words):
    """`--name=value` words as a dictionary."""
    return dict(re.fullmatch(r"--(\w+)=(.*)", word).groups() for word in words)


@pytest.fixture(scope="module")
def compose():
    """compose.yaml."""
    return yaml.safe_load((CONFIG / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def kubernetes():
    """kubernetes.yaml, each document by its kind."""
    documents = list(yaml.safe_load_all((CONFIG / "kubernetes.yaml").read_text()))
    assert len({document["kind"] for document in documents}) == len(documents) == 3
    return {document["kind"]: document for document in documents}


@pytest.fixture(scope="module")
def pod(kubernetes):
    """What the deployment's pods are."""
    return kubernetes["Deployment"]["spec"]["template"]


@pytest.fixture(scope="module")
def container(pod):
    """The server's container in a pod."""
    (container,) = pod["spec"]["containers"]
    return container


@pytest.fixture(scope="module")
def model():
    """The one model of models.pbtxt, by TensorFlow Serving's own class."""
    (model,) = read_text(
        CONFIG / "models.pbtxt", model_server_config_pb2.ModelServerConfig
    ).model_config_list.config
    return model


def test_the_model_server_s_configuration(model):
    """The client's default name; only the newest version answers."""
    assert (model.name, model.model_platform) == (Service.name, "tensorflow")
    assert model.model_version_policy.latest.num_versions == 1


def test_batching_answers_what_the_artefact_answers():
    """A server that splits refuses what is above max_batch_size all the same: the artefact's limit."""
    batching = read_text(CONFIG / "batching.pbtxt", BatchingParameters)
    assert batching.max_batch_size.value == Limits().max_batch
    assert batching.enable_large_batch_splitting.value
    assert 0 < batching.max_execution_batch_size.value <= batching.max_batch_size.value
    assert 0 < batching.batch_timeout_micros.value < 10**5


def test_the_metrics_path_is_one_everywhere(pod):
    """What the server tells, Prometheus asks, in compose and in Kubernetes."""
    monitoring = read_text(CONFIG / "monitoring.pbtxt", MonitoringConfig).prometheus_config
    assert monitoring.enable
    (job,) = yaml.safe_load((CONFIG / "prometheus.yaml").read_text())["scrape_configs"]
    assert job["metrics_path"] == monitoring.path
    assert job["static_configs"] == [{"targets": [f"serving:{REST_PORT}"]}]
    annotations = pod["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] == monitoring.path
    assert annotations["prometheus.io/port"] == str(REST_PORT)


def test_compose_and_kubernetes_start_the_server_alike(compose, container):
    """The same image and flags but for the polling; each file that a flag names is mounted."""
    started = [
        (compose["services"]["serving"]["image"], compose["services"]["serving"]["command"]),
        (container["image"], container["args"]),
    ]
    for image, words in started:
        assert image == IMAGE
        given = flags(words)
        assert set(given) <= FLAGS
        assert float(given.pop("file_system_poll_wait_seconds")) > 0
        assert given == {
            "port": str(GRPC_PORT),
            "rest_api_port": str(REST_PORT),
            "model_config_file": "/config/models.pbtxt",
            "monitoring_config_file": "/config/monitoring.pbtxt",
            "enable_batching": "true",
            "batching_parameters_file": "/config/batching.pbtxt",
            "max_num_load_retries": "0",
        }
    assert container["command"] == compose["services"]["serving"]["entrypoint"]


def test_rll_serve_uses_known_flags(artefact_folder):
    """Of the program and of the container; a corrupt version is rejected at once."""
    service = Service(artefact_folder, batching_file=CONFIG / "batching.pbtxt")
    command = container_command("docker", service, "name")
    for words in (model_server_command("server", service)[1:], command[command.index(IMAGE) + 1 :]):
        given = flags(words)
        assert set(given) <= FLAGS
        assert given["max_num_load_retries"] == "0"


def test_compose_mounts_publishes_and_checks(compose, model):
    """The model and the configuration read-only; both ports on this machine alone; a GPU on request."""
    services = compose["services"]
    for name in ("serving", "serving-gpu"):
        service = services[name]
        mounts = {mount["target"]: mount for mount in service["volumes"]}
        assert set(mounts) == {model.base_path, "/config"}
        assert all(mount["read_only"] for mount in mounts.values())
        assert mounts["/config"]["source"] == "."
        published = {line.rsplit(":", 1)[1]: line for line in service["ports"]}
        assert set(published) == {str(GRPC_PORT), str(REST_PORT)}
        assert all(line.startswith("127.0.0.1:") for line in published.values())
        assert f"127.0.0.1/{REST_PORT}" in service["healthcheck"]["test"][-1]
    assert services["serving-gpu"]["profiles"] == ["gpu"]
    assert services["serving-gpu"]["image"] == f"{IMAGE}-gpu"
    (device,) = services["serving-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    (mount,) = services["prometheus"]["volumes"]
    assert (CONFIG / mount["source"]).is_file()


def test_kubernetes_carries_the_same_configuration(kubernetes):
    """Its map holds the three files as they are."""
    data = kubernetes["ConfigMap"]["data"]
    assert set(data) == {"models.pbtxt", "batching.pbtxt", "monitoring.pbtxt"}
    for name, text in data.items():
        assert text == (CONFIG / name).read_text(encoding="utf-8")


def test_kubernetes_probes_and_limits(kubernetes, container, model):
    """Each probe asks a port that is there; requests are within limits; the service finds the pods."""
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": GRPC_PORT, "rest": REST_PORT}
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": f"/v1/models/{model.name}", "port": "rest"}
    assert container["livenessProbe"]["tcpSocket"]["port"] in ports
    resources = container["resources"]
    assert set(resources["requests"]) == set(resources["limits"]) == {"cpu", "memory"}
    deployment, service = kubernetes["Deployment"]["spec"], kubernetes["Service"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"] == service["selector"] == labels
    assert {port["targetPort"]: port["port"] for port in service["ports"]} == ports


def test_kubernetes_mounts_what_is_read(kubernetes, pod, container, model):
    """Every mount has its volume, what is read is read-only; the map is there, and the claim is told of."""
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert {mount["name"] for mount in mounts.values()} == set(volumes)
    assert model.base_path.rpartition("/")[0] in mounts
    assert all(mounts[path]["readOnly"] for path in ("/models", "/config"))
    head = (CONFIG / "kubernetes.yaml").read_text(encoding="utf-8").partition("apiVersion")[0]
    claim = volumes[mounts["/models"]["name"]]["persistentVolumeClaim"]["claimName"]
    assert f"A PersistentVolumeClaim named {claim} must be there already" in head
    names = {document["metadata"]["name"] for document in kubernetes.values()}
    assert {volumes[mounts["/config"]["name"]]["configMap"]["name"]} == names


def test_the_workflow_parses_and_its_scripts_exist():
    """Each job runs on a machine, ends in time, and the scripts that it names are there."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    scripts = set()
    for job in workflow["jobs"].values():
        assert job["runs-on"]
        assert job["timeout-minutes"]
        for step in job["steps"]:
            scripts.update(re.findall(r"\.ci/\w+", step.get("run", "")))
    assert scripts == {".ci/run", ".ci/conformance"}
    assert all((ROOT / script).is_file() for script in scripts)
