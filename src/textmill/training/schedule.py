"""The learning rate over the steps: warm-up, stable, linear decay to zero, with an end that may be moved."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Schedule:
    """Warm-up, stable, decay (Hu et al. 2024, "WSD"; decay to zero: Bergsma et al. 2025).

    A pure function of the step. When the clock shows that the machine is faster or slower than planned, `moved`
    gives the schedule with a new last step; inside the decay the level goes on from where it is.

    Attributes:
        total: steps in all.
        warmup: steps of linear rise.
        decay_share: last share of the steps in which the level falls to zero.
        anchor: step from which the present decay line is drawn, or None before the decay.
        anchor_level: level at the anchor.
    """

    total: int
    warmup: int
    decay_share: float
    anchor: int | None = None
    anchor_level: float = 1.0

    @property
    def decay_start(self) -> int:
        """First step of the decay."""
        return self.total - round(self.total * self.decay_share)

    def level(self, step: int) -> float:
        """Factor of the learning rates at `step` (0-based)."""
        rise = min(1.0, (step + 1) / max(1, self.warmup))
        if self.anchor is not None:
            fall = self.anchor_level * (self.total - step) / max(1, self.total - self.anchor)
        elif step >= self.decay_start:
            fall = (self.total - step) / max(1, self.total - self.decay_start)
        else:
            fall = 1.0
        return max(0.0, min(rise, fall))

    def moved(self, step: int, total: int) -> Schedule:
        """The schedule from `step` on with another last step.

        Before the decay, and when the end moves so far that the decay should not have begun yet, the level is the
        full one; inside the decay it goes on from where it is, and falls to zero at the new end.
        """
        moved = replace(self, total=max(total, step + 1), anchor=None, anchor_level=1.0)
        if step < moved.decay_start:
            return moved
        return replace(moved, anchor=step, anchor_level=self.level(step))
