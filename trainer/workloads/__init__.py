"""Workloads: a model, a loss, streams of batches and evaluation splits. One file each."""

from ..registry import Entry, Registry
from .options import (
    CharTransformerOptions,
    ClickLogOptions,
    Criteo1TBOptions,
    DigitsCNNOptions,
    DigitsOptions,
    DLRMSyntheticOptions,
    LeastSquaresOptions,
)

HERE = __name__

WORKLOADS = Registry(
    "workload",
    {
        "digits_mlp": Entry(f"{HERE}.digits:Digits", DigitsOptions),
        "digits_cnn": Entry(f"{HERE}.digits_cnn:DigitsCNN", DigitsCNNOptions),
        "char_transformer": Entry(f"{HERE}.char_transformer:CharTransformer", CharTransformerOptions),
        "click_log": Entry(f"{HERE}.click_log:ClickLog", ClickLogOptions),
        "dlrm_synthetic": Entry(f"{HERE}.dlrm_synthetic:DLRMSynthetic", DLRMSyntheticOptions),
        "least_squares": Entry(f"{HERE}.least_squares:LeastSquares", LeastSquaresOptions),
        "criteo1tb": Entry(f"{HERE}.criteo1tb:Criteo1TB", Criteo1TBOptions),
    },
    imports=True,
)
