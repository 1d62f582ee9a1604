"""Options of the bundled workloads, free of torch."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from ..data_path import DataPath as DataPath  # users import it from here
from ..registry import Section

Size = Annotated[int, Field(ge=1)]


class WorkloadOptions(Section):
    """What every workload takes; a workload's own options subclass this."""

    name: str
    batch_size: Size = 128
    """Examples per training batch; a batch for α* has as many."""
    accumulate: Size = 1
    """Batches of `batch_size` that make one step: their gradients are averaged as if they were one batch, in
    the memory of one. A batch for α* is as large."""


class DigitsOptions(WorkloadOptions):
    """scikit-learn's handwritten digits: 8×8 grey values, 10 classes, 1,797 examples; an MLP."""

    hidden: Annotated[list[Size], Field(min_length=1)] = [128, 64]
    """Widths of the hidden layers."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of hidden units dropped in training."""
    batch_norm: bool = False
    """Batch normalisation before each hidden activation."""


class LeastSquaresOptions(WorkloadOptions):
    """Linear least squares on a given or drawn data set: the case in which α* is exact."""

    features: Size = 8
    """Inputs of an example, and weights of the model."""
    examples: Size = 256
    """Examples drawn for each split."""
    noise: Annotated[float, Field(ge=0)] = 0.1
    """Standard deviation of the noise on the targets."""


class DigitsCNNOptions(WorkloadOptions):
    """scikit-learn's handwritten digits: 8×8 grey values, 10 classes, 1,797 examples; a small CNN."""

    channels: Annotated[list[Size], Field(min_length=1, max_length=3)] = [16, 32]
    """Channels of each 3×3 convolution; a max pooling after each halves the image."""
    batch_norm: bool = False
    """Batch normalisation before each hidden activation."""


class CharTransformerOptions(WorkloadOptions):
    """Characters of the Python standard library's source, in random windows; a small causal transformer.

    Of ten files in a row eight are to train, one to validate, one to test. One pass is some 1,900 steps.
    """

    batch_size: Size = 32
    layers: Size = 2
    """Blocks of attention and MLP."""
    width: Size = 64
    """Width of the residual stream; a multiple of `heads`."""
    heads: Size = 4
    """Attention heads of a block."""
    context: Annotated[int, Field(ge=1, le=4096)] = 64
    """Characters of a window, each of which is predicted from those before it."""
    tie_weights: bool = False
    """Use the embedding of the characters as the output layer, too."""
    evaluation_windows: Size = 1024
    """Windows of an evaluated split, spread evenly over its text."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads ({self.heads})")
        return self


class ClickOptions(WorkloadOptions):
    """What every workload of generated clicks takes."""

    evaluation_examples: Size = 16384
    """Examples of each evaluated split."""


class ClickLogOptions(ClickOptions):
    """A generated click log, one pass without end; embeddings and an MLP.

    Clicks follow known probabilities, the same for every seed, whose loss no model can beat.
    """

    batch_size: Size = 256
    evaluation_examples: Size = 65536
    dense: Size = 8
    """Gaussian features of an example."""
    columns: Size = 6
    """Categories of an example, each from its own Zipf law."""
    vocabulary: Annotated[int, Field(ge=1, le=2**24)] = 1000
    """Values of a category."""
    embedding_dim: Size = 8
    """Width of a category's embedding."""
    hidden: Annotated[list[Size], Field(min_length=1)] = [64, 64]
    """Widths of the hidden layers."""


class DLRMOptions(WorkloadOptions):
    """Sizes and variants of DLRM-small, AlgoPerf's by default."""

    table_rows: Size = 4_194_304
    """Rows of the embedding table; a category's row is its hash modulo this."""
    embedding_dim: Size = 128
    """Width of the table, and of the bottom MLP's output (unless `residual`)."""
    bottom: list[Size] = [512, 256]
    """Widths of the bottom MLP's hidden layers; with `residual` of all its layers, [256, 256, 256]."""
    top: Annotated[list[Size], Field(min_length=1)] = [1024, 1024, 512, 256]
    """Widths of the top MLP's hidden layers; with `residual` [256, 256, 256, 256]."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share dropped of the top MLP's last hidden layer in training."""
    layer_norm: bool = False
    """Layer normalisation after each hidden ReLU, and of the embeddings (AlgoPerf's LayerNorm variant)."""
    residual: bool = False
    """Layers that are added to what goes in, and embeddings that go to the top MLP as they are, without
    products between them (AlgoPerf's ResNet variant)."""
    embedding_init: Annotated[float, Field(gt=0)] | None = None
    """Upper end of the table's uniform initial values; null: 1/√rows (AlgoPerf's embed_init: 1.0)."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.residual:
            return self
        for name, widths in (("bottom", [256] * 3), ("top", [256] * 4)):
            if name not in self.model_fields_set:
                object.__setattr__(self, name, widths)
            if len(set(getattr(self, name))) != 1:
                raise ValueError(f"{name}: with residual, layers have one width")
        return self


class DLRMSyntheticOptions(DLRMOptions, ClickOptions):
    """Generated clicks in the layout of Criteo 1TB, one pass without end; DLRM-small with a smaller table.

    Clicks follow known probabilities, the same for every seed, whose loss no model can beat.
    """

    batch_size: Size = 2048
    table_rows: Size = 2**17
    """Rows of the embedding table; 4194304 in AlgoPerf."""


class Criteo1TBOptions(DLRMOptions):
    """Criteo's click logs (the 1 TB of 24 days, or the smaller one of Kaggle's competition); DLRM-small.

    The last day is for test and validation, the days before it to train; `train` as a split is a fixed sample
    of those. See docs/criteo.md.
    """

    data_dir: DataPath
    """Folder that `alphagrid data prepare` made. A relative path counts from the specification's folder."""
    batch_size: Size = 32768
    evaluation_examples: Size | None = None
    """Most examples of each evaluated split, in pieces spread evenly over it; null: the whole split."""
    shuffle_rows: Size = 5_000_000
    """Rows of a block: blocks come in random order, and rows in random order within each."""
    float32_categories: bool = False
    """Round categories to single precision, as AlgoPerf does: in five columns, large ones fall together."""
    max_bad_share: Annotated[float, Field(ge=0, le=1)] = 0.001
    """Has no effect any more: `alphagrid data prepare --max-bad-share` takes its place."""
