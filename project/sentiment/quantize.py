"""8-bit weights for CPUs that multiply 8-bit integers (AVX-512 VNNI, AVX-VNNI, Arm's dot product).

Weights and activations are scaled in blocks of 32 values. The usual dynamic quantisation scales
activations by the tensor: twice as fast, but a text's answer then depends on what it is batched
with, by up to 0.4 in probability; ``docs/performance`` has the figures.

Source: MatMulNBits in ONNX Runtime's docs/ContribOperators.md.
"""

from __future__ import annotations

import onnx

from project.sentiment.runtime import onnxruntime  # noqa: F401  (first: without telemetry)

BITS, BLOCK, INT8_ACTIVATIONS = 8, 32, 4


def quantize(graph: onnx.ModelProto) -> onnx.ModelProto:
    """``graph`` with the constant matrices of its products in 8 bits."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(
        graph,
        bits=BITS,
        block_size=BLOCK,
        is_symmetric=True,
        accuracy_level=INT8_ACTIVATIONS,
    )
    quantizer.process()
    quantized: onnx.ModelProto = quantizer.model.model
    return quantized
