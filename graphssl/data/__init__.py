"""Data sets: named ones, whatever a user hands in, splits and transforms."""

from graphssl.data.arrays import items_of as items_of
from graphssl.data.convert import is_path as is_path
from graphssl.data.convert import to_dataset as to_dataset
from graphssl.data.dataset import Dataset as Dataset
from graphssl.data.dataset import Graphs as Graphs
from graphssl.data.dataset import Split as Split
from graphssl.data.features import degree_features as degree_features
from graphssl.data.folders import read_folder as read_folder
from graphssl.data.molecules import from_smiles as from_smiles
from graphssl.data.molecules import penalised_logp as penalised_logp
from graphssl.data.molecules import read_csv as read_csv
from graphssl.data.molecules import scaffold_split as scaffold_split
from graphssl.data.named import list_datasets as list_datasets
from graphssl.data.named import load_dataset as load_dataset
from graphssl.data.named import origin as origin
from graphssl.data.named import search_path as search_path
from graphssl.data.splits import link_split as link_split
from graphssl.data.splits import random_splits as random_splits
from graphssl.data.stored import Stored as Stored
from graphssl.data.storing import convert_to_folder as convert_to_folder
from graphssl.data.transforms import Transform as Transform
