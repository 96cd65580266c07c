"""``cg search``: any space, strategy and oracle from the command line. Bodies import what they need."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from inspect import signature
from json import loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cg._terminal import Json, Seed

if TYPE_CHECKING:
    from evo_search.history import Query
    from evo_search.objectives import Constraint
    from evo_search.oracles import Oracle
    from evo_search.spaces._base import SearchSpace
    from evo_search.strategies import Strategy

_GUIDED = ("algorithm1", "brp", "cg", "neural-predictor", "npenas")
_EVALUATION, _TRAINING = "An oracle of your own", "Training"


def search(
    space: Annotated[str, typer.Argument(help="A name that 'cg spaces' lists.")],
    budget: Annotated[int, typer.Option("--budget", min=1, help="Networks to ask about, earlier ones included.")] = 90,
    strategy: Annotated[str | None, typer.Option(
        "--strategy", help="cg, algorithm1, npenas, nsga2, aging, …: docs/search.md; cg if none is named.")] = None,
    predictor: Annotated[Path | None, typer.Option(
        "--predictor", help="Folder of 'cg finetune': its encoder and sources guide it; labels come from the search.")] = None,
    history: Annotated[str | None, typer.Option(
        "--history", help="SQLite file, or postgresql://… URL; an unfinished run in it goes on.")] = None,
    study: Annotated[str, typer.Option("--study", help="Name of the run in a history that holds several.")] = "search",
    objective: Annotated[list[str] | None, typer.Option(
        "--objective", help="name, name:max or name:min of a value that the oracle gives; repeat for a front.")] = None,
    constraint: Annotated[list[str] | None, typer.Option(
        "--constraint", help="'macs<=3e8', 'params>=1e6', or a bound of a value that the oracle gives; repeatable.")] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Evaluations at a time.")] = 1,
    metric: Annotated[str | None, typer.Option("--metric", help="What to maximise, else the default metric.")] = None,
    oracle: Annotated[str, typer.Option("--oracle", help="'table', or 'surrogate' (nasbench301, ofa-*).")] = "table",
    config: Annotated[str, typer.Option("--config", help="'default', or 'paper' as published (algorithm1).")] = "default",
    settings: Annotated[list[str] | None, typer.Option(
        "--set", help="name=value of the strategy's settings, such as pool_size=800 or view=graph+native; repeatable.")] = None,
    random: Annotated[bool, typer.Option("--random", help="The same as --strategy random: the baseline.")] = False,
    report: Annotated[Path | None, typer.Option(
        "--report", help="Write a page to look at: curve, predictions, front, best networks, costs.")] = None,
    oracle_cmd: Annotated[str | None, typer.Option(
        "--oracle-cmd", rich_help_panel=_EVALUATION, help="Command that prints the value: 'python train.py {arch}'.")] = None,
    train: Annotated[Path | None, typer.Option(
        "--train", rich_help_panel=_EVALUATION, help="Data (.npz or folder of images) to train every network on.")] = None,
    supernet: Annotated[Path | None, typer.Option(
        "--supernet", rich_help_panel=_EVALUATION, help="Weights of Once-for-All (ofa-mbv3*), with --images.")] = None,
    images: Annotated[Path | None, typer.Option(
        "--images", rich_help_panel=_EVALUATION, help="ImageNet-like folder that --supernet is measured on.")] = None,
    folder: Annotated[Path | None, typer.Option(
        "--folder", rich_help_panel=_EVALUATION, help="Where evaluations keep logs, states and results.")] = None,
    timeout: Annotated[float | None, typer.Option(
        "--timeout", rich_help_panel=_EVALUATION, help="Seconds of one attempt of the command.")] = None,
    regex: Annotated[str | None, typer.Option(
        "--regex", rich_help_panel=_EVALUATION, help="Where the value is in the command's output.")] = None,
    retries: Annotated[int | None, typer.Option(
        "--retries", min=0, rich_help_panel=_EVALUATION, help="Further attempts after a crash of the command.")] = None,
    shell: Annotated[bool, typer.Option("--shell", rich_help_panel=_EVALUATION, help="Give the command to a shell.")] = False,
    epochs: Annotated[int | None, typer.Option(
        "--epochs", min=1, rich_help_panel=_TRAINING, help="Epochs of one training.")] = None,
    batch: Annotated[int | None, typer.Option(
        "--batch", min=1, rich_help_panel=_TRAINING, help="Images in a batch.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", rich_help_panel=_TRAINING, help="Learning rate.")] = None,
    train_budget: Annotated[float | None, typer.Option(
        "--train-budget", rich_help_panel=_TRAINING, help="Seconds of one training.")] = None,
    device: Annotated[str | None, typer.Option("--device", rich_help_panel=_TRAINING, help="Such as cuda:0.")] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Search a space for its best network: against its benchmark table, by training, or with a command of your own."""
    from cg import _terminal as terminal
    from cg.errors import CGError
    from evo_search.oracles import oracle_from_options
    from evo_search.spaces import get_space
    from evo_search.study import Study

    where = get_space(space)
    if oracle not in ("table", "surrogate") or config not in ("default", "paper"):
        raise CGError(f"--oracle is 'table' or 'surrogate' and --config 'default' or 'paper', got {oracle!r}, {config!r}")
    bounds = [parse_constraint(text) for text in constraint or ()]
    wanted = parse_directions(objective) if objective else {"value": "max"}
    own = {"timeout_s": timeout, "regex": regex, "retries": retries, "shell": shell or None, "epochs": epochs, "batch": batch,
           "lr": lr, "budget_s": train_budget, "device": device}
    named = bool(objective) or any(not b.of_graph for b in bounds)
    ask: Any
    if (supernet is None) != (images is None) or (supernet is not None and (oracle_cmd is not None or train is not None)):
        raise CGError("--supernet and --images go together, without --oracle-cmd and --train")
    if supernet is not None and images is not None:
        from evo_search.supernet import supernet_oracle

        ask = supernet_oracle(space, supernet, images, device=device or "cpu", seed=seed,
                              metric=None if named else metric or "top1")
    elif oracle_cmd is not None or train is not None:
        given: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
        ask = oracle_from_options(where, command=oracle_cmd, train=train, folder=folder, metric=metric, seed=seed,
                                  workers=workers, **given)
        if metric is None and named:
            ask.metric = None  # all values, by name
    elif folder is not None or any(value is not None for value in own.values()):
        raise CGError("options of an evaluation need --oracle-cmd or --train")
    elif oracle == "surrogate":
        where, ask = _surrogate(where, metric, named)
    else:
        ask = _table_oracle(space, metric)
    chosen = "random" if random else strategy or ("cg" if config == "default" else "algorithm1")
    made = _strategy(chosen, where, config, predictor, settings or ())
    with Study(where, made, objectives=wanted, constraints=bounds, seed=seed, history=history, name=study) as run:
        if len(run):
            terminal.note(f"resumed {history} after {len(run)} queries")
        with terminal.progress(f"searching {space}", budget) as advance:
            advance(done=len(run))

            def told(query: Query, best: Query | None) -> None:
                advance(note="" if best is None else f"best {best.value:.4f}")

            stopped = run.run(ask, budget, workers, told)
    _report(run, ask, stopped, space, budget, json)
    if report is not None:
        from evo_search.search_page import search_report

        terminal.note(f"wrote {search_report(run, report, best_possible=getattr(ask, 'best_possible', None))}")


def _report(run: Any, ask: Oracle, stopped: str, space: str, budget: int, json: bool) -> None:
    from cg import _terminal as terminal

    best, best_possible = run.best(), getattr(ask, "best_possible", None)
    failed = [q for q in run.history.queries if q.value is None]
    front = [{"network": q.genome, **{o.name: q.values[o.name] for o in run.objectives}} for q in run.front()]
    front.sort(key=lambda row: row[run.objectives[0].name], reverse=run.objectives[0].maximize)
    if failed and len(failed) == len(run):
        terminal.note(f"all {len(failed)} evaluations failed, the last with: {failed[-1].error}")
    found = {"space": space, "strategy": run.strategy.name, "oracle": ask.describe(), "seed": run.seed, "budget": budget,
             "queries": len(run), "failed": len(failed), "stopped": stopped, "best": best.genome if best else None,
             "best_value": best.value if best else None, "best_possible": best_possible, "curve": run.curve(),
             **({"front": front} if len(run.objectives) > 1 else {})}
    if json:
        terminal.emit(found)
        return
    possible = "–" if best_possible is None else best_possible
    if len(run.objectives) > 1:
        terminal.table(f"front of {space}", ("network", *(o.name for o in run.objectives)), [tuple(f.values()) for f in front])
    terminal.table(f"search of {space}", ("what", "value"), [
        ("best network", found["best"] or "–"), ("best value", found["best_value"]), ("of possible", possible),
        ("queries", len(run)), ("failed", len(failed)), ("stopped", stopped)])


def parse_directions(texts: Sequence[str]) -> dict[str, str]:
    """``["acc", "latency_ms:min"]`` as ``{"acc": "max", "latency_ms": "min"}``."""
    found = {}
    for text in texts:
        name, _, direction = text.partition(":")
        found[name] = direction or "max"
    return found


def parse_constraint(text: str) -> Constraint:
    """``"macs<=3e8"`` as a constraint. Raises ``SearchError``."""
    from evo_search._evolve_config import SearchError
    from evo_search.objectives import Constraint

    match = re.fullmatch(r"\s*([^<>=\s]+)\s*(<=|>=)\s*(\S+)\s*", text)
    try:
        if match is None:
            raise ValueError
        name, sign, bound = match.groups()
        return Constraint(name, **{"at_most" if sign == "<=" else "at_least": float(bound)})
    except ValueError:
        raise SearchError(f"--constraint is 'name<=number' or 'name>=number', got {text!r}") from None


def _strategy(name: str, space: SearchSpace[Any], config: str, predictor: Path | None, changes: Sequence[str]) -> Strategy:
    from evo_search._evolve_config import EvolveConfig, SearchError
    from evo_search.rivals import choose
    from evo_search.strategies import get_strategy

    if config != "default" and name != "algorithm1":
        raise SearchError(f"--config is of the strategy algorithm1, not of {name}")
    guide: Any = None
    if predictor is not None:
        from finetune import CGPredictor

        if name not in _GUIDED:
            raise SearchError(f"strategy {name} takes no --predictor; these do: {', '.join(_GUIDED)}")
        guide = CGPredictor.load(predictor)
    arguments = parse_settings(get_strategy(name), changes, EvolveConfig.paper(space.name) if config == "paper" else None)
    if name == "algorithm1":  # without a predictor it would be plain evolution
        guide = guide or choose("default")[0].make(0, space.family)
    return get_strategy(name, **arguments, **({} if guide is None else {"predictor": guide}))


def parse_settings(strategy: Strategy, texts: Sequence[str], base: Any = None) -> dict[str, Any]:
    """``["pool_size=800", "view=native"]`` as arguments of the class of a strategy; ``base``: settings, else its own.

    Values are JSON, or else texts. Raises ``SearchError``.
    """
    from evo_search._evolve_config import SearchError

    settings: Any = base or getattr(strategy, "settings", None)
    known = [f.name for f in fields(settings)] if is_dataclass(settings) else []
    views = ["view"] if "view" in signature(type(strategy)).parameters else []
    changes: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in (*known, *views):
            raise SearchError(f"--set is name=value, got {text!r}; settings of {strategy.name}: "
                              f"{', '.join((*known, *views)) or 'none'}")
        try:
            changes[name] = loads(value)
        except ValueError:
            changes[name] = value
    arguments = {name: changes.pop(name) for name in views if name in changes}
    return arguments | ({"settings": replace(settings, **changes)} if changes or base else {})


def _surrogate(space: SearchSpace[Any], metric: str | None, named: bool) -> tuple[SearchSpace[Any], Any]:
    """The surrogate of a space, and the space with the networks that it knows."""
    from cg.errors import CGError
    from evo_search.ofa import AutoBuildOracle, AutoBuildValues
    from evo_search.oracles import SurrogateOracle
    from evo_search.spaces.ofa import OFASpace

    if isinstance(space, OFASpace):
        known = type(space)(resolutions=AutoBuildOracle.resolutions)
        return known, AutoBuildValues(space.genomes) if named else AutoBuildOracle(space.genomes, metric or "top1")
    if space.name != "nasbench301":
        raise CGError(f"there is no surrogate of {space.name}; there are those of nasbench301 and the ofa spaces")
    return space, SurrogateOracle()


def _table_oracle(space: str, metric: str | None) -> Oracle:
    from cg.errors import CGError
    from evo_search import tables
    from evo_search.oracles import TableOracle

    if space not in tables.names():
        raise CGError(f"space {space!r} has no benchmark table; tables: {', '.join(tables.names())}; for others use --train or "
                      "--oracle-cmd")
    table = tables.load(space)
    if space == "nasbench301":
        raise CGError(f"the table of nasbench301 holds {table.n:,} of about 10^18 networks, so a search would hardly ever "
                      "meet one; use --oracle surrogate")
    return TableOracle(space, metric or table.default_metric)
