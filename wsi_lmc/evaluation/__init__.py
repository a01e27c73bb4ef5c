"""Is the site still visible in the features, and does what is learnt at one site hold at another?"""

from wsi_lmc.evaluation.baselines import colour_features
from wsi_lmc.evaluation.evaluate import Evaluation, Roles, evaluate, report_text
from wsi_lmc.evaluation.pictures import plot_training
from wsi_lmc.evaluation.probes import class_probe, site_probe
from wsi_lmc.evaluation.scores import FeatureSet, Score, SlideFeatures

__all__ = [
    "Evaluation",
    "FeatureSet",
    "Roles",
    "Score",
    "SlideFeatures",
    "class_probe",
    "colour_features",
    "evaluate",
    "plot_training",
    "report_text",
    "site_probe",
]
