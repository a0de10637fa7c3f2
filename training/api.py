"""The worker from Python: the registry of runs, and configurations.

    from training.api import ConfigManager, ModelRegistry

Both are thin faces on what the commands use; `docs/registry.md` shows them at work. Neither needs PyTorch until weights
are looked at.
"""

from __future__ import annotations

from training.config.manager import ConfigManager
from training.registry.model_registry import ModelRegistry

__all__ = ["ConfigManager", "ModelRegistry"]
