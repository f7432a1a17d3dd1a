"""Sparse kernels, one public function each; ``using`` forces the path they take, ``backend`` tells which ran."""

from graphssl.ops.choose import backend as backend
from graphssl.ops.choose import missing as missing
from graphssl.ops.choose import using as using
from graphssl.ops.contrast import info_nce as info_nce
from graphssl.ops.contrast import scaled_cosine as scaled_cosine
from graphssl.ops.csr import CSR as CSR
from graphssl.ops.csr import groups as groups
from graphssl.ops.csr import places as places
from graphssl.ops.csr import pointers as pointers
from graphssl.ops.message import gat_attention as gat_attention
from graphssl.ops.message import gatv2_attention as gatv2_attention
from graphssl.ops.message import qkv_attention as qkv_attention
from graphssl.ops.message import segment_reduce as segment_reduce
from graphssl.ops.message import segment_softmax as segment_softmax
from graphssl.ops.message import spmm as spmm
from graphssl.ops.rows import Content as Content
from graphssl.ops.rows import Covered as Covered
from graphssl.ops.rows import Rows as Rows
from graphssl.ops.rows import cover as cover
from graphssl.ops.rows import dense as dense
from graphssl.ops.rows import dropout as dropout
from graphssl.ops.rows import linear as linear
from graphssl.ops.sample import free_pairs as free_pairs
from graphssl.ops.sample import sample_negatives as sample_negatives
from graphssl.ops.sample import sample_neighbors as sample_neighbors
from graphssl.ops.sample import sample_pairs as sample_pairs
