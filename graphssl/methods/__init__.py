"""Pretext methods, one paper a file."""

from graphssl.methods.bandana import Bandana as Bandana
from graphssl.methods.base import Method as Method
from graphssl.methods.bgrl import BGRL as BGRL
from graphssl.methods.gae import GAE as GAE
from graphssl.methods.gae import VGAE as VGAE
from graphssl.methods.grace import GRACE as GRACE
from graphssl.methods.graphmae import GraphMAE as GraphMAE
from graphssl.methods.graphmae2 import GraphMAE2 as GraphMAE2
from graphssl.methods.maskgae import MaskGAE as MaskGAE
from graphssl.methods.s2gae import S2GAE as S2GAE
