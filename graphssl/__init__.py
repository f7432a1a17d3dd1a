"""Self-supervised pretraining for anything that is a graph."""

from importlib.metadata import version

from graphssl.api import evaluate as evaluate
from graphssl.api import pretrain as pretrain
from graphssl.backbones import list_encoders as list_encoders
from graphssl.data import Dataset as Dataset
from graphssl.data import list_datasets as list_datasets
from graphssl.data import load_dataset as load_dataset
from graphssl.data import to_dataset as to_dataset
from graphssl.encoder import Encoder as Encoder
from graphssl.errors import Diverged as Diverged
from graphssl.errors import OutOfMemory as OutOfMemory
from graphssl.errors import UserError as UserError
from graphssl.graph import Graph as Graph
from graphssl.methods import Method as Method
from graphssl.pretrained import Pretrained as Pretrained
from graphssl.pretrained import load as load
from graphssl.probes import list_protocols as list_protocols
from graphssl.recipes import list_methods as list_methods
from graphssl.report import Report as Report

__version__ = version("graphssl")
