"""What XNNPACK's sparse inference requires of a model, and the changes that achieve it.

XNNPACK (the CPU kernels of TFLite and LiteRT) skips zero weights only in float models of one shape: a 3x3
stride-2 convolution over three channels after `ZeroPadding2D(1)`; then 1x1 convolutions, depthwise
convolutions with the same padding on every side and a few element-wise layers; then
`GlobalAveragePooling2D(keepdims=True)`. More than two thirds of the weights of the 1x1 convolutions must be
zero, and no x86 processor with AVX uses that path at all.

Sizes matter. Where both sides of its input are odd, a stride-2 `ZeroPadding2D` + 'valid' equals 'same', and
TFLite's converter writes it as 'same', which the sparse path does not support. So the best input size is one less
than a multiple of 32 (223 for 224): there this module can keep the function of any MobileNet, and every
stride-2 depthwise convolution meets an even size.

    for miss in xnnpack_misses(model):
        print(miss)
    model = adapt_for_xnnpack(model)

Source: XNNPACK, `src/subgraph.c` (`xnn_check_nchw_compatibility`, `xnn_subgraph_rewrite_for_nchw`), and
Elsen et al., "Fast Sparse ConvNets", https://arxiv.org/abs/1911.09723.
"""

from edgeprune.sparsity.xnnpack.adapt import adapt_for_xnnpack
from edgeprune.sparsity.xnnpack.misses import XnnpackMiss, xnnpack_misses

__all__ = ["XnnpackMiss", "adapt_for_xnnpack", "xnnpack_misses"]
