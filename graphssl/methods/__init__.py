"""Pretext methods, one paper a file."""

from graphssl.methods.base import Method as Method
from graphssl.methods.bgrl import BGRL as BGRL
from graphssl.methods.grace import GRACE as GRACE
from graphssl.methods.graphmae import GraphMAE as GraphMAE
