"""How much of the site is in the features, and does what is learnt at one site hold at another?"""

from wsi_lmc.evaluation.baselines import Baseline, baseline_set, colour_features, texture_features
from wsi_lmc.evaluation.evaluate import EvaluateConfig, PairFeatures, evaluate, prepare
from wsi_lmc.evaluation.measures import METRICS, Curve, EncoderResult, Evaluation, Gain, LeftOut, Measure, Metric
from wsi_lmc.evaluation.pictures import plot_training
from wsi_lmc.evaluation.reading import read_evaluation
from wsi_lmc.evaluation.scores import FeatureSet, Score, SlideFeatures
from wsi_lmc.evaluation.writing import gains_text, left_out_text, report_text, write_evaluation

__all__ = [
    "METRICS",
    "Baseline",
    "Curve",
    "EncoderResult",
    "EvaluateConfig",
    "Evaluation",
    "FeatureSet",
    "Gain",
    "LeftOut",
    "Measure",
    "Metric",
    "PairFeatures",
    "Score",
    "SlideFeatures",
    "baseline_set",
    "colour_features",
    "evaluate",
    "gains_text",
    "left_out_text",
    "plot_training",
    "prepare",
    "read_evaluation",
    "report_text",
    "texture_features",
    "write_evaluation",
]
