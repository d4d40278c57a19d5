"""BlazeFace on a picture of any size: MediaPipe's short-range model under LiteRT, one thread.

Bazarevsky et al. 2019, "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs",
arXiv:1907.05047. The published file is tied to 128x128 by the reshapes after its last
convolutions; without them the same convolutions run over any picture, which finds small faces for
less than tiles of it would. A face of 20 to 110 pixels is seen. Not its duty: at which sizes to
look, and what to believe.
"""

import math
import threading

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

from service.pictures.boxes import Boxes

Floats = npt.NDArray[np.float32]

MULTIPLE = 32
"""An input's sides are multiples of this: both grids fit, and there are few shapes."""

# Anchors: the stride of a grid of points, and how many stand at each.
_GRIDS = ((8, 2), (16, 6))


class BlazeFace:
    """The model; any thread may use it, each has interpreters of its own."""

    def __init__(self, content: bytes) -> None:
        """Prepare the model from the bytes of its file, as `model_file.read_model` gives them."""
        self._content = _cut_tail(content)
        self._of_thread = threading.local()

    def look(self, picture: Image.Image, width: int, height: int, least: float) -> Boxes:
        """Look at a picture once, at the size that it has.

        Args:
            picture: Of mode RGB, at most `width` x `height`.
            width: Columns of the model's input, a multiple of `MULTIPLE`; the picture is centred.
            height: Its rows, likewise.
            least: Least confidence, above 0 and below 1.

        Returns:
            What it takes for faces, the same face many times, in pixels of `picture`.
        """
        left, top = (width - picture.width) // 2, (height - picture.height) // 2
        image = np.full((1, height, width, 3), -1, np.float32)
        pixels = np.asarray(picture, np.float32) * np.float32(2 / 255) - 1
        image[0, top : top + picture.height, left : left + picture.width] = pixels
        logits, offsets = self._invoke(image)
        kept = np.flatnonzero(logits >= math.log(least / (1 - least)))
        centre = offsets[kept, :2] + _anchors(height, width)[kept] - (left, top)
        half = offsets[kept, 2:4] / 2
        confidence = 1 / (1 + np.exp(-np.clip(logits[kept], -80, 80)))
        return np.column_stack([centre - half, centre + half, confidence]).astype(np.float32)

    def _invoke(self, image: Floats) -> tuple[Floats, Floats]:
        """Return logits float32[n] and offsets float32[n, 16] of all anchors."""
        interpreter = self._interpreter(image.shape)
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
        interpreter.invoke()
        outputs = [interpreter.get_tensor(out["index"]) for out in interpreter.get_output_details()]
        logits, offsets = outputs[: len(_GRIDS)], outputs[len(_GRIDS) :]
        return (
            np.concatenate([out.reshape(-1) for out in logits]),
            np.concatenate([out.reshape(-1, 16) for out in offsets]),
        )

    def _interpreter(self, shape: tuple[int, ...]) -> Interpreter:
        """Return this thread's interpreter for inputs of that shape.

        Squares below twice the published size keep one each; the rest share one, because each
        large one holds tens of MB. Giving it another shape takes 3 ms.
        """
        role = shape[1] if shape[1] == shape[2] <= 256 else 0
        kept: dict[int, tuple[tuple[int, ...], Interpreter]]
        kept = self._of_thread.__dict__.setdefault("interpreters", {})
        held, interpreter = kept.get(role) or (None, None)
        if interpreter is None:
            interpreter = Interpreter(model_content=self._content, num_threads=1)
        if held != shape:
            interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], shape)
            interpreter.allocate_tensors()
            kept[role] = shape, interpreter
        return interpreter


def _cut_tail(content: bytes) -> bytes:
    """Drop what ties the model to one size: the reshapes and joins after its last convolutions."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    graph, known = model.subgraphs[0], schema.BuiltinOperator
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    reshapes = [o for o in graph.operators if codes[o.opcodeIndex] == known.RESHAPE]
    tail = (known.RESHAPE, known.CONCATENATION)
    graph.outputs = [int(reshape.inputs[0]) for reshape in reshapes]
    graph.operators = [o for o in graph.operators if codes[o.opcodeIndex] not in tail]
    model.signatureDefs = []
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _anchors(height: int, width: int) -> Floats:
    """Return the anchors' centres, float32[n, 2] as x, y in pixels of the input, in its order."""
    grids = []
    for stride, per_point in _GRIDS:
        rows, columns = (
            (np.arange(side // stride, dtype=np.float32) + 0.5) * stride for side in (height, width)
        )
        y, x = np.meshgrid(rows, columns, indexing="ij")
        points = np.stack([x, y], axis=-1).reshape(-1, 2)
        grids.append(np.repeat(points, per_point, axis=0))
    return np.concatenate(grids)
