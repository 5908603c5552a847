"""A cortex.yaml and a cluster.yaml in which nothing is wrong, and ways to spoil them."""

from __future__ import annotations

from pathlib import Path

import pytest

from project.asyncapi.config import ConfigError
from project.asyncapi.files import read_file

API = """\
- name: sentiment
  kind: AsyncAPI
  pod:
    port: 8000
    max_concurrency: 4
    containers:
      - name: api
        image: sentiment:1
        env: {LEVEL: debug}
        compute: {cpu: 200m, mem: 64Mi}
        readiness_probe:
          http_get: {port: 8000, path: /healthcheck}
          period_seconds: 1
        liveness_probe:
          tcp_socket: {port: 8000}
        pre_stop:
          exec: {command: [sleep, "1"]}
  autoscaling:
    min_replicas: 1
    max_replicas: 3
  node_groups: [cpu]
  update_strategy: {max_surge: 25%, max_unavailable: 0}
  networking: {endpoint: /sentiment}
"""

CLUSTER = """\
cluster_name: sentiment
region: us-east-1
availability_zones: [us-east-1a, us-east-1b]
node_groups:
  - name: cpu-spot
    instance_type: c5.large
    min_instances: 0
    max_instances: 5
    spot: true
    spot_config:
      instance_distribution: [c5d.large]
  - name: cpu
    instance_type: m5.large
subnet_visibility: public
nat_gateway: none
api_load_balancer_type: nlb
tags: {team: text}
iam_policy_arns: []
"""


def spoiled(text: str, old: str, new: str) -> str:
    """``text`` with ``new`` in place of ``old``, which must be there once."""
    assert text.count(old) == 1
    return text.replace(old, new)


def mistakes(folder: Path, text: str) -> list[str]:
    """What is wrong with a file of ``text``: "line: key: message"."""
    path = folder / "file.yaml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError) as caught:
        read_file(path)
    return str(caught.value).replace(f"{path}:", "").splitlines()
