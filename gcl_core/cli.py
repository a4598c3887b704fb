"""The command line, `gcl` or `python -m gcl_core {train,grid,methods,datasets,bench,...}`.

Nothing heavy is imported before it is known to be needed: help and refusals come at once.
"""

import argparse
import json
import logging
import os
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import gcl_core
from gcl_core.errors import GCLError
from gcl_core.files import at_home, atomic_json, atomic_write, prepare, project_root

if TYPE_CHECKING:
    from gcl_core.methods.settings import Settings

INTERRUPTED = 130
BROKEN_PIPE = 141
FILES_TAKE = ("rounds", "steps", "batch_size", "network", "image_size", "workers")
# Commands by the optional dependencies of pyproject.toml that they need.
EXTRAS = {"grid": "grid", "export": "export"} | dict.fromkeys(
    ("study", "notebooks", "students", "tables"), "study"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (0, 1 for what the user has to mend, 130, 141)."""
    level = logging.INFO if _speaks() else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stderr)
    # Read when PyTorch is loaded: threads that wait for each other leave their cores to others.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # nor are its warnings for the user
    parser = _parser()
    try:
        options, rest = parser.parse_known_args(arguments)
        options.rest = rest
        if rest and options.command != "train":
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        return _handler(options.run)(options) or 0
    except BrokenPipeError:  # whoever read the output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except ModuleNotFoundError as error:
        if options.command not in EXTRAS or str(error.name).startswith("gcl_core"):
            raise
        extra = f"pip install 'gcl-core[{EXTRAS[options.command]}]'"
        status, text = 1, f"{options.command} needs {error.name}: {extra}"
    except (GCLError, OSError) as error:
        status, text = 1, _one_line(error)
    except KeyboardInterrupt:
        text = "interrupted; the same command continues after the last saved epoch"
        status = INTERRUPTED
    if _speaks():
        print(f"gcl: {text}", file=sys.stderr)
    return status


def _handler(run: Any) -> Any:
    """A function, or that which `module:name` of the package names: it is imported only now."""
    if isinstance(run, str):
        module, name = run.split(":")
        return getattr(import_module(f"gcl_core.{module}"), name)
    return run


def _speaks() -> bool:
    """Whether this is the only process of a run, or the first of several (Fabric numbers them)."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        place = f" ({error.filename})" if error.filename else ""
        return f"cannot write or read a file: {error.strerror}{place}"
    return str(GCLError(str(error)))


class _Parser(argparse.ArgumentParser):
    """One that says what is wrong in one line, as everything else here does."""

    more: Callable[[], str] | None = None  # what its help ends with

    def error(self, message: str) -> NoReturn:
        raise GCLError(f"{message}; see {self.prog} --help")

    def format_help(self) -> str:
        if self.more is not None:
            self.epilog = self.more()
        return super().format_help()


def _whole(low: int, high: int = 1024) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or len(text) > 10 or not low <= int(text) <= high:
            message = f"must be a whole number from {low} to {high}, got {text!r}"
            raise argparse.ArgumentTypeError(message)
        return int(text)

    return number


_positive = _whole(1)


def _path(text: str) -> Path:
    if not text:  # of a variable that is not set; it would be the working folder
        raise argparse.ArgumentTypeError("must be a path, got ''")
    return at_home(text)  # a shell leaves `--runs=~/runs` to us


# Options that several commands have.
DATASET: dict[str, Any] = {"default": "digits", "help": "a name, or KIND:PATH (digits)"}
RUNS: dict[str, Any] = {"type": _path, "default": Path("runs"), "help": "folder of all runs (runs)"}
WORKERS: dict[str, Any] = {"type": _positive, "help": "runs at a time (one for each core)"}
ACCELERATOR: dict[str, Any] = {"default": "auto", "choices": ("auto", "cpu", "gpu")}


def _parser() -> argparse.ArgumentParser:
    called = "gcl" if Path(sys.argv[0]).stem == "gcl" else "python -m gcl_core"
    about = "Train, compare and explain long-tailed image classification."
    parser = _Parser(prog=called, description=about)
    parser.add_argument("--version", action="version", version=gcl_core.__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str, **more: Any) -> _Parser:
        raw = argparse.RawDescriptionHelpFormatter
        added = commands.add_parser(name, help=text, description=text, formatter_class=raw, **more)
        added.set_defaults(run=run)
        return added

    about = "train a method on a data set, or continue or reuse its run"
    train = command("train", _train, about, allow_abbrev=False)
    train.more = _settings_help
    train.add_argument("--dataset", **DATASET)
    train.add_argument("--method", default="gcl_crt", help="one of those below (gcl_crt)")
    train.add_argument("--preset", help="one of those below (that of the data set, or pretrained)")
    train.add_argument("--runs", **RUNS)
    train.add_argument("--json", action="store_true", help="the result as the last line, in JSON")
    text = "a JSON file of run records to add the finished run to"
    train.add_argument("--record", type=_path, help=text)
    train.add_argument("--accelerator", **ACCELERATOR)
    text = (
        "CPU threads (1 for a small network, else one for each core); the last bits depend on them"
    )
    train.add_argument("--threads", type=_positive, help=text)
    text = "captured: replayed from a CUDA graph, with the same bits (auto: on a GPU)"
    steps = ("auto", "eager", "captured")
    train.add_argument("--step", default="auto", choices=steps, help=text)
    text = "processes that decode image files, 0: threads (on a GPU one for each core, else 0); "
    text += "the result does not depend on them"
    train.add_argument("--workers", type=_whole(0), help=text)
    progress = ("auto", "bar", "log", "none")
    train.add_argument("--progress", default="auto", choices=progress)

    _add_inference(command)
    methods = command("methods", _methods, "list the methods with their sources")
    methods.add_argument("--json", action="store_true", help="as JSON")
    bench = command("bench", _bench, "measure the speed beside the loop one would else write")
    bench.add_argument("--json", action="store_true", help="the measurements as the last line")
    bench.add_argument("--out", type=_path, help="a file to keep the measurements in, as JSON")
    bench.add_argument("--rounds", type=_positive, help="interleaved rounds (7; of --files 3)")
    instead = bench.add_mutually_exclusive_group()
    text = "instead, photographs in files: decoding, training and both, beside timm's script"
    instead.add_argument("--files", action="store_true", help=text)
    text = "instead, what the runs of the paper's Table 2 cost"
    instead.add_argument("--table2", action="store_true", help=text)
    two = "of --files and --table2"
    bench.add_argument("--steps", type=_positive, help=f"of a slice, {two} (100 and 10)")
    bench.add_argument("--batch-size", type=_whole(2), help=f"{two} (256, and the recipe's)")
    bench.add_argument("--network", help="of --files (timm:resnet50)")
    bench.add_argument("--image-size", type=_whole(5), help="of --files (224)")
    bench.add_argument("--workers", type=_whole(0), help="of --files (as train has them)")
    bench.add_argument("--accelerator", **ACCELERATOR)

    about = "show that the fast loop reaches the accuracy of the plain one"
    compare = command("compare", _compare, about)
    compare.add_argument("--dataset", **DATASET)
    compare.add_argument("--imbalance-ratio", default="100", help="none: data as they are (100)")
    text = "epochs of cross-entropy (30)"
    compare.add_argument("--epochs", type=_whole(1, 10**6), default=30, help=text)
    compare.add_argument("--seeds", type=_whole(2), default=5, help="runs of each, 2 or more (5)")
    compare.add_argument("--runs", **RUNS)
    compare.add_argument("--json", action="store_true", help="the numbers as the last line")

    whole = command("study", _study, "run the whole study on Digits-LT and execute the notebooks")
    text = "folder of the output (study)"
    whole.add_argument("--out", type=_path, default=Path("study"), help=text)
    about = "renew the committed notebooks, figures, records and tables"
    for each in (whole, command("notebooks", _notebooks, about)):
        each.add_argument("--runs", **RUNS)
        each.add_argument("--workers", **WORKERS)
    students = command("students", _students, "copy the notebooks without outputs and solutions")
    text = "folder of the copies (students)"
    students.add_argument("--out", type=_path, default=Path("students"), help=text)
    grid = command("grid", None, "plan and run many runs, described in a file, on many processes")
    _add_grid(grid)

    about = "write the tables of all pages and their figures from the run records"
    tables = command("tables", _tables, about)
    tables.add_argument("--check", action="store_true", help="only say whether they are in step")
    split = command("split", _split, "copy a folder of class folders into train/ and test/")
    split.add_argument("source", type=_path, metavar="SOURCE", help="holds CLASS/IMAGE")
    split.add_argument("out", type=_path, metavar="OUT", help="folder:OUT is then a data set")
    split.add_argument("--share", type=float, default=0.2, help="of each class to the test (0.2)")
    split.add_argument("--validation", type=float, default=0.0, help="of each class to val/ (0)")
    text = "CSV, columns image and group: a group stays in one part"
    split.add_argument("--groups", type=_path, help=text)
    split.add_argument("--seed", type=_whole(0, 2**32 - 1), default=0, help="which images (0)")
    page = command("report", _report, "write one HTML page about a finished run")
    page.add_argument("folder", type=_path, metavar="RUN", help="the folder that `train` names")
    page.add_argument("--out", type=_path, help="the page (report.html in the run's folder)")
    page.add_argument("--dataset", help="where the run's images are now (where they were)")
    data = command("datasets", _datasets, "list the data sets")
    data.add_argument("--json", action="store_true", help="as JSON")
    return parser


def _add_inference(command: Callable[..., _Parser]) -> None:
    """The commands of a finished run."""
    run: dict[str, Any] = {"type": _path, "metavar": "RUN", "help": "folder of a finished run"}
    about = "name the class of pictures, with a finished run"
    predict = command("predict", "inference.commands:predict", about)
    predict.add_argument("folder", **run)
    text = "a picture, or a folder of pictures"
    predict.add_argument("images", nargs="+", type=_path, metavar="IMAGE", help=text)
    predict.add_argument("--json", action="store_true", help="JSON instead of the table")
    predict.add_argument("--csv", type=_path, metavar="FILE", help="a file to write the table to")
    text = "how often each class is expected: training, uniform, or a CSV file with the columns "
    text += "class,share; needs a run with validation images (as the run's loss has it)"
    predict.add_argument("--prior", metavar="SHARES", help=text)
    predict.add_argument("--top", type=_positive, default=5, help="classes of each picture (5)")
    about = "write a finished run in a format that others read"
    export = command("export", "inference.commands:export", about)
    export.add_argument("folder", **run)
    formats = ("onnx", "torchscript", "state_dict")
    export.add_argument("--format", required=True, choices=formats)
    export.add_argument("--out", type=_path, help="the file (in the run's folder)")


def _add_grid(grid: argparse.ArgumentParser) -> None:
    """The actions of `grid`."""
    actions = grid.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, text: str) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=text, description=text)
        added.set_defaults(run=f"grid.commands:{name}")
        added.add_argument("file", type=_path, metavar="FILE", help="the grid, a YAML file")
        added.add_argument("--runs", **RUNS)
        added.add_argument("--dataset", help="instead of the file's")
        added.add_argument("--accelerator", **ACCELERATOR)
        return added

    plan = action("plan", "validate every cell; show what is done, what is left, how long")
    run = action("run", "train what is left, on this machine or on a Dask cluster")
    for each in (plan, run):
        number = each.add_mutually_exclusive_group()
        text = "processes (as many as fill the cores; one a GPU)"
        number.add_argument("--workers", type=_positive, help=text)
        number.add_argument("--per-gpu", type=_positive, help="processes on each GPU (1)")
        text = "CPU threads of each (1: small networks gain more from processes); the last bits "
        text += "depend on them"
        each.add_argument("--threads", type=_positive, default=1, help=text)
    where = run.add_mutually_exclusive_group()
    where.add_argument("--scheduler", metavar="ADDRESS", help="of a running Dask cluster")
    text = "stop after them; the same command continues (this machine's workers only)"
    where.add_argument("--minutes", type=_positive, help=text)
    run.add_argument("--retry-failed", action="store_true", help="try failed cells again")
    action("status", "show how far every cell is")
    collect = action("collect", "write the results of all finished cells to one file")
    text = "a parquet file, one row a cell (results.parquet)"
    collect.add_argument("--out", type=_path, help=text)
    text = "a JSON file of run records to add to"
    collect.add_argument("--records", type=_path, help=text)


def _settings_help() -> str:
    """Methods, presets, and every setting there is: meaning, default, source."""
    from gcl_core.methods.registry import METHODS, PRESETS
    from gcl_core.methods.settings import describe, flat_settings, get_setting

    names: dict[str, Mapping[str, object]] = {"methods": METHODS, "presets": PRESETS}
    lines = [textwrap.fill(f"{k}: {', '.join(of)}", 98) + "\n" for k, of in names.items()]
    lines += [
        "settings: any single one can be given as --name value (- and _ are alike), among them",
        "--imbalance-ratio, --epochs and --seed; those of stage 2 have the prefix --stage2-.",
        "In brackets the values of preset official.",
    ]
    shown = set[str]()
    for method in ("gcl_crt", *METHODS):
        settings = gcl_core.resolve("digits", method, "official")
        own = {n: path for n, path in flat_settings(settings).items() if n not in shown}
        lines += ["", f"with --method {method}{' also' * bool(shown)}:", ""] if own else []
        shown |= own.keys()
        for name, path in own.items():
            current = get_setting(settings, path)
            current = current.name if hasattr(current, "name") else current
            text = f"{describe(settings, path)} [{current}]"
            flag = f"  --{name.replace('_', '-')}"
            lines += textwrap.wrap(
                text, 98, initial_indent=f"{flag:31} ", subsequent_indent=" " * 32
            )
    return "\n".join(lines)


def overrides(rest: Sequence[str]) -> dict[str, str]:
    """`--name value` and `--name=value` pairs as a mapping by flat setting name.

    One without a value has an empty one, which is yes to a switch. No other setting takes it: its
    refusal says what it takes, and that of a setting that there is not says which there are.

    Raises:
        GCLError: a word that is no option, or an option given twice.
    """
    changes: dict[str, str] = {}
    words = list(rest)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise GCLError(f"unexpected argument {word!r}; settings are given as --name value")
        flag, equals, given = word[2:].partition("=")
        if not equals and words and not words[0].startswith("--"):
            given = words.pop(0)
        name = flag.replace("-", "_")
        if name in changes:
            raise GCLError(f"{word} is given twice")
        changes[name] = given
    return changes


def _train(options: argparse.Namespace) -> None:
    changes, accelerator = overrides(options.rest), options.accelerator
    named = options.dataset, options.method, options.preset
    settings = gcl_core.resolve(*named, accelerator=accelerator, **changes)
    _say_what_was_chosen(settings, options.method, changes)
    dataset = gcl_core.load_dataset(settings.data)

    from gcl_core.hardware import BFLOAT16, best_precision, device_kind, use_threads
    from gcl_core.methods.registry import default_preset
    from gcl_core.results.records import add_records, record, trained_epochs
    from gcl_core.training.longer import begin_from_shorter
    from gcl_core.training.two_stages import run_folders, threads_so_far

    device = device_kind(accelerator, settings.network)
    folders = run_folders(settings, dataset.described, options.runs, device=device)
    threads = options.threads or threads_so_far(folders)
    threads = use_threads(threads, settings.network, settings.devices)
    if options.record and _speaks():
        add_records(options.record, [])  # what is wrong with the file is said before the training
    logging.info("%s", dataset)
    if settings.precision == BFLOAT16 != best_precision(device):
        logging.warning("bfloat16 is emulated on this %s: float32 is many times faster", device)
    about = options.method, settings.precision, settings.seed, threads
    logging.info("%s, %s, seed %d, threads %d", *about)
    if _speaks():
        begin_from_shorter(folders[0], settings.stage1)
    finished = gcl_core.run(
        settings,
        options.runs,
        accelerator=accelerator,
        progress=options.progress,
        dataset=dataset,
        step=options.step,
        workers=options.workers,
    )
    result = finished.result
    keys = ("top1", "many", "medium", "few")
    parts = [f"{k} {'-' if result[k] is None else format(result[k], '.2f')}" for k in keys]
    logging.info("last epoch, in percent: %s; run %s", ", ".join(parts), finished.path)
    if "best_on_test" in result:
        best = result["best_on_test"]
        logging.info("best epoch on test (%s): %.2f", best["note"], best["top1"])
    if options.record and _speaks():
        preset = options.preset or default_preset(options.dataset, changes)
        run = finished.settings, finished.folders
        add_records(options.record, [record(*run, options.method, preset, history=True)])
    if options.json and _speaks():
        line = {key: result[key] for key in (*keys, "per_class", "class_names")}
        epochs = [trained_epochs(folder) for folder in finished.folders]
        print(json.dumps(line | {"epochs": epochs, "run": str(finished.path)}))


def _say_what_was_chosen(settings: "Settings", method: str, changes: Mapping[str, str]) -> None:
    """What nobody named: the recipe of a data set, or the network of photographs."""
    from gcl_core.methods.recipes import recipe_of

    if (recipe := recipe_of(settings.data.dataset.partition(":")[0], method)).changes:
        epochs = " + ".join(str(stage.trained_epochs) for stage in settings.stages)
        first = settings.stage1
        logging.info(
            "recipe of docs/recipes.md: %s, weights %s, %s epochs, batch %d, rate %g",
            *(settings.network, settings.weights, epochs, first.batch_size, first.lr),
        )
        logging.info("  from: %s", recipe.source)
        if recipe.guess:
            logging.info("  a guess: %s", recipe.guess)
        return
    if settings.weights == "none" or "network" in changes or "weights" in changes:
        return
    chosen = settings.network, settings.data.image_size, settings.stage1.trains or "all"
    logging.info("photographs: %s, pre-trained, at %d px; trained: %s", *chosen)
    logging.info(
        "  more of it: --trains last_block, norms or all; "
        "another one: --network timm:NAME --weights default"
    )
    logging.info("  without: --network resnet32 --image-size 32 (from new weights, takes longer)")


def _bench(options: argparse.Namespace) -> None:
    from gcl_core.benchmark import cost, photographs, speed
    from gcl_core.results.protocol import cost_table

    if options.out:  # before minutes of measuring
        prepare(options.out)
    measure: Callable[..., dict[str, Any]]
    table: Callable[[dict[str, Any]], str]
    takes: Sequence[str]
    if options.table2:
        measure, table, takes = cost.measure_costs, cost_table, FILES_TAKE[1:3]
    elif options.files:
        measure, table, takes = photographs.benchmark_files, photographs.files_table, FILES_TAKE
    else:
        measure, table, takes = speed.benchmark, speed.bench_table, FILES_TAKE[:1]
    given = {name: own for name in FILES_TAKE if (own := getattr(options, name)) is not None}
    if wrong := [name for name in given if name not in takes]:
        raise GCLError(f"this bench takes no --{wrong[0].replace('_', '-')}; see bench --help")
    result = measure(**given, accelerator=options.accelerator)
    print(table(result))
    if options.out:
        atomic_json(options.out, result)
    if options.json:
        print(json.dumps(result))


def _compare(options: argparse.Namespace) -> None:
    same = {"imbalance_ratio": options.imbalance_ratio, "epochs": options.epochs}
    seeds = range(options.seeds)
    settings = [gcl_core.resolve(options.dataset, "ce", seed=seed, **same) for seed in seeds]
    if settings[0].network == "features":
        raise GCLError(f"compare needs pixels, and {options.dataset} has features: take digits")

    from gcl_core.benchmark.plain import plain_accuracy, same_accuracy
    from gcl_core.hardware import use_threads

    use_threads(None, settings[0].network)
    fast = [gcl_core.run(each, options.runs).result["top1"] for each in settings]
    plain = []
    for each in settings:
        plain.append(plain_accuracy(each))
        logging.info("plain loop, seed %d: %.2f %%", each.seed, plain[-1])
    result = same_accuracy(fast, plain)
    print(
        f"top-1 after {options.epochs} epochs: fast {result['fast']}, plain {result['plain']}; "
        f"difference {result['difference']} ± {result['half_interval']} (95 % t interval)"
    )
    if options.json:
        print(json.dumps(result))


def _project(part: str) -> Path:
    """The project's folder, which has this part; what is installed has the package alone."""
    root = project_root()
    if not (root / part).is_dir():
        raise GCLError(f"no {part}/ here: this command works inside a copy of the project")
    return root


def _study(options: argparse.Namespace) -> None:
    from gcl_core.study import study

    print(study(_project("grids"), options.out, options.runs, workers=options.workers))


def _notebooks(options: argparse.Namespace) -> None:
    from gcl_core.course.execution import synchronise
    from gcl_core.results.page import update_pages
    from gcl_core.study import study

    root = _project("grids")
    synchronise(root / "notebooks")
    print(study(root, root, options.runs, workers=options.workers))
    update_pages(root)


def _students(options: argparse.Namespace) -> None:
    from gcl_core.course.students import write_student_copies

    for file in write_student_copies(_project("notebooks") / "notebooks", options.out):
        print(file)


def _tables(options: argparse.Namespace) -> int:
    from gcl_core.results.chosen import draw_clothes
    from gcl_core.results.page import draw_table1, update_pages
    from gcl_core.results.tables import draw_records

    root = _project("results")
    in_step = update_pages(root, check=options.check)
    if not options.check:
        draw_records(root)
        draw_clothes(root)
        draw_table1(root)
    for page, was in in_step.items():
        print(f"{page}: {'in step' if was else 'out of step' if options.check else 'renewed'}")
    return 1 if options.check and not all(in_step.values()) else 0


def _methods(options: argparse.Namespace) -> None:
    methods = gcl_core.METHODS
    if options.json:
        about = {k: {"summary": m.summary, "source": m.source} for k, m in methods.items()}
        print(json.dumps(about))
        return
    width = max(map(len, methods))
    margin = " " * (width + 1)
    for name, method in methods.items():
        print(f"{name:{width}} {method.summary}")
        print(textwrap.fill(method.source, 96, initial_indent=margin, subsequent_indent=margin))


def _split(options: argparse.Namespace) -> None:
    from gcl_core.data.image_files import list_images
    from gcl_core.data.image_folder import split_image_folder

    shares = {"share": options.share, "validation": options.validation}
    chosen = {"seed": options.seed, "groups": options.groups}
    out = split_image_folder(options.source, options.out, **shares, **chosen)
    for part in sorted(each for each in out.iterdir() if each.is_dir()):
        files, names = list_images(part)
        print(f"{part}: {len(files)} images of {len(names)} classes")


def _report(options: argparse.Namespace) -> None:
    from gcl_core.hardware import use_threads
    from gcl_core.inference.saved import images_of
    from gcl_core.report.page import report

    model = gcl_core.load_run(options.folder)
    use_threads(None, model.settings["network"])
    out = options.out or model.path / "report.html"
    prepare(out)
    atomic_write(out, report(model, images_of(model, options.dataset)).encode())
    print(out)


def _datasets(options: argparse.Namespace) -> None:
    from gcl_core.data.sources import DATASETS

    texts = {name: " ".join((kind.read.__doc__ or "").split()) for name, kind in DATASETS.items()}
    if options.json:
        print(json.dumps(texts))
        return
    for name, text in texts.items():
        print(f"{name:11} {text}")
