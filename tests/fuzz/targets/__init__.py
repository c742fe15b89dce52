"""Every target, by name. A new one is a function in one of these modules, and a line in its list."""

from fuzz.harness import Target
from fuzz.targets import agent, banks, bundles, captures, commands, configs, lineprotocol, payloads, recordings, state

TARGETS: dict[str, Target] = {
    target.name: target
    for module in (
        payloads, commands, configs, banks, captures, recordings, bundles, state, lineprotocol, agent,
    )
    for target in module.TARGETS
}  # fmt: skip
