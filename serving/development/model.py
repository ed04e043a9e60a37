"""The served model: predict, metadata and status, whichever way they are asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from serving.development.batching import Batcher
from serving.development.refusal import INVALID_ARGUMENT, NOT_FOUND, RefusalError
from serving.development.servable import Servable
from serving.development.versions import Versions

SIGNATURES_FIELD = "signature_def"


class ServedModel:
    """One model by its name.

    Args:
        name: what requests call it.
        versions: what answers.
        batcher: joins requests; None to run each by itself.
    """

    def __init__(self, name: str, versions: Versions, batcher: Batcher | None = None) -> None:
        self.name, self._versions, self._batcher = name, versions, batcher

    def servable(self, spec: Any) -> Servable:
        """The version that a ModelSpec asks for.

        Raises:
            RefusalError: there is no such model or version.
        """
        return self._versions.get(self._version(spec))

    def predict(
        self,
        servable: Servable,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        wanted: Sequence[str] = (),
    ) -> dict[str, np.ndarray]:
        """Output name -> value.

        Raises:
            RefusalError: the request is not answered.
        """
        servable.signature(signature)
        if self._batcher is None:
            return servable.run(signature, inputs, wanted)
        return self._batcher.run(servable, signature, inputs, tuple(wanted))

    def metadata(self, spec: Any) -> Any:
        """A GetModelMetadataResponse with the signatures."""
        servable = self.servable(spec)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = self.name
        response.model_spec.version.value = servable.version
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in servable.signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
        response.metadata[SIGNATURES_FIELD].Pack(signatures)
        return response

    def status(self, spec: Any) -> Any:
        """A GetModelStatusResponse of every version, or of the one whose number is given; labels are ignored.

        Raises:
            RefusalError: there is no such model or version.
        """
        if spec.name != self.name:
            raise RefusalError(NOT_FOUND, f"Could not find any versions of model {spec.name}")
        version = int(spec.version.value) if spec.HasField("version") else None
        response = get_model_status_pb2.GetModelStatusResponse()
        for number, status in self._versions.statuses().items():
            if version in {None, number}:
                row = response.model_version_status.add(version=number, state=status.state)
                row.status.error_code = status.error_code
                row.status.error_message = status.error_message
        if not response.model_version_status:
            raise RefusalError(NOT_FOUND, f"Could not find version {version} of model {self.name}")
        return response

    def _version(self, spec: Any) -> int | None:
        if not spec.name:
            raise RefusalError(INVALID_ARGUMENT, "ModelSpec has no name specified.")
        if spec.name != self.name:
            raise RefusalError(
                NOT_FOUND, f"Servable not found for request: {spec.name}; {self.name} is served"
            )
        if spec.version_label:
            raise RefusalError(INVALID_ARGUMENT, f"Unrecognized version label: {spec.version_label}")
        return int(spec.version.value) if spec.HasField("version") else None
