"""Shards to weights: the plan, the optimizers, the loop, the checkpoints."""

from textmill.base.lazy import exports

__getattr__, __all__ = exports(
    __name__,
    {
        "Muon": "optimizers",
        "Plan": "plan",
        "PlanConfig": "config",
        "Schedule": "schedule",
        "TrainingConfig": "config",
        "make_plan": "plan",
        "plan_run": "planning",
        "probe_machine": "probe",
        "train_model": "train",
    },
)
