"""Makes drugs-mini: the molecules of ``drugs_mini.tsv`` as graphs, with penalised logP as the number to predict.

    python datasets/make_drugs_mini.py

Needs rdkit (``pip install graphssl[molecules]``); reading the result does not. Nothing is drawn at random.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import rdkit
from rdkit import Chem

from graphssl.data import penalised_logp

HERE = Path(__file__).parent
OUT = HERE.parent / "graphssl" / "data" / "files" / "drugs-mini.npz"
ATOMS = ("C", "N", "O", "F", "P", "S", "Cl", "Br", "I")
BONDS = (Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE, Chem.BondType.AROMATIC)


def main() -> None:
    names, smiles, y = [], [], []
    node_label, edges, edge_label, node_ptr, edge_ptr = [], [], [], [0], [0]
    seen: set[str] = set()
    with open(HERE / "drugs_mini.tsv", newline="") as table:
        for row in csv.DictReader(table, delimiter="\t"):
            molecule = Chem.MolFromSmiles(row["smiles"])
            if molecule is None or Chem.MolToSmiles(molecule) in seen:
                print(f"left out: {row['name']}")
                continue
            seen.add(Chem.MolToSmiles(molecule))
            names.append(row["name"])
            smiles.append(Chem.MolToSmiles(molecule))
            y.append(penalised_logp(molecule, normalised=False))
            node_label += [ATOMS.index(atom.GetSymbol()) for atom in molecule.GetAtoms()]
            for bond in molecule.GetBonds():
                u, v = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
                edges += [(u, v), (v, u)]
                edge_label += [BONDS.index(bond.GetBondType())] * 2
            node_ptr.append(len(node_label))
            edge_ptr.append(len(edges))
    meta = {
        "name": "drugs-mini",
        "made_by": f"datasets/make_drugs_mini.py with rdkit {rdkit.__version__}",
        "y": "logP - SA score - max(largest ring - 6, 0)",
        "atoms": ATOMS,
        "bonds": [str(bond) for bond in BONDS],
    }
    np.savez_compressed(
        OUT,
        node_ptr=np.array(node_ptr, np.int32), edge_ptr=np.array(edge_ptr, np.int32),
        edge_index=np.array(edges, np.int16).T, node_label=np.array(node_label, np.int8),
        edge_label=np.array(edge_label, np.int8), y=np.array(y, np.float32),
        names=np.array(names), smiles=np.array(smiles), meta=np.array(json.dumps(meta)),
    )  # fmt: skip
    print(
        f"{OUT.name}: {len(names)} graphs, {len(node_label)} atoms, {len(edges) // 2} bonds, {OUT.stat().st_size} bytes"
    )


if __name__ == "__main__":
    main()
