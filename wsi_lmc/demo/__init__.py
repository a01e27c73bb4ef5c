"""The whole pipeline in one go: on a small synthetic cohort of two sites, or on given slides."""

from wsi_lmc.demo.running import DemoConfig, DemoResult, Hearers, run_demo

__all__ = ["DemoConfig", "DemoResult", "Hearers", "run_demo"]
