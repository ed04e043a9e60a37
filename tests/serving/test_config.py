"""The configuration of TensorFlow Serving: every file parses, and they agree with each other and the code."""

import re

import pytest
import yaml

from serving.client import SERVER_TIMEOUT_S
from serving.guard import BYTES_A_PIXEL, LARGE_PIXELS, Limits
from serving.serve import CONFIG, IMAGE, Service, container_command, model_server_command
from serving.versions import BASE_PATH, CONFIG_FILE, LOADED
from tests.conftest import ROOT
from tests.serving.messages import BatchingParameters, MonitoringConfig, read_text

# The flags of tensorflow_model_server that are used here.
FLAGS = {
    "port",
    "rest_api_port",
    "rest_api_timeout_in_ms",
    "rest_api_num_threads",
    "grpc_max_threads",
    "grpc_channel_arguments",
    "enable_grpc_healthcheck_service",
    "tensorflow_intra_op_parallelism",
    "tensorflow_inter_op_parallelism",
    "model_config_file",
    "model_config_file_poll_wait_seconds",
    "allow_version_labels_for_unavailable_models",
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
    """kubernetes.yaml, each document by its kind; the headless service as Headless."""
    documents = list(yaml.safe_load_all((CONFIG / "kubernetes.yaml").read_text()))
    for document in documents:
        if document["spec" if "spec" in document else "data"].get("clusterIP") == "None":
            document["kind"] = "Headless"
    found = {document["kind"]: document for document in documents}
    assert set(found) == {"ConfigMap", "Deployment", "Service", "Headless", "PodDisruptionBudget",
                          "HorizontalPodAutoscaler"}  # fmt: skip
    assert len(found) == len(documents)
    return found


@pytest.fixture(scope="module")
def pod(kubernetes):
    """What the deployment's pods are."""
    return kubernetes["Deployment"]["spec"]["template"]


@pytest.fixture(scope="module")
def container(pod):
    """The server's container in a pod."""
    (container,) = pod["spec"]["containers"]
    return container


def test_batching_has_the_artefacts_limit():
    """A server that splits rejects what is above max_batch_size all the same: the artefact's limit."""
    batching = read_text(CONFIG / "batching.pbtxt", BatchingParameters)
    assert batching.max_batch_size.value == Limits().max_batch
    assert batching.enable_large_batch_splitting.value
    assert 0 < batching.max_execution_batch_size.value <= batching.max_batch_size.value
    assert 0 < batching.batch_timeout_micros.value < 10**5


def test_the_metrics_path_is_one_everywhere(pod, compose):
    """The server has it, Prometheus uses it, in compose and in Kubernetes."""
    monitoring = read_text(CONFIG / "monitoring.pbtxt", MonitoringConfig).prometheus_config
    assert monitoring.enable
    prometheus = yaml.safe_load((CONFIG / "prometheus.yaml").read_text())
    (job,) = prometheus["scrape_configs"]
    assert job["metrics_path"] == monitoring.path
    (target,) = job["static_configs"]
    services = [name for name, service in compose["services"].items() if IMAGE in service["image"]]
    assert target["targets"] == [f"{service}:{REST_PORT}" for service in services]
    assert len(services) == 2
    mounted = {mount["target"] for mount in compose["services"]["prometheus"]["volumes"]}
    assert {f"/etc/prometheus/{file}" for file in prometheus["rule_files"]} < mounted
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
        for polled in ("file_system_poll_wait_seconds", "model_config_file_poll_wait_seconds"):
            assert float(given.pop(polled)) > 0
        given.pop("grpc_channel_arguments", None)
        assert given == {
            "port": str(GRPC_PORT),
            "rest_api_port": str(REST_PORT),
            "rest_api_timeout_in_ms": str(1000 * SERVER_TIMEOUT_S),
            "rest_api_num_threads": "16",
            "grpc_max_threads": "16",
            "enable_grpc_healthcheck_service": "true",
            "tensorflow_intra_op_parallelism": "4",
            "tensorflow_inter_op_parallelism": "4",
            "model_config_file": f"{BASE_PATH}/{CONFIG_FILE}",
            "allow_version_labels_for_unavailable_models": "true",
            "monitoring_config_file": "/config/monitoring.pbtxt",
            "enable_batching": "true",
            "batching_parameters_file": "/config/batching.pbtxt",
            "max_num_load_retries": "0",
        }
    assert container["command"] == compose["services"]["serving"]["entrypoint"]
    assert container["resources"]["limits"]["cpu"] == str(compose["services"]["serving"]["cpus"]) == "4"
    assert "grpc.max_connection_age_ms=" in flags(container["args"])["grpc_channel_arguments"]


def test_the_memory_limit_holds_what_a_server_may_need(compose, container):
    """Two loaded versions, each with one of the largest pictures, and a small one for every thread."""
    given = flags(container["args"])
    threads = int(given["rest_api_num_threads"]) + int(given["grpc_max_threads"])
    pixels = LOADED * Limits().max_pixels + threads * LARGE_PIXELS
    assert container["resources"]["limits"]["memory"] == "4Gi"
    assert compose["services"]["serving"]["mem_limit"] == "4g"
    # A gigabyte is left for the program, the models and the requests themselves.
    assert BYTES_A_PIXEL * pixels <= 3 * 2**30


def test_sigterm_reaches_the_server(compose, pod, artefact_folder, tmp_path):
    """As process 1 it would ignore it: TensorFlow Serving's issue 1853."""
    assert compose["services"]["serving"]["init"]
    assert pod["spec"]["shareProcessNamespace"]
    assert "--init" in container_command("docker", Service(artefact_folder), tmp_path, "name")


def test_rll_serve_uses_known_flags(artefact_folder, tmp_path):
    """Of the program and of the container; a corrupt version is rejected at once."""
    service = Service(artefact_folder, batching_file=CONFIG / "batching.pbtxt")
    command = container_command("docker", service, tmp_path, "name")
    for words in (model_server_command("server", service, tmp_path)[1:], command[command.index(IMAGE) + 1 :]):
        given = flags(words)
        assert set(given) <= FLAGS
        assert given["max_num_load_retries"] == "0"
        assert given["rest_api_timeout_in_ms"] == str(1000 * SERVER_TIMEOUT_S)


def test_compose_mounts_publishes_and_checks(compose):
    """The model and the configuration read-only; both ports on this machine alone; a GPU on request."""
    services = compose["services"]
    for name in ("serving", "serving-gpu"):
        service = services[name]
        mounts = {mount["target"]: mount for mount in service["volumes"]}
        assert set(mounts) == {BASE_PATH, "/config"}
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
    assert all((CONFIG / mount["source"]).is_file() for mount in services["prometheus"]["volumes"])


def test_kubernetes_carries_the_same_configuration(kubernetes):
    """Its map holds the files as they are."""
    data = kubernetes["ConfigMap"]["data"]
    assert set(data) == {"batching.pbtxt", "monitoring.pbtxt"}
    for name, text in data.items():
        assert text == (CONFIG / name).read_text(encoding="utf-8")


def test_kubernetes_probes_and_limits(kubernetes, container):
    """Each probe uses a port that is there; requests are within limits; the services find the pods."""
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": GRPC_PORT, "rest": REST_PORT}
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": f"/v1/models/{Service.name}", "port": "rest"}
    assert container["livenessProbe"]["tcpSocket"]["port"] in ports
    resources = container["resources"]
    assert set(resources["requests"]) == set(resources["limits"]) == {"cpu", "memory"}
    deployment, service = kubernetes["Deployment"]["spec"], kubernetes["Service"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"] == service["selector"] == labels
    assert {port["targetPort"]: port["port"] for port in service["ports"]} == ports
    headless = kubernetes["Headless"]["spec"]
    assert (headless["clusterIP"], headless["selector"]) == ("None", labels)
    assert [port["port"] for port in headless["ports"]] == [GRPC_PORT]
    assert kubernetes["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    scaler = kubernetes["HorizontalPodAutoscaler"]["spec"]
    assert scaler["scaleTargetRef"]["name"] == kubernetes["Deployment"]["metadata"]["name"]
    assert "replicas" not in deployment
    assert kubernetes["PodDisruptionBudget"]["spec"]["minAvailable"] < scaler["minReplicas"]


def test_kubernetes_mounts_what_is_read(kubernetes, pod, container):
    """Every mount has its volume, what is read is read-only; the head names it."""
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert {mount["name"] for mount in mounts.values()} == set(volumes)
    assert BASE_PATH.rpartition("/")[0] in mounts
    assert all(mounts[path]["readOnly"] for path in ("/models", "/config"))
    head = (CONFIG / "kubernetes.yaml").read_text(encoding="utf-8").partition("apiVersion")[0]
    claim = volumes[mounts["/models"]["name"]]["persistentVolumeClaim"]["claimName"]
    assert f"A PersistentVolumeClaim named {claim} must be there already" in head
    assert (
        volumes[mounts["/config"]["name"]]["configMap"]["name"] == kubernetes["ConfigMap"]["metadata"]["name"]
    )


def test_alerts_are_on_the_servers_own_metrics():
    """Each names metrics that TensorFlow Serving has, and says what is wrong."""
    (group,) = yaml.safe_load((CONFIG / "alerts.yaml").read_text())["groups"]
    names = set()
    for rule in group["rules"]:
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["expr"].count("(") == rule["expr"].count(")")
        names |= set(re.findall(r":tensorflow:serving:\w+", rule["expr"]))
    # model_servers and servables/tensorflow/util.cc of TensorFlow Serving 2.20.
    assert names == {":tensorflow:serving:request_count", ":tensorflow:serving:request_latency_bucket"}


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
