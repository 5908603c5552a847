"""What Cortex takes as it is, and what is surely not meant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_interface, ip_network

from project.asyncapi.cluster_spec import Cluster
from project.asyncapi.container_spec import Container, Exec
from project.asyncapi.files import ConfigFile
from project.asyncapi.problems import Problem, at
from project.asyncapi.section import Key
from project.asyncapi.spec import AsyncAPI

REFERENCE = re.compile(r"\$\$|\$\(([^()]*)\)")
OWN_VARIABLES = {"CORTEX_CLI_CONFIG_DIR", "CORTEX_LOG_LEVEL", "CORTEX_PORT", "CORTEX_VERSION"}

EXAMPLES = [
    ip_network(block)
    for block in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
]
"""Addresses that nobody has, for examples: RFC 5737 and RFC 3849."""

WHITE_LISTS = ("api_load_balancer_cidr_white_list", "operator_load_balancer_cidr_white_list")


def advise(file: ConfigFile) -> list[Problem]:
    """What to look at again, by line."""
    content = file.content
    found = _of_cluster(content) if isinstance(content, Cluster) else _of_apis(content)
    return sorted({at(file.document, key, message) for key, message in found})


def unknown_node_groups(file: ConfigFile, clusters: list[Cluster]) -> list[Problem]:
    """Node groups that APIs ask for and no cluster has; Cortex refuses them."""
    if isinstance(file.content, Cluster) or not clusters:
        return []
    known = {group.name for cluster in clusters for group in cluster.node_groups or ()}
    return [
        at(file.document, (index, "node_groups", place), f"{name} is no node group of the cluster")
        for index, api in enumerate(file.content)
        for place, name in enumerate(api.node_groups or ())
        if name not in known
    ]


def _of_apis(apis: list[AsyncAPI]) -> Iterator[tuple[Key, str]]:
    for index, api in enumerate(apis):
        for place, container in enumerate(api.pod.containers):
            for key, message in _of_container(container):
                yield (index, "pod", "containers", place, *key), message


def _of_container(container: Container) -> Iterator[tuple[Key, str]]:
    """References to variables that Kubernetes leaves as they are."""
    known = OWN_VARIABLES | set(container.env)
    words: dict[Key, str] = {
        **{("command", place): word for place, word in enumerate(container.command or ())},
        **{("args", place): word for place, word in enumerate(container.args or ())},
        **{("env", name): value for name, value in container.env.items()},
    }
    for key, text in words.items():
        for name in REFERENCE.findall(text):
            if name and name not in known:
                yield key, f"$({name}) stays as it is: there is no variable of this name"
    for section in ("liveness_probe", "pre_stop"):
        command = getattr(getattr(container, section), "exec", None) or Exec(command=[""])
        for place, word in enumerate(command.command):
            if any(REFERENCE.findall(word)):
                key = (section, "exec", "command", place)
                yield key, "variables are not replaced in a command of a probe or hook: use sh -c"


def _of_cluster(cluster: Cluster) -> Iterator[tuple[Key, str]]:
    for index, arn in enumerate(cluster.iam_policy_arns or ()):
        if arn.endswith(":policy/AmazonS3FullAccess"):
            message = "every API may read, change and delete every bucket of the account"
            yield ("iam_policy_arns", index), message
    for name in WHITE_LISTS:
        blocks = [ip_interface(text) for text in getattr(cluster, name) or ("0.0.0.0/0",)]
        if any(block.network.prefixlen == 0 for block in blocks):
            yield (name,), "open to every address"
        elif any(block.ip in example for block in blocks for example in EXAMPLES):
            yield (name,), "holds an address of examples, which nobody has: put in your own"
