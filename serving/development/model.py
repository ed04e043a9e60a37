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
        if spec.version_label:
            raise invalid(f"Unrecognized version label: {spec.version_label}")
        return self._versions.get(_version(spec))

    def metadata(self, spec: Any) -> Any:
        """A GetModelMetadataResponse with the signatures."""
        servable = self.servable(spec)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = self.name
        response.model_spec.version.value = servable.version
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=servable.signatures)
        response.metadata[SIGNATURES_FIELD].Pack(signatures)
        return response

    def status(self, spec: Any) -> Any:
        """A GetModelStatusResponse of every version, or of the one whose number is given; labels are ignored.

        Raises:
            StatusError: there is no such model or version.
        """
        if spec.name != self.name:
            raise StatusError(NOT_FOUND, f"Could not find any versions of model {spec.name}")
        version = _version(spec)
        rows = [row for row in self._versions.statuses() if version in {None, row.version}]
        if not rows:
            raise StatusError(NOT_FOUND, f"Could not find version {version} of model {self.name}")
        return get_model_status_pb2.GetModelStatusResponse(model_version_status=rows)


def _version(spec: Any) -> int | None:
    return int(spec.version.value) if spec.HasField("version") else None
