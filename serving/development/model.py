"""The served model: what REST and gRPC requests name it by, its metadata and its status."""

from __future__ import annotations

from typing import Any

from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from serving.development.errors import NOT_FOUND, StatusError, invalid
from serving.development.servable import Servable
from serving.development.versions import Versions

SIGNATURES_FIELD = "signature_def"


class ServedModel:
    """One model by its name.

    Args:
        name: the model's name in requests.
        versions: its versions.
    """

    def __init__(self, name: str, versions: Versions) -> None:
        self.name, self._versions = name, versions

    def servable(self, spec: Any) -> Servable:
        """The version that a ModelSpec names.

        Raises:
            StatusError: there is no such model or version.
        """
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        if spec.name != self.name:
            raise StatusError(
                NOT_FOUND, f"Servable not found for request: {spec.name}; {self.name} is served"
            )
        return self._versions.get(_version(spec), spec.version_label)

    def current(self) -> Servable:
        """The version that responds where none is named.

        Raises:
            StatusError: none is loaded.
        """
        return self._versions.get()

    def metadata(self, request: Any) -> Any:
        """The GetModelMetadataResponse to a GetModelMetadataRequest: the signatures.

        Raises:
            StatusError: there is no such model, version or field.
        """
        _check_spec(request)
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != SIGNATURES_FIELD:
                raise invalid(f"Metadata field {field} is not supported")
        servable = self.servable(request.model_spec)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = self.name
        response.model_spec.version.value = servable.version
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=servable.signatures)
        response.metadata[SIGNATURES_FIELD].Pack(signatures)
        return response

    def status(self, request: Any) -> Any:
        """The GetModelStatusResponse to a GetModelStatusRequest: of every version, or of the one named.

        A label is ignored, as TensorFlow Serving does.

        Raises:
            StatusError: there is no such model or version.
        """
        _check_spec(request)
        spec = request.model_spec
        if spec.name != self.name:
            raise StatusError(NOT_FOUND, f"Could not find any versions of model {spec.name}")
        version = _version(spec)
        rows = [row for row in self._versions.statuses() if version in {None, row.version}]
        if not rows:
            raise StatusError(NOT_FOUND, f"Could not find version {version} of model {self.name}")
        return get_model_status_pb2.GetModelStatusResponse(model_version_status=rows)


def _check_spec(request: Any) -> None:
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")


def _version(spec: Any) -> int | None:
    return int(spec.version.value) if spec.HasField("version") else None
