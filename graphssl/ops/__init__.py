"""Sparse kernels, one public function each."""

from graphssl.ops.csr import CSR as CSR
from graphssl.ops.csr import pointers as pointers
from graphssl.ops.message import gat_attention as gat_attention
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
