"""Protocols: fixed ways of judging frozen codes, and what they fit on them."""

from graphssl.probes.base import (
    PROTOCOLS,
    Decoder,
    Exam,
    Examiner,
    Exams,
    Fitted,
    LinkCodes,
    Outcome,
    Protocol,
    Seen,
    get_protocol,
    judge,
    list_protocols,
    register,
)
from graphssl.probes.cluster import node_cluster
from graphssl.probes.graph import graph_few_shot, graph_knn, graph_linear, graph_ridge, graph_svm
from graphssl.probes.link import EDGE_EXPOSURE, link_dot, link_mlp, link_mlp_valmsg
from graphssl.probes.node import node_few_shot, node_knn, node_linear
from graphssl.probes.topology import partition, reconstruct

__all__ = [
    "EDGE_EXPOSURE",
    "PROTOCOLS",
    "Decoder",
    "Exam",
    "Examiner",
    "Exams",
    "Fitted",
    "LinkCodes",
    "Outcome",
    "Protocol",
    "Seen",
    "get_protocol",
    "graph_few_shot",
    "graph_knn",
    "graph_linear",
    "graph_ridge",
    "graph_svm",
    "judge",
    "link_dot",
    "link_mlp",
    "link_mlp_valmsg",
    "list_protocols",
    "node_cluster",
    "node_few_shot",
    "node_knn",
    "node_linear",
    "partition",
    "reconstruct",
    "register",
]
