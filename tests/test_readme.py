"""README, pictures, notebooks: every link leads to a file that is here, every picture has its script."""

import ast
import csv
import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
HOME = "https://github.com/modelsgenesis/modelsgenesis"
SITE = "https://modelsgenesis.github.io/modelsgenesis/"
RAW = "https://raw.githubusercontent.com/modelsgenesis/modelsgenesis/main/"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def file_of(address):
    """Return the file of this repository that an address of the project shows, None for what is no file of it."""
    if address.startswith(SITE):
        page = address.removeprefix(SITE).partition("#")[0].rstrip("/") or "index"
        return next((one for one in (ROOT / f"docs/{page}.md", ROOT / f"docs/{page}/index.md") if one.exists()), page)
    found = re.fullmatch(rf"(?:{HOME}/(?:blob|tree)/main/|{RAW})([^#]+)(?:#.*)?", address)
    return ROOT / found[1] if found else None


def links_in(text):
    return re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset|href)="([^"]+)"', text)


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 120


def test_every_link_of_the_readme_works_anywhere_and_leads_to_a_file():
    links = links_in(README)
    assert len(links) > 10
    for link in links:
        assert link.startswith("https://"), f"{link}: relative; on PyPI it leads nowhere"
        file = file_of(link)
        assert file is None or Path(file).exists(), link
        assert file is not None or not link.startswith((HOME, RAW)), f"{link}: a form of address that no test knows"


def test_addresses_and_authors_of_the_package_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert [one["name"] for one in PROJECT["authors"]] == [one["name"] for one in citation["authors"]]
    assert (citation["repository-code"], citation["url"]) == (HOME, SITE)
    assert (PROJECT["urls"]["Homepage"], PROJECT["urls"]["Documentation"]) == (HOME, SITE)
    assert file_of(PROJECT["urls"]["Changelog"]) == ROOT / "CHANGELOG.md"


def test_badges_say_what_the_package_says():
    python, torch = (re.search(rf"badge/{name}-([\d.]+)", README)[1] for name in ("python", "PyTorch"))
    assert PROJECT["requires-python"] == f">={python}"
    assert f"torch>={torch}" in PROJECT["dependencies"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_committed_without_outputs(notebook):
    cells = json.loads(notebook.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 3
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    compile("\n".join("".join(cell["source"]) for cell in code), notebook.name, "exec")


def test_every_picture_has_its_script_and_its_page():
    pictures = {path.name: path for path in (ROOT / "docs" / "pictures").iterdir()}
    tree = ast.parse((ROOT / "tools" / "pictures.py").read_text())
    named = next(node.value for node in tree.body if isinstance(node, ast.AnnAssign) and node.target.id == "PICTURES")
    assert {f"{key.value}.png" for key in named.keys} == set(pictures)
    assert max(path.stat().st_size for path in pictures.values()) <= 300_000
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    shown = {Path(link).name for page in pages for link in links_in(page.read_text()) if "pictures/" in link}
    assert shown == set(pictures)


def test_the_table_of_results_is_that_of_the_record():
    with (ROOT / "benchmarks" / "results" / "few_labels.csv").open(newline="") as file:
        records = list(csv.DictReader(file))
    rows = re.findall(
        r"^\|.* \| (\d+) \| (\d+) \| (.+) ± (.+) \| (.+) ± (.+) \| (.+) \((.+) to (.+)\) \|$", README, re.M
    )
    measured = (ROOT / "docs" / "measurements.md").read_text().replace("**", "")
    assert len(rows) == len(records)
    for row, record in zip(rows, records, strict=True):
        plain = [cell.strip("*").replace("−", "-").removeprefix("+") for cell in row]
        names = ("labelled", "runs", "scratch", "scratch_std", "genesis", "genesis_std", "difference", "low", "high")
        assert plain == [record[name] for name in names]
        assert (
            f"| {record['scratch']} ± {record['scratch_std']} | {record['genesis']} ± {record['genesis_std']} |"
            in measured
        )
        # An interval that holds 0 is no difference, and is not printed as one.
        assert row[6].startswith("**") == (float(record["low"]) * float(record["high"]) > 0)


@pytest.mark.parametrize(
    ("name", "data", "metric"),
    [("lung_nodules", "lung nodules", "dice"), ("lung_malignancy", "malignancy of nodules", "auc")],
)
def test_the_record_of_a_comparison_names_no_patient_and_gave_its_row(name, data, metric):
    text = (ROOT / "benchmarks" / "results" / f"{name}.json").read_text()
    split = json.loads((ROOT / "benchmarks" / "splits" / f"{name}.json").read_text())
    assert not any(name in text for part in split.values() for name in part)
    assert "LIDC" not in text
    record = json.loads(text)
    with (ROOT / "benchmarks" / "results" / "few_labels.csv").open(newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["data"] == data)
    measured = record["labels"][row["labelled"]]
    (found,) = measured["comparisons"]
    assert int(row["runs"]) == len(record["seeds"])
    for arm in ("scratch", "genesis"):
        values = measured["arms"][arm][metric]
        assert (row[arm], row[f"{arm}_std"]) == (f"{values['mean']:.3f}", f"{values['std']:.3f}")
    for key in ("difference", "low", "high"):
        assert row[key] == f"{found[key]:.3f}"
