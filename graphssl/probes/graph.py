"""Protocols for codes of graphs: for classes logistic regression, the nearest neighbours, a few labels and a support
vector machine, for numbers ridge regression."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits
from torch import Tensor

from graphssl.data.dataset import Dataset
from graphssl.data.splits import labelled
from graphssl.errors import UserError
from graphssl.probes.base import (
    Exam,
    Examiner,
    Exams,
    Fitted,
    Protocol,
    Seen,
    default_splits,
    labels,
    register,
    row_exam,
)
from graphssl.probes.metrics import accuracy, mean_absolute_error, root_mean_square_error
from graphssl.probes.node import (
    DRAWS,
    NEIGHBOURS,
    TEMPERATURE,
    fit_knn,
    set_few_exams,
    set_split_exams,
    shares_of,
)

FOLDS = 10
FOLD_SEED = 0
INNER_FOLDS = 5
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # C of the support vector machine
STRENGTHS = (*PENALTIES, 100.0, 1e3)  # C of logistic regression
ALPHAS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1e3)
SHOTS = 10  # labels a class
STEPS = 1000  # of logistic regression, at most


def set_class_folds(codes: Tensor, dataset: Dataset) -> Exams[Tensor]:
    """One exam for each of ten stratified folds; fewer, with a note, where a class has fewer graphs.

    Stratifying deals all labels out to folds; that is the split, and no probe sees it but through its training rows.
    """
    y = _y(dataset)
    rows, notes = _labelled(y)
    dealt = labels(y, rows)
    counts = dealt.bincount()
    smallest = int(counts[counts > 0].min())
    if int((counts > 0).sum()) < 2:
        raise UserError(f"the graphs of {dataset.name!r} are all of one class, so there is nothing to tell apart")
    if smallest < 3:
        rare = int(((counts > 0) & (counts < 3)).nonzero()[0])
        raise UserError(
            f"class {rare} of {dataset.name!r} has {int(counts[rare])} graphs, but cross-validation with selection "
            "inside needs 3 of each class; merge or drop rare classes"
        )
    folds = min(FOLDS, smallest)
    if folds < FOLDS:
        notes = (*notes, f"{folds} folds instead of {FOLDS}: the smallest class has {smallest} graphs")
    parts = StratifiedKFold(folds, shuffle=True, random_state=FOLD_SEED).split(rows, dealt)
    exams = (_fold(codes, y, rows[train], rows[test]) for train, test in parts)
    return Exams(exams, folds, "fold", {"accuracy": accuracy}, notes)


def set_number_exams(codes: Tensor, dataset: Dataset) -> Exams[Tensor]:
    """One exam for each repeat of the data set's split, or, where it has none, for each of ten shuffled folds."""
    y, metrics = _y(dataset), {"MAE": mean_absolute_error, "RMSE": root_mean_square_error}
    if dataset.splits:
        splits = default_splits(dataset, needs_validation=False)
        exams = (row_exam(codes, y, s.train, s.val, s.test, mean_absolute_error) for s in splits)
        return Exams(exams, len(splits), "split", metrics)
    rows, notes = _labelled(y)
    if len(rows) < FOLDS:
        raise UserError(
            f"{FOLDS} folds need {FOLDS} labelled graphs, but {dataset.name!r} has {len(rows)}; give it a split"
        )
    parts = KFold(FOLDS, shuffle=True, random_state=FOLD_SEED).split(rows)
    return Exams((_fold(codes, y, rows[train], rows[test]) for train, test in parts), FOLDS, "fold", metrics, notes)


def _y(dataset: Dataset) -> Tensor:
    assert dataset.y is not None  # ``judge`` has looked
    return dataset.y


def _labelled(y: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """The rows that carry a label, and a note where others do not."""
    rows = torch.from_numpy(labelled(y.reshape(-1)))
    without = len(y) - len(rows)
    return rows, (f"{without} graphs without a label are left out",) if without else ()


def _fold(codes: Tensor, y: Tensor, train: Tensor, test: Tensor) -> Exam[Tensor]:
    metric = mean_absolute_error if y.is_floating_point() else accuracy
    return row_exam(codes, y, train, train[:0], test, metric)


def fit_svm(seen: Seen[Tensor], seeds: tuple[int, ...]) -> Fitted[Tensor]:
    """A support vector machine whose C is chosen by cross-validation inside the training rows. Nothing is random.

    As main_graph.py, github.com/THUDM/GraphMAE, commit a8a51cf: RBF kernel, gamma from the variance of the codes, codes
    as they are, inner folds stratified in the order of the rows. The kernel, which takes the time, is worked out once
    for all C.
    """
    classes, counts = seen.num_classes, seen.train_y.bincount()
    train, y = seen.train.double(), seen.train_y.numpy()
    shares = []
    inner = StratifiedKFold(min(INNER_FOLDS, int(counts[counts > 0].min())))
    for some, others in inner.split(y, y):
        kernel = _kernel(train[some])
        within, across = kernel(train[some]), kernel(train[others])
        shares.append([_svm(C).fit(within, y[some]).score(across, y[others]) for C in PENALTIES])
    C = PENALTIES[int(np.mean(shares, axis=0).argmax())]  # of equal ones the smallest
    kernel = _kernel(train)
    model = _svm(C).fit(kernel(train), y)

    def predict(rows: Tensor) -> dict[str, Tensor]:
        return {"": F.one_hot(torch.from_numpy(model.predict(kernel(rows.double()))), classes)[None]}

    return Fitted(predict, (f"C = {C:g}",))


def _kernel(train: Tensor) -> Callable[[Tensor], np.ndarray]:
    """The RBF kernel [M, n] of rows against ``train`` [n, D], as wide as scikit-learn's gamma="scale" has it."""
    variance = float(train.var(correction=0))
    gamma = 1 / (train.size(1) * variance) if variance else 1.0
    return lambda rows: torch.cdist(rows, train).square_().mul_(-gamma).exp_().numpy()


def _svm(C: float) -> SVC:
    # Fitting draws nothing, but a random_state of None advances NumPy's global generator.
    return SVC(C=C, kernel="precomputed", random_state=0)


def fit_logistic(seen: Seen[Tensor], seeds: tuple[int, ...], each: bool = True) -> Fitted[Tensor]:
    """Logistic regression on standardised codes, of the C that does best on the validation rows. Nothing is random.

    Without ``each`` all columns are divided by one number, as a few rows do not tell how wide a column is.
    """
    scaler = StandardScaler().fit(seen.train.double().numpy())
    if not each:
        scaler.scale_ = np.full_like(scaler.scale_, np.sqrt(scaler.var_.mean()) or 1.0)

    def scaled(rows: Tensor) -> np.ndarray:
        return scaler.transform(rows.double().numpy()).astype(np.float32)

    train, val, y, classes = scaled(seen.train), scaled(seen.val), seen.train_y.numpy(), seen.num_classes
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # said below, of the model that is chosen
        models = [LogisticRegression(C=C, max_iter=STEPS, random_state=0).fit(train, y) for C in STRENGTHS]
        scores = [float(seen.metric(shares_of(model, val, classes), seen.val_y)) for model in models]
    model = models[int(np.argmax(scores))]  # of equal ones the smallest C

    def predict(rows: Tensor) -> dict[str, Tensor]:
        with threadpool_limits(1):
            return {"": shares_of(model, scaled(rows), classes)[None]}

    stopped = f", stopped after {STEPS} steps" if model.n_iter_.max() >= STEPS else ""
    return Fitted(predict, (f"C = {model.C:g}{stopped}",))


def fit_ridge(seen: Seen[Tensor], seeds: tuple[int, ...]) -> Fitted[Tensor]:
    """Ridge regression on standardised codes. Nothing is random.

    The penalty is the one with the least error on the validation rows, or, where there are none, the least squared
    error when one training row is left out at a time.
    """
    scaler = StandardScaler().fit(seen.train.double().numpy())
    train, truth = scaler.transform(seen.train.double().numpy()), seen.train_y.numpy()
    if len(seen.val_y):
        val = scaler.transform(seen.val.double().numpy())
        models = [Ridge(alpha=alpha).fit(train, truth) for alpha in reversed(ALPHAS)]  # of equal ones the largest
        errors = [float(seen.metric(torch.from_numpy(model.predict(val)), seen.val_y)) for model in models]
        model = models[int(np.argmin(errors))]
        alpha = model.alpha
    else:
        model = RidgeCV(alphas=ALPHAS).fit(train, truth)
        alpha = model.alpha_

    def predict(rows: Tensor) -> dict[str, Tensor]:
        return {"": torch.from_numpy(model.predict(scaler.transform(rows.double().numpy())))[None]}

    return Fitted(predict, (f"alpha = {alpha:g}",))


_SPLIT = "The data set's own default split in all its repeats;"
_METRIC = "accuracy, or ROC AUC where the data set asks for it;"
_CHOSEN = f"C of {', '.join(f'{c:g}' for c in STRENGTHS)} chosen on validation;"

graph_linear = register(
    Protocol(
        name="graph-linear",
        version=1,
        task="graph",
        metric="accuracy",
        higher_is_better=True,
        about=f"{_SPLIT} labels of its training graphs; logistic regression on codes standardised by them, {_CHOSEN} "
        f"{_METRIC} nothing is random.",
        judge=Examiner(set_split_exams, fit_logistic),
    )
)

graph_knn = register(
    Protocol(
        name="graph-knn",
        version=1,
        task="graph",
        metric="accuracy",
        higher_is_better=True,
        about=f"{_SPLIT} labels of its training graphs; the nearest of these by cosine similarity vote with weight "
        f"exp(similarity / {TEMPERATURE:g}), their number of {', '.join(map(str, NEIGHBOURS))} chosen on validation; "
        f"{_METRIC} nothing is random.",
        judge=Examiner(set_split_exams, fit_knn),
    )
)

graph_few_shot = register(
    Protocol(
        name="graph-few-shot",
        version=1,
        task="graph",
        metric="accuracy",
        higher_is_better=True,
        about=f"Test graphs of the data set's own default split; labels of {SHOTS} graphs a class, drawn from its "
        f"training graphs; logistic regression on codes less their mean and divided by one number, {_CHOSEN} {_METRIC} "
        f"{DRAWS} draws, from the repeats of the split in turn.",
        judge=Examiner(partial(set_few_exams, shots=SHOTS, choosing=True), partial(fit_logistic, each=False)),
    )
)

graph_svm = register(
    Protocol(
        name="graph-svm",
        version=1,
        task="graph",
        metric="accuracy",
        higher_is_better=True,
        about=f"{FOLDS} stratified folds of all graphs, shuffled with seed {FOLD_SEED}; labels of nine tenths; "
        "support vector machine with RBF kernel on the codes as they are, C of "
        f"{', '.join(f'{c:g}' for c in PENALTIES)} chosen by {INNER_FOLDS}-fold cross-validation inside the training "
        "fold; accuracy, its mean over the folds.",
        judge=Examiner(set_class_folds, fit_svm),
    )
)

graph_ridge = register(
    Protocol(
        name="graph-ridge",
        version=1,
        task="graph",
        metric="MAE",
        higher_is_better=False,
        about=f"The data set's own default split in all its repeats, or, where it has none, {FOLDS} folds shuffled "
        f"with seed {FOLD_SEED}; labels of the training graphs; ridge regression on codes standardised by them, alpha "
        f"of {', '.join(f'{a:g}' for a in ALPHAS)} chosen by mean absolute error on validation, or, without one, by "
        "squared error when one training graph is left out at a time; mean absolute error, the root of the mean square "
        "beside it.",
        judge=Examiner(set_number_exams, fit_ridge),
        labels="numbers",
        unit="",
    )
)
