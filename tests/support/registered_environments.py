"""dtbench's environments in gymnasium, also where the installed package is older than its entry point."""

from gymnasium.envs.registration import namespace, registry

from dtbench.domains import registered


def register_once() -> None:
    """Register as gymnasium does for an installed package, unless it did."""
    if registered.IDS[0] not in registry:
        with namespace("dtbench"):
            registered.register()
