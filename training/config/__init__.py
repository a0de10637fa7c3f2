"""Settings: `loading.py` says where they come from and how they are merged, checked and hashed."""

from training.config.as_yaml import dump_yaml
from training.config.keys import nearest_key
from training.config.layers import preset_names
from training.config.loading import LoadedConfig, canonical, config_hash, load_config, name_of_task, with_sets

__all__ = [
    "LoadedConfig",
    "canonical",
    "config_hash",
    "dump_yaml",
    "load_config",
    "name_of_task",
    "nearest_key",
    "preset_names",
    "with_sets",
]
