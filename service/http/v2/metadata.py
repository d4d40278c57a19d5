"""The metadata of server and model."""

from typing import Any

from service.engine.prior import Prior, Priors
from service.http.v2.messages import MODEL, VERSION
from service.http.v2.requests import InferLimits
from training.model.manifest import Manifest

EXTENSIONS = ("binary_tensor_data", "classification")


def server_metadata() -> dict[str, Any]:
    """Return the body for `messages.ServerMetadata`."""
    return {"name": MODEL, "version": VERSION, "extensions": EXTENSIONS}


def model_metadata(priors: Priors, limits: InferLimits) -> dict[str, Any]:
    """Return the body for `messages.ModelMetadata`."""
    manifest = priors.manifest
    spec = manifest.input_spec
    return {
        "name": MODEL,
        "versions": [VERSION],
        "platform": "pytorch_safetensors",
        # Either of them; the protocol cannot express that.
        "inputs": [
            _tensor("faces", "UINT8", -1, spec.height, spec.width),
            _tensor("image", "BYTES", -1),
        ],
        "outputs": [
            _tensor("probabilities", "FP32", -1, len(manifest.emotions)),
            _tensor("emotion", "BYTES", -1),
            _tensor("box", "INT32", -1, 4),
            _tensor("image_index", "INT32", -1),
        ],
        "parameters": checkpoint_parameters(manifest, priors.default)
        | {
            "emotions": ",".join(manifest.emotions),
            "max_faces": limits.max_faces,
            "max_images": limits.max_images,
        },
    }


def checkpoint_parameters(manifest: Manifest, prior: Prior) -> dict[str, str]:
    """Return the checkpoint's name and version, and a prior, for `parameters`."""
    names = {"checkpoint": manifest.name, "checkpoint_version": manifest.version}
    return names | {"prior": prior.text}


def _tensor(name: str, datatype: str, *shape: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape}
